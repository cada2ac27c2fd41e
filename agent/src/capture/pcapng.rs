//! The pcapng format (draft-ietf-opsawg-pcapng): one section, an interface for each place, an enhanced packet a frame.
//!
//! All in little-endian order, times in nanoseconds since 1970.

/// `LINKTYPE_ETHERNET`.
const ETHERNET: u16 = 1;
/// Bytes of a comment or a name at most; options have 16 bits for their length.
const TEXT_BYTES_MAX: usize = 1_024;

/// Which way a frame went, as the host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From a guest, or from the wire.
    In,
    /// To a guest, or to the wire.
    Out,
}

/// A frame that was seen.
#[derive(Debug)]
pub(crate) struct Packet<'a> {
    /// Which interface, in the order of their blocks.
    pub(crate) interface: u32,
    /// Nanoseconds since 1970.
    pub(crate) time_ns: u64,
    pub(crate) way: Way,
    /// Bytes of the whole frame.
    pub(crate) length: usize,
    /// As much of it as is kept.
    pub(crate) data: &'a [u8],
    /// Frames of this interface that were seen and not kept since the last one.
    pub(crate) lost: u64,
    pub(crate) comment: Option<&'a str>,
}

/// A block: its type and length go around the body.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let length = u32::try_from(12 + padded).unwrap_or(u32::MAX).to_le_bytes();
    let mut block = Vec::with_capacity(12 + padded);
    block.extend(kind.to_le_bytes());
    block.extend(length);
    block.extend(body);
    block.resize(8 + padded, 0);
    block.extend(length);
    block
}

fn option(to: &mut Vec<u8>, code: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    to.extend(code.to_le_bytes());
    to.extend(length.to_le_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

fn text(text: &str) -> &[u8] {
    &text.as_bytes()[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

/// The section header, which begins a file.
pub(crate) fn section() -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(0x1a2b_3c4d_u32.to_le_bytes());
    // Version 1.0, of unknown length.
    body.extend([1, 0, 0, 0]);
    body.extend(u64::MAX.to_le_bytes());
    option(
        &mut body,
        4,
        concat!("weft ", env!("CARGO_PKG_VERSION")).as_bytes(),
    );
    option(&mut body, 0, &[]);
    block(0x0a0d_0d0a, &body)
}

/// An interface, of which at most so many bytes of a frame are kept.
pub(crate) fn interface(name: &str, description: &str, bytes_max: u32) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(ETHERNET.to_le_bytes());
    body.extend([0, 0]);
    body.extend(bytes_max.to_le_bytes());
    option(&mut body, 2, text(name));
    option(&mut body, 3, text(description));
    // Nanoseconds.
    option(&mut body, 9, &[9]);
    option(&mut body, 0, &[]);
    block(1, &body)
}

/// A frame.
pub(crate) fn packet(packet: &Packet<'_>) -> Vec<u8> {
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
    let [b0, b1, b2, b3, b4, b5, b6, b7] = packet.time_ns.to_le_bytes();
    let mut body = Vec::with_capacity(64 + packet.data.len());
    body.extend(packet.interface.to_le_bytes());
    // The upper half comes first.
    body.extend([b4, b5, b6, b7, b0, b1, b2, b3]);
    body.extend(length(packet.data.len()));
    body.extend(length(packet.length));
    body.extend(packet.data);
    body.resize(body.len().next_multiple_of(4), 0);
    let way: u32 = match packet.way {
        Way::In => 1,
        Way::Out => 2,
    };
    option(&mut body, 2, &way.to_le_bytes());
    if packet.lost > 0 {
        option(&mut body, 4, &packet.lost.to_le_bytes());
    }
    if let Some(comment) = packet.comment {
        option(&mut body, 1, text(comment));
    }
    option(&mut body, 0, &[]);
    block(6, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bodies of blocks, by type; panics if they are not well-formed.
    fn blocks(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let word = |at: &[u8]| u32::from_le_bytes(at[..4].try_into().unwrap());
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let length = word(&bytes[4..]) as usize;
            assert_eq!(
                (length % 4, word(&bytes[length - 4..]) as usize),
                (0, length)
            );
            all.push((word(bytes), bytes[8..length - 4].to_vec()));
            bytes = &bytes[length..];
        }
        all
    }

    #[test]
    fn a_file_is_well_formed_whatever_the_lengths() {
        let mut file = section();
        file.extend(interface("tap0", "port é", 262_144));
        for length in 0..9_usize {
            let data = vec![7; length];
            file.extend(packet(&Packet {
                interface: 0,
                time_ns: 0x0102_0304_0506_0708,
                way: Way::Out,
                length: length + 100,
                data: &data,
                lost: 3,
                comment: Some("why"),
            }));
        }
        let all = blocks(&file);
        let kinds: Vec<u32> = all.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds[..2], [0x0a0d_0d0a, 1]);
        assert_eq!(kinds[2..], [6; 9]);
        let (_, body) = &all[2 + 5];
        assert_eq!(body[4..12], [4, 3, 2, 1, 8, 7, 6, 5]);
        assert_eq!((body[12], body[16]), (5, 105));
        assert_eq!(body[20..28], [7, 7, 7, 7, 7, 0, 0, 0]);
        assert_eq!(body[28..36], [2, 0, 4, 0, 2, 0, 0, 0]);
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let long = "é".repeat(TEXT_BYTES_MAX);
        assert_eq!(text(&long).len(), TEXT_BYTES_MAX);
        assert_eq!(text(&format!("a{long}")).len(), TEXT_BYTES_MAX - 1);
        blocks(&interface(&long, &long, 1));
    }
}
