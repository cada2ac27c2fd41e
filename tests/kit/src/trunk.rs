//! A trunk outside of Weft: one interface whose frames carry 802.1Q tags, split into an untagged leg for each tag. What Linux's
//! own vlan devices do where the kernel has them: two programs a leg, which take the tag off and put it on.

use crate::namespace::Namespace;
use anyhow::{Context, Result};
use std::os::fd::{AsFd, OwnedFd};
use weft_ebpf::sys::{Insn, Prog, ProgSpec, ProgType, TcxDirection, link_create_tcx};

/// `TCX_NEXT`.
const NEXT_PROGRAM: i32 = -1;
/// Fields of `struct __sk_buff`.
const VLAN_PRESENT: i16 = 20;
const VLAN_TCI: i16 = 24;
/// Helpers of bpf(2).
const VLAN_PUSH: i32 = 18;
const VLAN_POP: i32 = 19;
const REDIRECT: i32 = 23;

/// Programs on a trunk and its legs; they go when it is dropped.
#[derive(Debug)]
pub struct Trunk {
    _links: Vec<OwnedFd>,
}

impl Trunk {
    /// Splits `interface` into legs of these tags, named `vlan101` for 101, which are up and have no addresses yet.
    ///
    /// # Errors
    /// A leg is there already, or the kernel refuses.
    pub fn split(namespace: &Namespace, interface: &str, vlan_ids: &[u16]) -> Result<Self> {
        Self::split_as(namespace, interface, vlan_ids, false)
    }

    /// The same before a packet socket, which does not show a frame's outermost tag: what leaves has another one around it.
    ///
    /// # Errors
    /// As [`Trunk::split`].
    pub fn split_covered(namespace: &Namespace, interface: &str, vlan_ids: &[u16]) -> Result<Self> {
        Self::split_as(namespace, interface, vlan_ids, true)
    }

    fn split_as(
        namespace: &Namespace,
        interface: &str,
        vlan_ids: &[u16],
        covered: bool,
    ) -> Result<Self> {
        let index = |name: &str| -> Result<u32> {
            let text = namespace.run(&format!("ip -o link show {name}"))?;
            let number = text.split(':').next().unwrap_or_default();
            number.trim().parse().with_context(|| text.clone())
        };
        let trunk = index(interface)?;
        let mut links = Vec::new();
        for vlan_id in vlan_ids {
            let (leg, behind) = (format!("vlan{vlan_id}"), format!("split{vlan_id}"));
            namespace.run(&format!("ip link add {leg} type veth peer name {behind}"))?;
            for name in [&leg, &behind] {
                namespace.run(&format!("ip link set {name} up"))?;
            }
            let behind = index(&behind)?;
            let attach = |insns: Vec<Insn>, to: u32| {
                namespace.enter(|| -> Result<OwnedFd> {
                    let prog = Prog::load(&ProgSpec {
                        name: "weft_kit_trunk",
                        kind: ProgType::SchedCls,
                        expected_attach_type: 0,
                        insns: &insns,
                    })?;
                    Ok(link_create_tcx(prog.as_fd(), to, TcxDirection::Ingress)?)
                })?
            };
            links.push(attach(take_off(*vlan_id, behind), trunk)?);
            links.push(attach(put_on(*vlan_id, covered, trunk), behind)?);
        }
        Ok(Self { _links: links })
    }
}

fn insn(code: u8, registers: u8, offset: i16, immediate: i32) -> Insn {
    Insn {
        code,
        registers,
        offset,
        immediate,
    }
}

fn number(register: u8, value: i32) -> Insn {
    insn(0xb7, register, 0, value)
}

fn copy(to: u8, from: u8) -> Insn {
    insn(0xbf, to | from << 4, 0, 0)
}

fn load(to: u8, field: i16) -> Insn {
    insn(0x61, to | 6 << 4, field, 0)
}

fn redirect(to: u32) -> [Insn; 4] {
    [
        number(1, to.cast_signed()),
        number(2, 0),
        insn(0x85, 0, 0, REDIRECT),
        insn(0x95, 0, 0, 0),
    ]
}

/// Frames with this tag go out of `to` without it; others on to the next program.
fn take_off(vlan_id: u16, to: u32) -> Vec<Insn> {
    let mut insns = vec![
        copy(6, 1),
        load(2, VLAN_PRESENT),
        insn(0x15, 2, 9, 0), // none: to the end
        load(2, VLAN_TCI),
        insn(0x57, 2, 0, 0x0fff),
        insn(0x55, 2, 6, i32::from(vlan_id)), // another: to the end
        copy(1, 6),
        insn(0x85, 0, 0, VLAN_POP),
    ];
    insns.extend(redirect(to));
    insns.extend([number(0, NEXT_PROGRAM), insn(0x95, 0, 0, 0)]);
    insns
}

/// All frames go out of `to` with this tag, and with an empty one around it if it is to be covered.
fn put_on(vlan_id: u16, covered: bool, to: u32) -> Vec<Insn> {
    let mut insns = vec![copy(6, 1)];
    for tag in [Some(vlan_id), covered.then_some(0)].into_iter().flatten() {
        insns.extend([
            copy(1, 6),
            number(2, i32::from(0x8100_u16.to_be())),
            number(3, i32::from(tag)),
            insn(0x85, 0, 0, VLAN_PUSH),
        ]);
    }
    insns.extend(redirect(to));
    insns
}
