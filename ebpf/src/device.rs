//! Devices: an entry stub on each, by a pinned tcx link.
//!
//! Guarantees: only links that this engine made are touched; a link outlives the process by its pin, and a restart takes
//! it over. A device that disappears takes its link with it. One device that the kernel refuses holds back nothing else:
//! it is a fault ([`Engine::device_faults`]), and is tried again ([`Engine::devices_retry`]).

use crate::engine::Engine;
use crate::error::EngineError;
use crate::link_info::peer_elsewhere;
use crate::stub::{Fallback, stub};
use crate::sys::{self, Prog, ProgSpec, ProgType, SysError, TcxDirection};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use weft_ebpf_common::constants::{device as flag, slot, stage};
use weft_ebpf_common::layout::Device;
use weft_model::PortId;
use zerocopy::{FromBytes, IntoBytes};

/// The underlay's device, among the uplinks.
const UNDERLAY: u32 = slot::UPLINK | slot::UNDERLAY;
/// Set beside the number of a wire: the interface of a physical network, of which several networks may be.
const WIRE: u32 = slot::UPLINK | slot::TUNNEL;

/// An interface that was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) ifindex: u32,
    pub(crate) peer: bool,
}

/// A stub on a device.
struct Attached {
    ifindex: u32,
    link: OwnedFd,
    pin: PathBuf,
    peer: bool,
}

/// The interfaces that are there, and where a stub sits.
pub(crate) struct Devices {
    directory: PathBuf,
    interfaces: BTreeMap<String, Interface>,
    /// Those whose frames must all be seen on the device itself.
    watched: BTreeSet<String>,
    /// By port slot, wire with [`WIRE`], or [`UNDERLAY`].
    attached: BTreeMap<u32, Attached>,
    /// Links that an earlier process pinned, likewise and by ifindex, until they are taken over.
    pinned: BTreeMap<(u32, u32), PathBuf>,
    /// What an earlier process left in another layout: its links go when ours are there.
    replaced: Vec<PathBuf>,
    /// What the kernel refused, by the device's number; under 0 what an earlier process left.
    faults: BTreeMap<u32, EngineError>,
    /// By uplink slot: the device that its network's frames leave by.
    outputs: BTreeMap<u32, Interface>,
    /// By slot of a subport: the device that its frames leave by.
    pub(crate) subports: BTreeMap<u32, Device>,
}

impl Devices {
    /// Finds the links that are pinned already.
    pub(crate) fn open(base: &Path, directory: &Path) -> Result<Self, EngineError> {
        let replaced = others(base, directory)?;
        let directory = directory.join("links");
        let io = |what: &str, source| EngineError::Io {
            what: format!("{what} {}", directory.display()),
            source,
        };
        std::fs::create_dir_all(&directory).map_err(|e| io("create directory", e))?;
        let mut pinned = BTreeMap::new();
        for entry in std::fs::read_dir(&directory).map_err(|e| io("list", e))? {
            let path = entry.map_err(|e| io("list", e))?.path();
            let name = path
                .file_name()
                .and_then(|n| n.to_str())
                .unwrap_or_default();
            let parts = name.split_once('_').and_then(|(slot, ifindex)| {
                Some((u32::from_str_radix(slot, 16).ok()?, ifindex.parse().ok()?))
            });
            if let Some(key) = parts {
                pinned.insert(key, path);
            }
        }
        Ok(Self {
            directory,
            interfaces: BTreeMap::new(),
            watched: BTreeSet::new(),
            attached: BTreeMap::new(),
            pinned,
            replaced,
            faults: BTreeMap::new(),
            outputs: BTreeMap::new(),
            subports: BTreeMap::new(),
        })
    }

    /// Where the maps are of the layout that does the work until something is attached; none if it is ours already.
    pub(crate) fn predecessor(&self) -> Option<&Path> {
        if !(self.attached.is_empty() && self.pinned.is_empty()) {
            return None;
        }
        let made = |path: &PathBuf| {
            std::fs::metadata(path)
                .and_then(|about| about.modified())
                .ok()
        };
        let newest = self.replaced.iter().max_by_key(|path| made(path));
        newest.map(PathBuf::as_path)
    }

