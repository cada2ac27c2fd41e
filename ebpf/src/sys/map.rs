//! Maps: created or opened, and read and written by whole keys and values whose sizes are checked here, so that the
//! kernel never reads or writes past a buffer. No typed access: keys and values are bytes, laid out by `weft-ebpf-common`.

use super::{
    Attr, Command, SysError, bpf, call_error, fd_u32, len_u32, name_text, object_name, own,
    pointer, pointer_mut, possible_cpus,
};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Kinds of map (`enum bpf_map_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names are the kernel's")]
pub enum MapType {
    Hash = 1,
    Array = 2,
    ProgArray = 3,
    PercpuHash = 5,
    PercpuArray = 6,
    LruHash = 9,
    LpmTrie = 11,
    ArrayOfMaps = 12,
    HashOfMaps = 13,
    Ringbuf = 27,
}

/// What a new map is to be.
#[derive(Clone, Copy, Debug)]
pub struct MapSpec<'a> {
    /// Shown by bpftool; 15 characters count.
    pub name: &'a str,
    /// Its kind.
    pub kind: MapType,
    /// Bytes of a key.
    pub key_bytes: u32,
    /// Bytes of a value (of one CPU's).
    pub value_bytes: u32,
    /// Entries.
    pub entries_max: u32,
    /// `BPF_F_*`.
    pub flags: u32,
    /// The template of the values, for maps of maps.
    pub inner: Option<BorrowedFd<'a>>,
}

impl Map {
    /// `BPF_F_NO_PREALLOC`: entries are allocated when they are needed.
    pub const NO_PREALLOC: u32 = 1;
    /// `BPF_F_INNER_MAP`: an array that may stand in a map of maps whose template has another size.
    pub const INNER_MAP: u32 = 1 << 12;
}

/// What an update may find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum UpdateMode {
    /// Create or replace.
    Any = 0,
    /// Create; EEXIST if it is there.
    Create = 1,
    /// Replace; ENOENT if it is not there.
    Replace = 2,
}

/// What the kernel says of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapInfo {
    /// `enum bpf_map_type`.
    pub kind: u32,
    /// The kernel's number for it.
    pub id: u32,
    /// Bytes of a key.
    pub key_bytes: u32,
    /// Bytes of a value (of one CPU's).
    pub value_bytes: u32,
    /// Entries.
    pub entries_max: u32,
    /// `BPF_F_*`.
    pub flags: u32,
    /// Its name.
    pub name: String,
    /// What its keys and values are, if whoever made it said so.
    pub types: Option<MapTypes>,
}

/// What a map's keys and values are, in the kernel's numbers for types (BTF).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapTypes {
    /// The types: see [`super::btf_by_id`].
    pub btf: u32,
    /// The keys' among them.
    pub key: u32,
    /// The values'.
    pub value: u32,
}

/// An open map.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    info: MapInfo,
    value_bytes: usize,
}

#[repr(C)]
#[derive(Default)]
struct CreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
    zero: [u32; 5],
}
// SAFETY: repr(C), all fields of 4-byte alignment or bytes in multiples of 4; as BPF_MAP_CREATE's member.
unsafe impl Attr for CreateAttr {}

#[repr(C)]
#[derive(Default)]
struct ElemAttr {
    map_fd: u32,
    zero: u32,
    key: u64,
    value: u64,
    flags: u64,
}
// SAFETY: repr(C), padding is an explicit field; as the BPF_MAP_*_ELEM member.
unsafe impl Attr for ElemAttr {}

#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}
// SAFETY: repr(C) without padding; as the BPF_MAP_*_BATCH member.
unsafe impl Attr for BatchAttr {}

#[repr(C)]
pub(super) struct InfoAttr {
    pub(super) bpf_fd: u32,
    pub(super) info_len: u32,
    pub(super) info: u64,
}
// SAFETY: repr(C) without padding; as BPF_OBJ_GET_INFO_BY_FD's member.
unsafe impl Attr for InfoAttr {}

impl Map {
    /// Creates a map.
    ///
    /// # Errors
    /// What the kernel refuses (EPERM, ENOMEM, EINVAL for sizes it does not like).
    pub fn create(spec: &MapSpec<'_>) -> Result<Self, SysError> {
        let mut attr = CreateAttr {
            map_type: spec.kind as u32,
            key_size: spec.key_bytes,
            value_size: spec.value_bytes,
            max_entries: spec.entries_max,
            map_flags: spec.flags,
            inner_map_fd: spec.inner.map_or(0, fd_u32),
            map_name: object_name(spec.name),
            ..CreateAttr::default()
        };
        // SAFETY: the argument holds no pointers.
        let result = unsafe { bpf(Command::MapCreate, &mut attr) };
        Self::from_fd(own(result.map_err(call_error("map create", spec.name))?))
    }

    /// Takes over an open map, and asks the kernel for its sizes.
    ///
    /// # Errors
    /// The descriptor is not a map's.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, SysError> {
        let info = map_info(fd.as_fd())?;
        let one = info.value_bytes as usize;
        let percpu = [MapType::PercpuArray as u32, MapType::PercpuHash as u32];
        let value_bytes = if percpu.contains(&info.kind) {
            one.next_multiple_of(8) * possible_cpus()?
        } else {
            one
        };
        Ok(Self {
            fd,
            info,
            value_bytes,
        })
    }

    /// Opens a map by the kernel's number for it.
    ///
    /// # Errors
    /// ENOENT if there is none of this number.
    pub fn from_id(id: u32) -> Result<Self, SysError> {
        Self::from_fd(super::object::fd_by_id(Command::MapFdById, id)?)
    }

    /// Another handle of the same map.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn try_clone(&self) -> Result<Self, SysError> {
        let fd = self
            .fd
            .try_clone()
            .map_err(call_error("duplicate map", &self.info.name))?;
        Ok(Self {
            fd,
            info: self.info.clone(),
            value_bytes: self.value_bytes,
        })
    }

    /// What the kernel says of it.
    #[must_use]
    pub fn info(&self) -> &MapInfo {
        &self.info
    }

    /// Bytes of a value as they are read and written: of all possible CPUs, each rounded up to 8, for per-CPU maps.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// The value under `key`, or none.
    ///
    /// # Errors
    /// A key of the wrong size, or what the kernel refuses.
    pub fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>, SysError> {
        self.check("map lookup", key.len(), self.info.key_bytes as usize)?;
        let mut value = vec![0; self.value_bytes];
        let mut attr = self.elem(pointer(key), pointer_mut(&mut value), 0);
        // SAFETY: the key has the map's key size (checked), the value its value size; both outlive the call.
        match unsafe { bpf(Command::MapLookup, &mut attr) } {
            Ok(_) => Ok(Some(value)),
            Err(error) => self.absent("map lookup", error),
        }
    }

    /// Writes the value under `key`.
    ///
    /// # Errors
    /// A key or value of the wrong size; E2BIG when full; EEXIST, ENOENT by `mode`.
    pub fn update(&self, key: &[u8], value: &[u8], mode: UpdateMode) -> Result<(), SysError> {
        self.check("map update", key.len(), self.info.key_bytes as usize)?;
        self.check("map update", value.len(), self.value_bytes)?;
        let mut attr = self.elem(pointer(key), pointer(value), mode as u64);
        // SAFETY: key and value have the map's sizes (checked) and outlive the call, which only reads them.
        let result = unsafe { bpf(Command::MapUpdate, &mut attr) };
        result
            .map(drop)
            .map_err(call_error("map update", &self.info.name))
    }

    /// Writes the value under a number: for arrays.
    ///
    /// # Errors
    /// As [`Map::update`].
    pub fn set(&self, index: u32, value: &[u8]) -> Result<(), SysError> {
        self.update(&index.to_ne_bytes(), value, UpdateMode::Any)
    }

    /// Puts a map or program into a map of maps or a program array.
    ///
    /// # Errors
    /// As [`Map::update`]; EINVAL for an object that does not fit in.
    pub fn set_fd(&self, index: u32, fd: BorrowedFd<'_>) -> Result<(), SysError> {
        self.set(index, &fd_u32(fd).to_ne_bytes())
    }

    /// Removes `key`; says whether it was there.
    ///
    /// # Errors
    /// A key of the wrong size, or what the kernel refuses.
    pub fn delete(&self, key: &[u8]) -> Result<bool, SysError> {
        self.check("map delete", key.len(), self.info.key_bytes as usize)?;
        let mut attr = self.elem(pointer(key), 0, 0);
        // SAFETY: the key has the map's key size (checked) and outlives the call.
        match unsafe { bpf(Command::MapDelete, &mut attr) } {
            Ok(_) => Ok(true),
            Err(error) => self.absent::<()>("map delete", error).map(|_none| false),
        }
    }

    /// The key after `key`, or the first.
    ///
    /// # Errors
    /// A key of the wrong size, or what the kernel refuses.
    pub fn next_key(&self, key: Option<&[u8]>) -> Result<Option<Vec<u8>>, SysError> {
        let size = self.info.key_bytes as usize;
        self.check("map next key", key.map_or(size, <[u8]>::len), size)?;
        let mut next = vec![0; size];
        let mut attr = self.elem(key.map_or(0, pointer), pointer_mut(&mut next), 0);
        // SAFETY: both keys have the map's key size and outlive the call; a null key asks for the first.
        match unsafe { bpf(Command::MapNextKey, &mut attr) } {
            Ok(_) => Ok(Some(next)),
            Err(error) => self.absent("map next key", error),
        }
    }

    /// All keys, at most `limit`. Entries that come or go meanwhile may be missed or seen twice.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn keys(&self, limit: usize) -> Result<Vec<Vec<u8>>, SysError> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        while keys.len() < limit {
            match self.next_key(keys.last().map(Vec::as_slice))? {
                Some(key) => keys.push(key),
                None => break,
            }
        }
        Ok(keys)
    }

    /// Up to `count` entries from `cursor` on (none: from the start); the new cursor is none at the end. Hash maps
    /// and arrays; in hash maps `count` must hold a whole bucket, or ENOSPC.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn lookup_batch(
        &self,
        cursor: Option<&BatchCursor>,
        count: u32,
    ) -> Result<(Vec<Entry>, Option<BatchCursor>), SysError> {
        let (key, n) = (self.info.key_bytes as usize, count as usize);
        let mut keys = vec![0; key * n];
        let mut values = vec![0; self.value_bytes * n];
        let mut out = BatchCursor(vec![0; key.max(8)]);
        let mut attr = BatchAttr {
            in_batch: cursor.map_or(0, |cursor| pointer(&cursor.0)),
            out_batch: pointer_mut(&mut out.0),
            keys: pointer_mut(&mut keys),
            values: pointer_mut(&mut values),
            count,
            map_fd: fd_u32(self.fd.as_fd()),
            ..BatchAttr::default()
        };
        // SAFETY: keys and values hold `count` of the map's sizes, the cursors a key or 8 bytes; all outlive the call.
        let result = unsafe { bpf(Command::MapLookupBatch, &mut attr) };
        let more = match result {
            Ok(_) => Some(out),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
            Err(error) => return Err(call_error("map lookup batch", &self.info.name)(error)),
        };
        let found = keys
            .chunks_exact(key)
            .zip(values.chunks_exact(self.value_bytes));
        let found = found
            .take(attr.count as usize)
            .map(|(key, value)| (key.to_vec(), value.to_vec()));
        Ok((found.collect(), more))
    }

    /// Writes many entries; `keys` and `values` are whole keys and values, one after the other.
    ///
    /// # Errors
    /// Sizes that do not fit together, or what the kernel refuses (some entries may be written).
    pub fn update_batch(&self, keys: &[u8], values: &[u8]) -> Result<(), SysError> {
        let count = keys.len() / (self.info.key_bytes as usize).max(1);
        self.check("map update batch", values.len(), count * self.value_bytes)?;
        self.write_batch(
            "map update batch",
            Command::MapUpdateBatch,
            keys,
            values,
            count,
        )
    }

    /// Deletes many entries; all must be there. `keys` are whole keys, one after the other.
    ///
    /// # Errors
    /// Sizes that do not fit together, or what the kernel refuses (some entries may be deleted).
    pub fn delete_batch(&self, keys: &[u8]) -> Result<(), SysError> {
        let count = keys.len() / (self.info.key_bytes as usize).max(1);
        self.write_batch(
            "map delete batch",
            Command::MapDeleteBatch,
            keys,
            &[],
            count,
        )
    }

    fn write_batch(
        &self,
        operation: &'static str,
        command: Command,
        keys: &[u8],
        values: &[u8],
        count: usize,
    ) -> Result<(), SysError> {
        self.check(operation, keys.len(), count * self.info.key_bytes as usize)?;
        if count == 0 {
            return Ok(());
        }
        let mut attr = BatchAttr {
            keys: pointer(keys),
            values: if values.is_empty() {
                0
            } else {
                pointer(values)
            },
            count: len_u32(count),
            map_fd: fd_u32(self.fd.as_fd()),
            ..BatchAttr::default()
        };
        // SAFETY: keys (and values, for an update) hold `count` of the map's sizes (checked) and outlive the call.
        let result = unsafe { bpf(command, &mut attr) };
        result
            .map(drop)
            .map_err(call_error(operation, &self.info.name))
    }

    fn elem(&self, key: u64, value: u64, flags: u64) -> ElemAttr {
        ElemAttr {
            map_fd: fd_u32(self.fd.as_fd()),
            zero: 0,
            key,
            value,
            flags,
        }
    }

    fn check(&self, operation: &'static str, got: usize, want: usize) -> Result<(), SysError> {
        let object = || self.info.name.clone();
        if got == want {
            Ok(())
        } else {
            Err(SysError::Size {
                operation,
                object: object(),
                got,
                want,
            })
        }
    }

    fn absent<T>(&self, operation: &'static str, error: io::Error) -> Result<Option<T>, SysError> {
        match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(None),
            _ => Err(call_error(operation, &self.info.name)(error)),
        }
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// Where [`Map::lookup_batch`] goes on.
#[derive(Clone, Debug)]
pub struct BatchCursor(Vec<u8>);

fn map_info(fd: BorrowedFd<'_>) -> Result<MapInfo, SysError> {
    let mut raw = [0u8; 80];
    let mut attr = InfoAttr {
        bpf_fd: fd_u32(fd),
        info_len: len_u32(raw.len()),
        info: pointer_mut(&mut raw),
    };
    // SAFETY: info points to info_len bytes that outlive the call.
    let result = unsafe { bpf(Command::ObjInfo, &mut attr) };
    result.map_err(call_error("map info", ""))?;
    let word =
        |n: usize| u32::from_ne_bytes([raw[4 * n], raw[4 * n + 1], raw[4 * n + 2], raw[4 * n + 3]]);
    let mut name = [0; 16];
    name.copy_from_slice(&raw[24..40]);
    Ok(MapInfo {
        kind: word(0),
        id: word(1),
        key_bytes: word(2),
        value_bytes: word(3),
        entries_max: word(4),
        flags: word(5),
        name: name_text(&name),
        // struct bpf_map_info: btf_id, btf_key_type_id, btf_value_type_id.
        types: (word(16) != 0).then(|| MapTypes {
            btf: word(16),
            key: word(17),
            value: word(18),
        }),
    })
}
