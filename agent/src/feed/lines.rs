//! Bytes to lines, with a bound on a line.

/// A buffer that is larger than this is given back once it is empty.
const KEEP_BYTES: usize = 1 << 20;

/// A line is longer than allowed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line of the feed is longer than {0} bytes")]
pub(super) struct LineTooLong(pub(super) usize);

/// Bytes that wait for the end of their line.
#[derive(Debug)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// Bytes at the front that were handed out.
    taken: usize,
    /// Bytes at the front that hold no line's end that was not handed out.
    searched: usize,
    line_bytes_max: usize,
}

impl Lines {
    pub(super) fn new(line_bytes_max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            taken: 0,
            searched: 0,
            line_bytes_max,
        }
    }

    /// Takes bytes in. Before more are given, [`Lines::next`] must have said that there is no line.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), LineTooLong> {
        let first = bytes
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap_or(bytes.len());
        if self.buffer.len() - self.taken + first > self.line_bytes_max {
            return Err(LineTooLong(self.line_bytes_max));
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole line without its end, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, LineTooLong> {
        let found = self.buffer[self.searched..]
            .iter()
            .position(|byte| *byte == b'\n');
        let Some(found) = found else {
            self.buffer.drain(..self.taken);
            if self.buffer.is_empty() && self.buffer.capacity() > KEEP_BYTES {
                self.buffer = Vec::new();
            }
            self.taken = 0;
            self.searched = self.buffer.len();
            return Ok(None);
        };
        let (start, end) = (self.taken, self.searched + found);
        if end - start > self.line_bytes_max {
            return Err(LineTooLong(self.line_bytes_max));
        }
        self.taken = end + 1;
        self.searched = end + 1;
        Ok(Some(&self.buffer[start..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines) -> Vec<String> {
        let mut have = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            have.push(String::from_utf8(line.to_vec()).unwrap());
        }
        have
    }

    #[test]
    fn lines_come_whole_however_they_were_cut() {
        let text = b"one\n\nthree is longer\nfour\nrest";
        for size in 1..text.len() {
            let mut lines = Lines::new(100);
            let mut have = Vec::new();
            for chunk in text.chunks(size) {
                lines.push(chunk).unwrap();
                have.extend(all(&mut lines));
            }
            assert_eq!(
                have,
                ["one", "", "three is longer", "four"],
                "chunks of {size}"
            );
        }
    }

    #[test]
    fn a_line_may_be_as_long_as_the_limit_and_no_longer() {
        let mut lines = Lines::new(4);
        lines.push(b"1234\n1234").unwrap();
        assert_eq!(all(&mut lines), ["1234"]);
        lines.push(b"\n").unwrap();
        assert_eq!(all(&mut lines), ["1234"]);
        lines.push(b"12").unwrap();
        assert_eq!(all(&mut lines), [""; 0]);
        assert_eq!(lines.push(b"345\n"), Err(LineTooLong(4)));
        let mut lines = Lines::new(4);
        lines.push(b"1\n12345\n").unwrap();
        assert_eq!(lines.next().unwrap(), Some(&b"1"[..]));
        assert_eq!(lines.next(), Err(LineTooLong(4)));
    }
}