    /// Detaches and removes what another layout left: after our own links, so that a device is never without one.
    fn forget_replaced(&mut self) -> Result<(), EngineError> {
        while let Some(directory) = self.replaced.last() {
            let io = |source| EngineError::Io {
                what: format!("remove {}", directory.display()),
                source,
            };
            for entry in std::fs::read_dir(directory.join("links")).map_err(io)? {
                detach_link(&sys::obj_get_link(&entry.map_err(io)?.path())?)?;
            }
            std::fs::remove_dir_all(directory).map_err(io)?;
            self.replaced.pop();
        }
        Ok(())
    }

    /// An interface as frames are to be sent to it.
    fn interface(&self, name: &str) -> Option<Interface> {
        let mut interface = *self.interfaces.get(name)?;
        interface.peer &= !self.watched.contains(name);
        Some(interface)
    }

    /// The interface of a port that a stub is on.
    pub(crate) fn attached_interface(&self, slot: u32) -> Option<Interface> {
        self.attached.get(&slot).map(|attached| Interface {
            ifindex: attached.ifindex,
            peer: attached.peer,
        })
    }

    pub(crate) fn is_pinned(&self, slot: u32) -> bool {
        let mut pins = self.pinned.range((slot, 0)..=(slot, u32::MAX));
        pins.next().is_some()
    }

    fn pin(&self, slot: u32, ifindex: u32) -> PathBuf {
        self.directory.join(format!("{slot:x}_{ifindex}"))
    }
}

impl Engine {
    /// A device of this name is there now (in this thread's network namespace): attached at once if the snapshot in force
    /// has a port with it or it is the interface of a physical network, or when a later snapshot has. If
    /// it is a veth whose peer is in another namespace, frames enter that peer directly.
    ///
    /// # Errors
    /// The kernel does not say what the device is. That it cannot be attached is a fault, not an error.
    pub fn interface_added(&mut self, name: &str, ifindex: u32) -> Result<(), EngineError> {
        let peer = peer_elsewhere(ifindex).map_err(|errno| EngineError::Io {
            what: format!("ask what device {name} is"),
            source: errno.into(),
        })?;
        self.devices
            .interfaces
            .insert(name.to_owned(), Interface { ifindex, peer });
        self.devices_settle();
        Ok(())
    }

    /// Whether frames to the device must be seen on it, for somebody captures there: not entered into a veth's peer directly,
    /// which is faster.
    pub fn interface_watched(&mut self, name: &str, watched: bool) {
        if watched {
            self.devices.watched.insert(name.to_owned());
        } else {
            self.devices.watched.remove(name);
        }
        self.devices_settle();
    }

    /// The device is gone.
    pub fn interface_removed(&mut self, name: &str) {
        self.devices.interfaces.remove(name);
        self.devices_settle();
    }

    /// What the kernel refused when devices were last attached and detached, by the device's number; under 0 what an
    /// earlier process left and could not be cleared away.
    #[must_use]
    pub fn device_faults(&self) -> &BTreeMap<u32, EngineError> {
        &self.devices.faults
    }

    /// Tries what was refused again. Call it every now and then.
    pub fn devices_retry(&mut self) {
        if !self.devices.faults.is_empty() {
            self.devices_settle();
        }
    }

    /// Whether the port's device is there and its frames pass the engine.
    #[must_use]
    pub fn port_attached(&self, port: PortId) -> bool {
        self.slots
            .ports
            .get(self.carrier(port))
            .is_some_and(|slot| self.devices.attached.contains_key(&slot))
    }

