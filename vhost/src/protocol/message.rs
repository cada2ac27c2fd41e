//! Messages: bytes to checked requests. Numbers and layouts are those of QEMU's docs/interop/vhost-user.rst.

use super::ProtocolError;
use crate::inflight::InflightArea;
use crate::memory::{REGIONS_MAX, Region};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 12;
/// Bytes of a payload at most: a memory table.
pub const PAYLOAD_BYTES_MAX: usize = 8 + 32 * REGIONS_MAX;

const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const FLAG_REPLY: u32 = 1 << 2;
const FLAG_NEED_REPLY: u32 = 1 << 3;
/// In the argument of SET_VRING_KICK and the like: no file descriptor comes along.
const NO_FD: u64 = 1 << 8;

/// A message's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which request.
    pub request: u32,
    /// Version and flags.
    pub flags: u32,
    /// Bytes that follow.
    pub bytes: u32,
}

impl Header {
    /// A header that was received.
    ///
    /// # Errors
    /// It is none of a request, or announces more than any request has.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, ProtocolError> {
        let mut words = Words(bytes);
        let (request, flags, bytes) = (words.u32(), words.u32(), words.u32());
        let header = Self {
            request: request.unwrap_or_default(),
            flags: flags.unwrap_or_default(),
            bytes: bytes.unwrap_or_default(),
        };
        let fits = usize::try_from(header.bytes).is_ok_and(|bytes| bytes <= PAYLOAD_BYTES_MAX);
        if header.flags & VERSION_MASK != VERSION || header.flags & FLAG_REPLY != 0 || !fits {
            let Self { flags, bytes, .. } = header;
            return Err(ProtocolError::Header { flags, bytes });
        }
        Ok(header)
    }

    /// Whether the front-end asks for a reply even to a request that has none.
    #[must_use]
    pub fn needs_reply(&self) -> bool {
        self.flags & FLAG_NEED_REPLY != 0
    }

    /// A reply's bytes.
    #[must_use]
    pub fn reply(request: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
        for word in [request, VERSION | FLAG_REPLY, length] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(payload);
        bytes
    }
}

/// Where a ring's parts are, by addresses of the front-end's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingAddress {
    /// Which ring.
    pub index: u32,
    /// Descriptors.
    pub descriptors: u64,
    /// What the device writes.
    pub device: u64,
    /// What the driver writes.
    pub driver: u64,
}

/// A request, checked as far as it can be by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// GET_FEATURES
    FeaturesGet,
    /// SET_FEATURES
    FeaturesSet(u64),
    /// SET_OWNER
    OwnerSet,
    /// RESET_OWNER
    OwnerReset,
    /// SET_MEM_TABLE
    MemoryTable(Vec<Region>),
    /// SET_LOG_BASE: bytes of the log, and where it starts in its file.
    LogBase(u64, u64),
    /// SET_VRING_NUM
    RingSize(u32, u32),
    /// SET_VRING_ADDR
    RingAddress(RingAddress),
    /// SET_VRING_BASE
    RingBaseSet(u32, u32),
    /// GET_VRING_BASE
    RingBaseGet(u32),
    /// SET_VRING_KICK: the ring starts.
    RingKick(u32, bool),
    /// SET_VRING_CALL
    RingCall(u32, bool),
    /// SET_VRING_ERR
    RingError(u32, bool),
    /// GET_PROTOCOL_FEATURES
    ProtocolFeaturesGet,
    /// SET_PROTOCOL_FEATURES
    ProtocolFeaturesSet(u64),
    /// GET_QUEUE_NUM
    QueuesGet,
    /// SET_VRING_ENABLE
    RingEnable(u32, bool),
    /// SEND_RARP
    Rarp,
    /// NET_SET_MTU
    MtuSet(u64),
    /// GET_INFLIGHT_FD, and how long its payload was: some front-ends have padding behind it.
    InflightGet(InflightArea, usize),
    /// SET_INFLIGHT_FD
    InflightSet(InflightArea),
    /// GET_MAX_MEM_SLOTS
    MemorySlotsGet,
    /// ADD_MEM_REG
    MemoryAdd(Region),
    /// REM_MEM_REG
    MemoryRemove(Region),
}

/// Little-endian words, one after the other.
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn region(&mut self) -> Option<Region> {
        Some(Region {
            guest_address: self.u64()?,
            bytes: self.u64()?,
            user_address: self.u64()?,
            file_offset: self.u64()?,
        })
    }

    fn pair(&mut self) -> Option<(u32, u32)> {
        Some((self.u32()?, self.u32()?))
    }

    /// A ring's number, and whether a file descriptor comes along.
    fn ring_fd(&mut self) -> Option<(u32, bool)> {
        let word = self.u64()?;
        let index = u32::try_from(word & 0xff).ok()?;
        Some((index, word & NO_FD == 0))
    }
}

impl Request {
    /// A request with so many file descriptors along.
    ///
    /// # Errors
    /// It is unknown, too short, or has descriptors that do not fit it.
    pub fn parse(number: u32, payload: &[u8], fds: usize) -> Result<Self, ProtocolError> {
        let wrong = ProtocolError::Payload(number);
        let parsed = Self::parse_fields(number, &mut Words(payload))?;
        let request = parsed.ok_or(ProtocolError::Payload(number))?;
        let expected = match &request {
            Self::MemoryTable(regions) => regions.len(),
            Self::RingKick(_, fd) | Self::RingCall(_, fd) | Self::RingError(_, fd) => {
                usize::from(*fd)
            }
            Self::MemoryAdd(_) | Self::LogBase(..) | Self::InflightSet(_) => 1,
            // Some front-ends send the descriptor along, as the text once asked for.
            Self::MemoryRemove(_) => fds.min(1),
            _ => 0,
        };
        if fds == expected {
            Ok(request)
        } else {
            Err(wrong)
        }
    }

