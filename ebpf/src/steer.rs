//! The program that steers what is for this host's end of tunnels to AF_XDP sockets of the user engine (`programs/steer.bpf.c`).
//!
//! Guarantees: everything else on the interface goes to the kernel as before; the program goes with the value, or with the process.

use crate::error::EngineError;
use aya::maps::XskMap;
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

/// The object that the build script made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steer.bpf.o"));

const PROGRAM: &str = "weft_steer";
const SOCKETS: &str = "sockets";

/// An interface whose tunnelled packets go to sockets.
#[derive(Debug)]
pub struct Steering {
    /// Holds the link, the program and the map.
    _program: Ebpf,
    /// Whether the interface's driver runs the program; otherwise the kernel does, after it has made an skb.
    pub native: bool,
}

impl Steering {
    /// Steers, on the interface of this number (if_nametoindex), what is for the tunnel address: on queue N to the Nth socket.
    ///
    /// # Errors
    /// Another XDP program is there, or the kernel refused.
    pub fn attach(
        interface: u32,
        tunnel_ip: IpAddr,
        sockets: &[impl AsFd],
    ) -> Result<Self, EngineError> {
        let object = |source: aya::EbpfError| EngineError::Object {
            source: Box::new(source),
        };
        let mut address = [0; 16];
        let is_v6 = u8::from(tunnel_ip.is_ipv6());
        match tunnel_ip {
            IpAddr::V4(v4) => address[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => address = v6.octets(),
        }
        let mut loader = EbpfLoader::new();
        loader
            .override_global("tunnel_address", &address, true)
            .override_global("tunnel_is_v6", &is_v6, true);
        let mut ebpf = loader.load(OBJECT).map_err(object)?;
        let map = ebpf.map_mut(SOCKETS);
        let map = map.ok_or(EngineError::Missing { name: SOCKETS })?;
        let mut map = XskMap::try_from(map).map_err(|e| object(e.into()))?;
        for (queue, socket) in (0..).zip(sockets) {
            let put = map.set(queue, socket.as_fd().as_raw_fd(), 0);
            put.map_err(|e| object(e.into()))?;
        }
        let program = ebpf.program_mut(PROGRAM);
        let program = program.ok_or(EngineError::Missing { name: PROGRAM })?;
        let failed = |source: aya::programs::ProgramError| object(source.into());
        let program: &mut Xdp = program.try_into().map_err(failed)?;
        program.load().map_err(failed)?;
        // What a driver does not do itself the kernel does: slower, and everywhere.
        let native = program.attach_to_if_index(interface, XdpMode::Driver);
        let native = match native {
            Ok(_link) => true,
            Err(_refused) => {
                let link = program.attach_to_if_index(interface, XdpMode::Skb);
                link.map_err(failed)?;
                false
            }
        };
        Ok(Self {
            _program: ebpf,
            native,
        })
    }
}