    /// Attaches and detaches what the snapshot and the interfaces ask for; each device for itself.
    pub(crate) fn devices_settle(&mut self) {
        self.devices.faults.clear();
        let subports = self.subports_forget();
        let wanted = self.devices_wanted();
        let stays = |slot: &u32, attached: &Attached| {
            let wanted = wanted.get(slot);
            wanted.is_some_and(|interface| interface.ifindex == attached.ifindex)
        };
        let attached = self.devices.attached.iter();
        let gone: Vec<(u32, u32)> = attached
            .filter(|(slot, attached)| !stays(slot, attached))
            .map(|(slot, attached)| (*slot, attached.ifindex))
            .collect();
        for (slot, ifindex) in gone {
            let detached = self.detach(slot);
            self.note_fault(ifindex, detached);
        }
        for (slot, interface) in wanted {
            let Interface { ifindex, peer } = interface;
            let done = match self.devices.attached.get(&slot) {
                Some(attached) if attached.ifindex == ifindex && attached.peer == peer => Ok(()),
                // The device before could not be detached; both cannot be had.
                Some(attached) if attached.ifindex != ifindex => continue,
                _ => self.attach(slot, interface).inspect_err(|_refused| {
                    // Nothing is delivered to a device whose own frames do not pass the engine.
                    let _unwritten = self.device_write(slot, None);
                }),
            };
            self.note_fault(ifindex, done);
        }
        if self.snapshot.is_some() {
            let forgotten = self.forget_pinned();
            let forgotten = forgotten.and_then(|()| self.devices.forget_replaced());
            let settled = self.outputs_settle();
            let subports = subports.and_then(|()| self.subports_settle());
            self.note_fault(0, forgotten.and(settled).and(subports));
        }
    }

    fn note_fault(&mut self, ifindex: u32, result: Result<(), EngineError>) {
        if let Err(error) = result {
            self.devices.faults.insert(ifindex, error);
        }
    }

    fn devices_wanted(&self) -> BTreeMap<u32, Interface> {
        let mut wanted = BTreeMap::new();
        let Some(snapshot) = &self.snapshot else {
            return wanted;
        };
        for (id, port) in &snapshot.ports {
            let Some(name) = port.device(*id) else {
                continue;
            };
            if let (Some(slot), Some(interface)) =
                (self.slots.ports.get(*id), self.devices.interface(&name))
            {
                wanted.insert(slot, interface);
            }
        }
        let underlay = self.config.underlay.as_ref();
        if let Some(interface) = underlay.and_then(|n| self.devices.interface(n)) {
            wanted.insert(UNDERLAY, interface);
        }
        for (physical_network, number) in &self.slots.wires {
            if let Some(interface) = self.wire_interface(physical_network) {
                wanted.insert(WIRE | number, interface);
            }
        }
        wanted
    }

    /// The interface of a physical network, if it is there. Of two that are mapped to one interface, the first has it.
    fn wire_interface(&self, physical_network: &str) -> Option<Interface> {
        let mapped = &self.config.physical_networks;
        let name = mapped.get(physical_network)?;
        let first = mapped.iter().find(|(_, other)| *other == name)?;
        let interface = self.devices.interface(name)?;
        (first.0 == physical_network).then_some(interface)
    }

    /// Writes by which device each physical network's frames leave.
    fn outputs_settle(&mut self) -> Result<(), EngineError> {
        let Some(snapshot) = &self.snapshot else {
            return Ok(());
        };
        let mut writes: Vec<(u32, Option<Interface>)> = Vec::new();
        for (id, slot) in self.slots.uplinks.iter() {
            let network = snapshot.networks.get(&id);
            let name = network.and_then(|network| network.segment.physical_network.as_ref());
            let wire = name.and_then(|name| self.slots.wires.get(name));
            let wire = wire.map(|number| WIRE | number);
            let attached = wire.and_then(|wire| self.devices.attached.get(&wire));
            let there = attached.map(|attached| Interface {
                ifindex: attached.ifindex,
                peer: attached.peer,
            });
            // A device that was not announced yet may still be.
            let open = wire.is_some_and(|wire| self.devices.is_pinned(wire));
            if there.as_ref() != self.devices.outputs.get(&slot) && (there.is_some() || !open) {
                writes.push((slot, there));
            }
        }
        let used: BTreeSet<u32> = self.slots.uplinks.iter().map(|(_, slot)| slot).collect();
        let unused = self.devices.outputs.keys().filter(|s| !used.contains(s));
        writes.extend(unused.map(|slot| (*slot, None)));
        for (slot, interface) in writes {
            self.device_write(slot | slot::UPLINK, interface)?;
            match interface {
                Some(interface) => self.devices.outputs.insert(slot, interface),
                None => self.devices.outputs.remove(&slot),
            };
        }
        Ok(())
    }

