//! Tables of text: columns as wide as their widest cell, colours not counted.

use kino_port::is_plain;

/// How a column is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

/// Rows of cells.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(columns: &[Align]) -> Self {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; cells may hold colours, and stay on one line.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let one_line = |cell: String| match cell.contains(['\n', '\t']) {
            true => cell.replace('\n', "\\n").replace('\t', "\\t"),
            false => cell,
        };
        self.rows.push(cells.into_iter().map(one_line).collect());
    }

    /// The text, each line ended; nothing trails.
    pub(crate) fn render(&self) -> String {
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|at| self.rows.iter().filter_map(move |row| row.get(at)).map(|cell| width(cell)))
            .map(|cells| cells.max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                let wide = widths.get(at).copied().unwrap_or(0);
                let space = " ".repeat(wide.saturating_sub(width(cell)));
                match self.columns.get(at) {
                    Some(Align::Right) => line.extend([&space, cell.as_str()]),
                    _ => line.extend([cell.as_str(), &space]),
                }
                line.push_str("  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// The columns that a text takes on a terminal, colours left out.
pub(crate) fn width(text: &str) -> usize {
    if is_plain(text) {
        return text.len();
    }
    let mut wide = 0;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            chars.by_ref().find(|c| c.is_ascii_alphabetic());
        } else {
            wide += if is_wide(c) { 2 } else { 1 };
        }
    }
    wide
}

/// Whether a character takes two columns: East Asian wide and fullwidth forms, emoji.
fn is_wide(c: char) -> bool {
    matches!(c as u32,
        0x1100..=0x115f | 0x2e80..=0x303e | 0x3041..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd)
}

/// Breaks a text into lines of at most `most` columns, at spaces; paragraphs stay apart.
pub(crate) fn wrap(text: &str, most: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && width(&line) + 1 + width(word) > most {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_the_script() {
        let mut table = Table::new(&[Align::Left, Align::Right, Align::Left]);
        table.row(["红色".to_owned(), "1".to_owned(), "x".to_owned()]);
        table.row(["\x1b[36mab\x1b[0m".to_owned(), "10".to_owned(), String::new()]);
        assert_eq!(table.render(), "红色   1  x\n\x1b[36mab\x1b[0m    10\n");
    }

    #[test]
    fn long_texts_break_at_spaces() {
        assert_eq!(wrap("aa bb cc\n\nd", 5), ["aa bb", "cc", "", "d"]);
    }
}