    fn parse_fields(number: u32, words: &mut Words<'_>) -> Result<Option<Self>, ProtocolError> {
        let payload_bytes = words.0.len();
        Ok(match number {
            1 => Some(Self::FeaturesGet),
            2 => words.u64().map(Self::FeaturesSet),
            3 => Some(Self::OwnerSet),
            4 => Some(Self::OwnerReset),
            5 => Self::memory_table(words),
            6 => Self::log_base(words),
            8 => words
                .pair()
                .map(|(index, size)| Self::RingSize(index, size)),
            9 => Self::ring_address(words),
            10 => words
                .pair()
                .map(|(index, base)| Self::RingBaseSet(index, base)),
            11 => words.pair().map(|(index, _)| Self::RingBaseGet(index)),
            12 => words.ring_fd().map(|(index, fd)| Self::RingKick(index, fd)),
            13 => words.ring_fd().map(|(index, fd)| Self::RingCall(index, fd)),
            14 => words
                .ring_fd()
                .map(|(index, fd)| Self::RingError(index, fd)),
            15 => Some(Self::ProtocolFeaturesGet),
            16 => words.u64().map(Self::ProtocolFeaturesSet),
            17 => Some(Self::QueuesGet),
            18 => words
                .pair()
                .map(|(index, on)| Self::RingEnable(index, on != 0)),
            19 => Some(Self::Rarp),
            20 => words.u64().map(Self::MtuSet),
            31 => Self::inflight(words).map(|area| Self::InflightGet(area, payload_bytes)),
            32 => Self::inflight(words).map(Self::InflightSet),
            36 => Some(Self::MemorySlotsGet),
            37 => Self::one_region(words).map(Self::MemoryAdd),
            38 => Self::one_region(words).map(Self::MemoryRemove),
            other => return Err(ProtocolError::Unsupported(other)),
        })
    }

    fn memory_table(words: &mut Words<'_>) -> Option<Self> {
        let (count, _padding) = words.pair()?;
        let count = usize::try_from(count)
            .ok()
            .filter(|n| (1..=REGIONS_MAX).contains(n))?;
        let regions: Option<Vec<Region>> = (0..count).map(|_| words.region()).collect();
        regions.map(Self::MemoryTable)
    }

    fn log_base(words: &mut Words<'_>) -> Option<Self> {
        Some(Self::LogBase(words.u64()?, words.u64()?))
    }

    fn inflight(words: &mut Words<'_>) -> Option<InflightArea> {
        Some(InflightArea {
            bytes: words.u64()?,
            offset: words.u64()?,
            queues: words.u16()?,
            ring_size: words.u16()?,
        })
    }

    fn one_region(words: &mut Words<'_>) -> Option<Region> {
        let _padding = words.u64()?;
        words.region()
    }

    fn ring_address(words: &mut Words<'_>) -> Option<Self> {
        let (index, _flags) = words.pair()?;
        Some(Self::RingAddress(RingAddress {
            index,
            descriptors: words.u64()?,
            device: words.u64()?,
            driver: words.u64()?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_requests_only() {
        let header = |flags: u32, bytes: u32| {
            let mut all = [0; HEADER_BYTES];
            all[4..8].copy_from_slice(&flags.to_le_bytes());
            all[8..].copy_from_slice(&bytes.to_le_bytes());
            Header::parse(&all)
        };
        let most = u32::try_from(PAYLOAD_BYTES_MAX).unwrap();
        assert!(header(1, most).is_ok_and(|h| !h.needs_reply()));
        assert!(header(9, 0).is_ok_and(|h| h.needs_reply()));
        assert!(header(1, most + 1).is_err());
        assert!(header(0, 0).is_err(), "another version");
        assert!(header(5, 0).is_err(), "a reply");
    }

    #[test]
    fn descriptors_must_fit_the_request() {
        let kick = |word: u64, fds| Request::parse(12, &word.to_le_bytes(), fds);
        assert_eq!(kick(1, 1).unwrap(), Request::RingKick(1, true));
        assert_eq!(kick(0x101, 0).unwrap(), Request::RingKick(1, false));
        assert!(kick(1, 0).is_err());
        assert!(kick(0x101, 1).is_err());
        assert!(Request::parse(1, &[], 1).is_err());
        assert!(Request::parse(2, &[0; 7], 0).is_err(), "too short");
        assert!(matches!(
            Request::parse(99, &[], 0),
            Err(ProtocolError::Unsupported(99))
        ));
    }

    #[test]
    fn memory_tables_are_bounded() {
        let table = |count: u32, regions: usize| {
            let mut bytes = count.to_le_bytes().to_vec();
            bytes.resize(8 + regions * 32, 0);
            Request::parse(5, &bytes, regions)
        };
        assert!(table(0, 0).is_err());
        assert!(table(2, 2).is_ok());
        assert!(table(2, 1).is_err());
        assert!(table(u32::try_from(REGIONS_MAX).unwrap(), REGIONS_MAX).is_ok());
        assert!(table(u32::try_from(REGIONS_MAX).unwrap() + 1, REGIONS_MAX + 1).is_err());
        assert!(table(u32::MAX, 1).is_err());
    }
}