    /// Reads by which device physical networks' frames left under an earlier process.
    pub(crate) fn outputs_adopt(&mut self) -> Result<(), EngineError> {
        for (_, slot) in self.slots.uplinks.iter() {
            let device = self.loaded.maps.devices.lookup(&slot.to_ne_bytes())?;
            let device = device.and_then(|bytes| Device::read_from_bytes(&bytes).ok());
            if let Some(Device { ifindex, flags }) = device.filter(|d| d.ifindex != 0) {
                let peer = flags & flag::PEER != 0;
                self.devices
                    .outputs
                    .insert(slot, Interface { ifindex, peer });
            }
        }
        Ok(())
    }

    /// Puts a stub on a device. One that has gone meanwhile is no error: its removal will be announced.
    fn attach(&mut self, slot: u32, interface: Interface) -> Result<(), EngineError> {
        self.device_write(slot, Some(interface))?;
        if let Some(attached) = self.devices.attached.get_mut(&slot)
            && attached.ifindex == interface.ifindex
        {
            attached.peer = interface.peer;
            return Ok(());
        }
        let prog = self.stub_load(slot)?;
        let key = (slot, interface.ifindex);
        let pinned = match self.devices.pinned.get(&key) {
            Some(path) => take_over(path, &prog, interface.ifindex)?,
            None => None,
        };
        self.devices.pinned.remove(&key);
        let attached = match pinned {
            Some(link) => Ok(link),
            None => sys::link_create_tcx(prog.as_fd(), interface.ifindex, TcxDirection::Ingress),
        };
        let link = match attached {
            Ok(link) => link,
            Err(error) if error.errno() == Some(libc::ENODEV) => {
                return self.device_write(slot, None);
            }
            Err(error) => return Err(error.into()),
        };
        let pin = self.devices.pin(slot, interface.ifindex);
        if !pin.exists() {
            sys::obj_pin(link.as_fd(), &pin)?;
        }
        let Interface { ifindex, peer } = interface;
        let attached = Attached {
            ifindex,
            link,
            pin,
            peer,
        };
        self.devices.attached.insert(slot, attached);
        Ok(())
    }

    fn stub_load(&self, slot: u32) -> Result<Prog, EngineError> {
        let (name, index, fallback) = if slot & slot::UPLINK == 0 {
            ("weft_port", stage::GUEST, Fallback::Drop)
        } else if slot == UNDERLAY {
            ("weft_underlay", stage::UNDERLAY, Fallback::Pass)
        } else {
            ("weft_uplink", stage::UPLINK, Fallback::Pass)
        };
        let stages = self.loaded.maps.stages.as_fd();
        let number = if slot & WIRE == WIRE {
            slot & !WIRE
        } else {
            slot & !slot::UPLINK
        };
        let insns = stub(stages, index, [number, 0, 0], fallback);
        Ok(Prog::load(&ProgSpec {
            name,
            kind: ProgType::SchedCls,
            expected_attach_type: 0,
            insns: &insns,
        })?)
    }

    /// Detaches the links of an earlier process that nothing wants any more.
    fn forget_pinned(&mut self) -> Result<(), EngineError> {
        let wanted = self.devices_wanted();
        let interfaces: Vec<u32> = self
            .devices
            .interfaces
            .values()
            .map(|i| i.ifindex)
            .collect();
        let gone: Vec<(u32, u32)> = self
            .devices
            .pinned
            .keys()
            .copied()
            .filter(|(slot, ifindex)| {
                // A device that was not announced yet may still be: its link stays until its port goes.
                let unknown = !interfaces.contains(ifindex) && self.slot_known(*slot);
                !(unknown || wanted.get(slot).is_some_and(|i| i.ifindex == *ifindex))
            })
            .collect();
        for key in gone {
            if let Some(path) = self.devices.pinned.get(&key) {
                detach_link(&sys::obj_get_link(path)?)?;
                unpin(path)?;
                self.device_write(key.0, None)?;
                self.devices.pinned.remove(&key);
            }
        }
        Ok(())
    }

