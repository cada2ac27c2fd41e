//! Tables that people like to read: columns as wide as their widest cell, numbers to the right, two blanks between.

/// A table under way.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![
                headings
                    .iter()
                    .map(|heading| (*heading).to_owned())
                    .collect(),
            ],
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl Into<Vec<String>>) {
        self.rows.push(cells.into());
    }

    /// Whether there is nothing below the headings.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() <= 1
    }

    /// The table as text, each line ended.
    pub(crate) fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        let width = |column| {
            cells(column)
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        // A count or an amount: `1 234`, `5 KiB`.
        let number = |cell: &String| {
            let digits = cell.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            cell.is_empty()
                || digits.starts_with(|c: char| c.is_ascii_digit())
                    && digits.chars().all(|c| c.is_ascii_digit() || c == ' ')
        };
        let right: Vec<bool> = (0..columns)
            .map(|column| self.rows.len() > 1 && cells(column).skip(1).all(number))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[column] - cell.chars().count());
                let (before, after) = if right[column] {
                    (pad, String::new())
                } else {
                    (String::new(), pad)
                };
                line += &format!("{before}{cell}{after}  ");
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// A count with a blank between thousands: 1 234 567.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the unit that leaves up to four digits: 2048 B, 117 MiB.
pub(crate) fn bytes(number: u64) -> String {
    let mut amount = number;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if amount < 10_000 {
            return format!("{amount} {unit}");
        }
        amount /= 1_024;
    }
    format!("{} PiB", count(amount))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["port", "packets", "why"]);
        assert!(table.is_empty());
        table.row(["6-t".to_owned(), "7".to_owned(), "none".to_owned()]);
        table.row(["7-tap".to_owned(), "1 234".to_owned(), String::new()]);
        assert_eq!(
            table.text(),
            "port   packets  why\n6-t          7  none\n7-tap    1 234\n"
        );
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            [count(0), count(999), count(1_000), count(u64::MAX)].join(","),
            "0,999,1 000,18 446 744 073 709 551 615"
        );
        assert_eq!(
            [bytes(0), bytes(9_999), bytes(10_000), bytes(u64::MAX)].join(","),
            "0 B,9999 B,9 KiB,16 383 PiB"
        );
    }
}
