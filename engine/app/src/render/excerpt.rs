//! The part of a source that a problem is drawn with: a few lines, none of them long.
//!
//! miette scans a source from its start for each label, and cannot draw beyond column 65,535. It is
//! given an excerpt instead, which says where its lines stand in the whole.

use std::ops::Range;

use kino_port::{escape_hidden, escape_line};
use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

/// Longer lines are cut, to so many characters around what is pointed at.
const LONGEST_LINE: usize = 240;
/// What stands before the place that is pointed at in a line that is cut, at most.
const BEFORE: usize = 80;
/// Of a place that covers more lines, the first one is pointed at.
const MAX_LINES: usize = 12;
/// Labels so many lines apart, or fewer, are drawn in one block.
const NEAR: usize = 3;

/// Where the lines of a text begin, found once for all of its problems.
pub(crate) struct LineStarts(Vec<usize>);

impl LineStarts {
    /// Finds them.
    pub(crate) fn of(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        LineStarts(std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect())
    }

    /// The line of an offset, counted from zero.
    fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    /// A line without its end.
    fn text<'t>(&self, text: &'t str, line: usize) -> &'t str {
        let start = self.0[line];
        let end = self.0.get(line + 1).copied().unwrap_or(text.len());
        text[start..end].trim_end_matches(['\n', '\r'])
    }
}

/// Lines that follow each other.
struct Block {
    /// The number of the first one, from zero.
    line: usize,
    /// Where the block begins among all of the excerpt.
    start: usize,
    text: String,
    /// For each label in the block: its place in the excerpt, and its column in the source.
    columns: Vec<(usize, usize)>,
}

/// Blocks of lines of one file.
pub(crate) struct Excerpt {
    name: String,
    blocks: Vec<Block>,
}

/// The nearest character boundary at or before an offset.
fn floor(text: &str, offset: usize) -> usize {
    let offset = offset.min(text.len());
    (0..=offset).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
}

/// The part of a line that is shown, if it is too long for all of it.
fn window(line: &str, pointed: Option<usize>) -> Option<Range<usize>> {
    let from = pointed.unwrap_or_default();
    // A byte is a column at most: most lines are short enough without counting.
    if line.len() <= LONGEST_LINE || line.chars().nth(LONGEST_LINE).is_none() {
        return None;
    }
    let from = floor(line, from);
    let start = line[..from].char_indices().rev().nth(BEFORE - 1).map_or(0, |(at, _)| at);
    let end = line[start..].char_indices().nth(LONGEST_LINE);
    Some(start..end.map_or(line.len(), |(at, _)| start + at))
}

impl Excerpt {
    /// The lines around some places in a text, each with the line before and after it; and where
    /// the places stand in the excerpt, as offset and length. `columns` are those of the places,
    /// from 1.
    pub(crate) fn of(
        name: &str,
        text: &str,
        lines: &LineStarts,
        (places, columns): (&[Range<usize>], &[usize]),
    ) -> (Self, Vec<(usize, usize)>) {
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.sort_by_key(|at| places[*at].start);
        let spans: Vec<(usize, usize)> =
            places.iter().map(|place| ends(text, lines, place)).collect();
        let name = escape_line(name).into_owned();
        let mut excerpt = Excerpt { name, blocks: Vec::new() };
        let mut found = vec![(0, 0); places.len()];
        let mut group: Vec<usize> = Vec::new();
        let mut start = 0;
        for (turn, at) in order.iter().enumerate() {
            group.push(*at);
            let last = group.iter().map(|at| spans[*at].1).max().unwrap_or_default();
            let next = order.get(turn + 1).map(|next| spans[*next].0);
            if next.is_some_and(|next| next <= last + NEAR) {
                continue;
            }
            let block = Block::of(text, lines, places, &spans, &group, start, &mut found);
            let block = block.with_columns(group.iter().map(|at| (found[*at].0, columns[*at])));
            // A gap, so that blocks never touch.
            start = block.start + block.text.len() + 2;
            excerpt.blocks.push(block);
            group.clear();
        }
        (excerpt, found)
    }
}

/// The first and the last line of a place, of which only the first counts where they are many.
fn ends(text: &str, lines: &LineStarts, place: &Range<usize>) -> (usize, usize) {
    let first = lines.line(place.start.min(text.len()));
    let last = lines.line(place.end.max(place.start + 1) - 1).max(first);
    (first, if last - first >= MAX_LINES { first } else { last })
}

impl Block {
    fn of(
        text: &str,
        lines: &LineStarts,
        places: &[Range<usize>],
        spans: &[(usize, usize)],
        group: &[usize],
        start: usize,
        found: &mut [(usize, usize)],
    ) -> Self {
        let first = group.iter().map(|at| spans[*at].0).min().unwrap_or_default();
        let last = group.iter().map(|at| spans[*at].1).max().unwrap_or_default();
        let shown = first.saturating_sub(1)..(last + 2).min(lines.0.len());
        let mut block =
            Block { line: shown.start, start, text: String::new(), columns: Vec::new() };
        // For each line: where it begins in the source and in the block, and what is cut before.
        let mut kept = Vec::new();
        for line in shown.clone() {
            let whole = lines.text(text, line);
            let begin = lines.0[line];
            let pointed = group.iter().filter(|at| spans[**at].0 == line);
            let pointed = pointed.map(|at| places[*at].start.saturating_sub(begin)).min();
            let window = window(whole, pointed).unwrap_or(0..whole.len());
            let cut = if window.start > 0 { "…" } else { "" };
            kept.push((block.text.len() + cut.len(), begin, window.clone(), whole));
            block.text += cut;
            block.text += &escape_hidden(&whole[window.clone()]);
            if window.end < whole.len() {
                block.text += "…";
            }
            if line + 1 < shown.end || line + 1 < lines.0.len() {
                block.text.push('\n');
            }
        }
        // Where an offset of the source, on a line, stands in the block.
        let place_of = |line: usize, offset: usize| {
            let (at, begin, window, whole) = &kept[line - shown.start];
            let end = offset.saturating_sub(*begin).clamp(window.start, window.end);
            at + escape_hidden(&whole[window.start..floor(whole, end)]).len()
        };
        for at in group {
            let (first, last) = spans[*at];
            let from = place_of(first, places[*at].start);
            let to = place_of(last, places[*at].end).max(from);
            let to = if places[*at].is_empty() { from } else { floor(&block.text, to).max(from) };
            found[*at] = (start + from, to - from);
        }
        block
    }

    /// The same, with the places of its labels and their columns, from 1.
    fn with_columns(mut self, columns: impl Iterator<Item = (usize, usize)>) -> Self {
        self.columns = columns.map(|(at, column)| (at, column.saturating_sub(1))).collect();
        self
    }
}

impl SourceCode for Excerpt {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let block = self.blocks.iter().rev().find(|block| block.start <= span.offset());
        let block = block.ok_or(MietteError::OutOfBounds)?;
        let inner = SourceSpan::new((span.offset() - block.start).into(), span.len());
        let contents = block.text.read_span(&inner, before, after)?;
        let outer = contents.span();
        let column = block.columns.iter().find(|(at, _)| before == 0 && *at == span.offset());
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            contents.data(),
            SourceSpan::new((outer.offset() + block.start).into(), outer.len()),
            contents.line() + block.line,
            column.map_or(contents.column(), |(_, column)| *column),
            contents.line_count(),
        )))
    }
}