    fn slot_known(&self, number: u32) -> bool {
        number == UNDERLAY && self.config.underlay.is_some()
            || (number & WIRE == WIRE && self.slots.wires.values().any(|n| *n == number & !WIRE))
            || crate::event::ingress(number, &self.slots).is_some()
    }

    fn detach(&mut self, slot: u32) -> Result<(), EngineError> {
        self.device_write(slot, None)?;
        if let Some(attached) = self.devices.attached.get(&slot) {
            detach_link(&attached.link)?;
            unpin(&attached.pin)?;
            self.devices.attached.remove(&slot);
        }
        Ok(())
    }

    /// Writes a port's, an uplink's or the underlay's device. A wire has none of its own: see `outputs_settle`.
    fn device_write(&self, number: u32, interface: Option<Interface>) -> Result<(), EngineError> {
        if number & WIRE == WIRE {
            return Ok(());
        }
        let index = if number & slot::UPLINK == 0 {
            number + slot::UPLINKS_MAX
        } else {
            number & !slot::UPLINK
        };
        let device = interface.map_or_else(Device::zero, |i| Device {
            ifindex: i.ifindex,
            flags: if i.peer { flag::PEER } else { 0 },
        });
        self.loaded.maps.devices.set(index, device.as_bytes())?;
        Ok(())
    }

    /// Detaches everything, and removes all pins of this instance if `remove`. Without it, packets go on as they are, and
    /// the next process of this instance takes over.
    ///
    /// # Errors
    /// A pin cannot be removed.
    pub fn close(mut self, remove: bool) -> Result<(), EngineError> {
        if !remove {
            return Ok(());
        }
        let slots: Vec<u32> = self.devices.attached.keys().copied().collect();
        for slot in slots {
            self.detach(slot)?;
        }
        for path in std::mem::take(&mut self.devices.pinned).into_values() {
            detach_link(&sys::obj_get_link(&path)?)?;
        }
        let base = self.config.bpffs.join("weft").join(&self.config.instance);
        let io = |source| EngineError::Io {
            what: format!("remove {}", base.display()),
            source,
        };
        std::fs::remove_dir_all(&base).map_err(io)?;
        // Other instances may have theirs beside it: only an empty directory goes.
        let _not_empty = std::fs::remove_dir(self.config.bpffs.join("weft"));
        let (bpffs, mounted) = (self.config.bpffs.clone(), self.mounted);
        drop(self);
        mounted.undo(&bpffs)
    }
}

/// The directories of other layouts beside ours.
fn others(base: &Path, directory: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let io = |source| EngineError::Io {
        what: format!("list {}", base.display()),
        source,
    };
    let mut others = Vec::new();
    for entry in std::fs::read_dir(base).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path != directory && path.join("links").is_dir() {
            others.push(path);
        }
    }
    Ok(others)
}

/// A link that an earlier process pinned, with the new stub in it; none, and no pin, if its device is gone.
fn take_over(path: &Path, prog: &Prog, ifindex: u32) -> Result<Option<OwnedFd>, EngineError> {
    let link = sys::obj_get_link(path)?;
    if sys::link_info(link.as_fd())?.ifindex == ifindex {
        sys::link_update(link.as_fd(), prog.as_fd())?;
        return Ok(Some(link));
    }
    unpin(path)?;
    Ok(None)
}

/// Detaches a link; its device may be gone already.
fn detach_link(link: &OwnedFd) -> Result<(), SysError> {
    match sys::link_detach(link.as_fd()) {
        Err(error) if error.errno() == Some(libc::ENOLINK) => Ok(()),
        result => result,
    }
}

fn unpin(path: &Path) -> Result<(), EngineError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(EngineError::Io {
            what: format!("remove {}", path.display()),
            source,
        }),
        _ => Ok(()),
    }
}
