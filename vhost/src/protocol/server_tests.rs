//! The server against rust-vmm's front-end, an implementation that is not ours.

use super::{Endpoint, Server, feature};
use crate::driver::{Buffer, DriverRing, Layout};
use crate::memory::{Mapping, Piece};
use crate::queue::PortQueues;
use crate::ring::Direction;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVringAddrFlags};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;
use weft_model::VhostUserMode;

const BYTES: usize = 1 << 20;

fn endpoint(path: &Path, mode: VhostUserMode) -> Endpoint {
    Endpoint {
        offered: feature::OFFERED,
        path: path.to_owned(),
        mode,
        queues: Arc::new(PortQueues::default()),
    }
}

/// Hands over a guest with one ring on queue 1, and takes a chain through it.
fn converse(front: &mut Frontend, queues: &PortQueues) {
    let (mapping, file) = Mapping::with_file("weft-test", BYTES).unwrap();
    let mapping = Arc::new(mapping);
    let layout = Layout {
        packed: false,
        size: 64,
        start: 0,
    };
    let mut driver = DriverRing::new(layout, &mapping).unwrap();
    let user = 0x7000_0000_0000;
    front.set_owner().unwrap();
    let features = front.get_features().unwrap();
    assert_eq!(features, feature::OFFERED);
    let protocol = front.get_protocol_features().unwrap();
    assert!(
        protocol.contains(VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK)
    );
    front.set_protocol_features(protocol).unwrap();
    front.set_hdr_flags(vhost::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY);
    front.set_features(features & !feature::PACKED).unwrap();
    assert_eq!(front.get_queue_num().unwrap(), 8);
    assert_eq!(front.get_max_mem_slots().unwrap(), 32);
    let region = VhostUserMemoryRegionInfo {
        guest_phys_addr: 0,
        memory_size: BYTES as u64,
        userspace_addr: user,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    };
    front.set_mem_table(&[region]).unwrap();
    let [descriptors, available, used] = layout.starts().map(|at| user + at as u64);
    let config = VringConfigData {
        queue_max_size: 64,
        queue_size: 64,
        flags: VhostUserVringAddrFlags::empty().bits(),
        desc_table_addr: descriptors,
        used_ring_addr: used,
        avail_ring_addr: available,
        log_addr: None,
    };
    front.set_vring_num(1, 64).unwrap();
    front.set_vring_base(1, 0).unwrap();
    front.set_vring_addr(1, &config).unwrap();
    let (kick, call) = (EventFd::new(0).unwrap(), EventFd::new(0).unwrap());
    front.set_vring_call(1, &call).unwrap();
    front.set_vring_kick(1, &kick).unwrap();
    front.set_vring_enable(1, true).unwrap();
    let buffer = Buffer {
        address: 0x8000,
        bytes: 64,
        write: false,
    };
    let id = driver.offer(&[buffer], None).unwrap();
    {
        let mut queue = queues.lock(1).unwrap();
        assert!(queue.enabled && queue.kick.is_some() && queue.call.is_some());
        let memory = Arc::clone(&queue.memory);
        let ring = queue.ring.as_mut().unwrap();
        let mut pieces: Vec<Piece> = Vec::new();
        let taken = ring
            .take(Direction::Read, &memory, &mut pieces)
            .unwrap()
            .unwrap();
        assert_eq!(taken.id, id);
        ring.give(&taken, 0);
        ring.publish();
    }
    assert_eq!(front.get_vring_base(1).unwrap(), 1);
    assert!(queues.lock(1).unwrap().ring.is_none());
}

#[test]
fn front_ends_come_and_go_and_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm0.sock");
    let server = Server::start().unwrap();
    let port = endpoint(&path, VhostUserMode::Client);
    server.add(port.clone()).unwrap();
    for _ in 0..3 {
        let mut front = Frontend::connect(&path, 16).unwrap();
        converse(&mut front, &port.queues);
    }
    drop(server);
    assert!(!path.exists(), "the socket is removed");
}

#[test]
fn a_front_end_that_listens_is_dialled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm0.sock");
    let server = Server::start().unwrap();
    let port = endpoint(&path, VhostUserMode::Server);
    server.add(port.clone()).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    for _ in 0..2 {
        let (stream, _) = listener.accept().unwrap();
        converse(&mut Frontend::from_stream(stream, 16), &port.queues);
    }
    drop(server);
    assert!(path.exists(), "it is not ours to remove");
}

#[test]
fn a_file_at_the_sockets_path_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm0.sock");
    std::fs::write(&path, "precious").unwrap();
    let server = Server::start().unwrap();
    let refused = server.add(endpoint(&path, VhostUserMode::Client));
    let why = refused.unwrap_err().to_string();
    assert!(why.contains("an ordinary file is there"), "{why}");
    drop(server);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn nonsense_is_sent_away_and_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let [bad, good] = ["bad.sock", "good.sock"].map(|name| folder.path().join(name));
    let server = Server::start().unwrap();
    let ports = [&bad, &good].map(|path| endpoint(path, VhostUserMode::Client));
    for port in &ports {
        server.add(port.clone()).unwrap();
    }
    let mut front = Frontend::connect(&good, 16).unwrap();
    for nonsense in [
        &[0xff; 64][..],
        &[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1],
        &[99, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
    ] {
        let mut stream = UnixStream::connect(&bad).unwrap();
        stream.write_all(nonsense).unwrap();
        let mut answer = [0; 1];
        // The connection is closed without an answer.
        let read = std::io::Read::read(&mut stream, &mut answer);
        assert!(!matches!(read, Ok(1..)), "{nonsense:?}");
    }
    // Half a message holds nobody up.
    let mut half = UnixStream::connect(&bad).unwrap();
    half.write_all(&[1, 0, 0, 0, 1, 0]).unwrap();
    converse(&mut front, &ports[1].queues);
}
