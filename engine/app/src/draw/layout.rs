//! Where boxes stand: layers from left to right, few crossings, short wires.
//!
//! The layered method of Sugiyama, Tagawa and Toda (1981): ranks by the longest path, long wires
//! led through every layer they pass, order within a layer by the mean of the neighbours, positions
//! by least squares under the order.

use super::picture::Picture;
use super::size::{self, GAP_X, GAP_Y, Size, TRACK};

/// Wires that would pass more layers than this in all are drawn straight through.
const MAX_PASSAGES: usize = 20_000;
const SWEEPS: usize = 12;

/// A picture with positions, in pixels.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    /// The upper left corner and the size of each box.
    pub(crate) boxes: Vec<Placed>,
    /// The points that each wire passes, its ends included.
    pub(crate) wires: Vec<Vec<(f64, f64)>>,
    /// Width and height of all.
    pub(crate) size: (f64, f64),
}

/// A box with its place.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Placed {
    /// Its left side.
    pub(crate) x: f64,
    /// Its upper side.
    pub(crate) y: f64,
    /// Width and height.
    pub(crate) size: Size,
}

/// Something that stands in a layer: a box, or the passage of a long wire.
#[derive(Clone, Copy, Debug)]
struct Item {
    layer: usize,
    height: f64,
    y: f64,
}

/// A link between items of neighbouring layers, with the heights within them where it ends.
#[derive(Clone, Copy, Debug)]
struct Link {
    from: usize,
    to: usize,
    out: f64,
    into: f64,
}

struct Layers {
    items: Vec<Item>,
    links: Vec<Link>,
    /// The items of each layer, from top to bottom.
    order: Vec<Vec<usize>>,
    /// The passages of each wire, from left to right.
    passages: Vec<Vec<usize>>,
    before: Vec<Vec<usize>>,
    after: Vec<Vec<usize>>,
}

/// Places the boxes of a picture and leads its wires.
pub(crate) fn layout(picture: &Picture) -> Layout {
    let sizes: Vec<Size> = picture.boxes.iter().map(size::of).collect();
    let ranks = ranks(picture);
    let mut layers = Layers::new(picture, &sizes, &ranks);
    layers.arrange();
    layers.straighten();
    place(picture, &sizes, &ranks, &layers)
}

/// The layer of each box: as far left as what comes before allows; what has nothing before it
/// stands just before its first reader; outputs of the graph stand at the right.
fn ranks(picture: &Picture) -> Vec<usize> {
    let n = picture.boxes.len();
    let mut waiting = vec![0usize; n];
    let mut after = vec![Vec::new(); n];
    for wire in &picture.wires {
        waiting[wire.to.0] += 1;
        after[wire.from.0].push(wire.to.0);
    }
    let mut ranks = vec![0usize; n];
    let mut ready: Vec<usize> = (0..n).filter(|at| waiting[*at] == 0).collect();
    let sources = ready.clone();
    while let Some(at) = ready.pop() {
        for to in &after[at] {
            ranks[*to] = ranks[*to].max(ranks[at] + 1);
            waiting[*to] -= 1;
            if waiting[*to] == 0 {
                ready.push(*to);
            }
        }
    }
    for source in sources {
        if let Some(first) = after[source].iter().map(|to| ranks[*to]).min() {
            ranks[source] = first.saturating_sub(1);
        }
    }
    ranks
}

impl Layers {
    fn new(picture: &Picture, sizes: &[Size], ranks: &[usize]) -> Self {
        let layers = ranks.iter().max().map_or(0, |last| last + 1);
        let mut items: Vec<Item> = sizes
            .iter()
            .zip(ranks)
            .map(|(size, layer)| Item { layer: *layer, height: size.height, y: 0.0 })
            .collect();
        let spans = |wire: &super::picture::Wire| {
            ranks[wire.to.0].saturating_sub(ranks[wire.from.0]).saturating_sub(1)
        };
        let straight = picture.wires.iter().map(spans).sum::<usize>() > MAX_PASSAGES;
        let mut links = Vec::new();
        let mut passages = vec![Vec::new(); picture.wires.len()];
        for (index, wire) in picture.wires.iter().enumerate() {
            let mut last = (wire.from.0, size::port_y(&picture.boxes[wire.from.0], wire.from.1));
            let between = if straight { 0 } else { spans(wire) };
            for step in 1..=between {
                let at = items.len();
                items.push(Item { layer: ranks[wire.from.0] + step, height: TRACK, y: 0.0 });
                links.push(Link { from: last.0, to: at, out: last.1, into: TRACK / 2.0 });
                passages[index].push(at);
                last = (at, TRACK / 2.0);
            }
            let into = size::port_y(&picture.boxes[wire.to.0], wire.to.1);
            links.push(Link { from: last.0, to: wire.to.0, out: last.1, into });
        }
        let mut order = vec![Vec::new(); layers];
        for (at, item) in items.iter().enumerate() {
            order[item.layer].push(at);
        }
        let mut before = vec![Vec::new(); items.len()];
        let mut after = vec![Vec::new(); items.len()];
        for (index, link) in links.iter().enumerate() {
            before[link.to].push(index);
            after[link.from].push(index);
        }
        let mut layers = Layers { items, links, order, passages, before, after };
        (0..layers.order.len()).for_each(|layer| layers.stack(layer));
        layers
    }

    /// Stacks the items of a layer in their order, centred at zero.
    fn stack(&mut self, layer: usize) {
        let all: f64 = self.order[layer].iter().map(|at| self.items[*at].height + GAP_Y).sum();
        let mut y = -all / 2.0;
        for at in &self.order[layer] {
            self.items[*at].y = y;
            y += self.items[*at].height + GAP_Y;
        }
    }

    /// Where the item's links on one side would like its upper side to be, each on its own.
    fn wishes(&self, at: usize, from_left: bool) -> impl Iterator<Item = f64> + '_ {
        let links = if from_left { &self.before[at] } else { &self.after[at] };
        links.iter().map(move |index| {
            let link = &self.links[*index];
            match from_left {
                true => self.items[link.from].y + link.out - link.into,
                false => self.items[link.to].y + link.into - link.out,
            }
        })
    }

    /// Orders every layer by the mean of its neighbours, from the left, then from the right, a few
    /// times; keeps the order with the fewest crossings.
    fn arrange(&mut self) {
        let mut best = (self.crossings(), self.order.clone());
        for sweep in 0..SWEEPS {
            let from_left = sweep % 2 == 0;
            let mut layers: Vec<usize> = (0..self.order.len()).collect();
            if !from_left {
                layers.reverse();
            }
            for layer in layers {
                let mut order = std::mem::take(&mut self.order[layer]);
                let mean = |at: &usize| {
                    let wishes: Vec<f64> = self.wishes(*at, from_left).collect();
                    match wishes.len() {
                        0 => self.items[*at].y,
                        n => wishes.iter().sum::<f64>() / n as f64,
                    }
                };
                let mut keyed: Vec<(f64, usize)> = order.iter().map(|at| (mean(at), *at)).collect();
                keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
                order.clear();
                order.extend(keyed.into_iter().map(|(_, at)| at));
                self.order[layer] = order;
                self.stack(layer);
            }
            let crossings = self.crossings();
            if crossings < best.0 {
                best = (crossings, self.order.clone());
            }
        }
        self.order = best.1;
        (0..self.order.len()).for_each(|layer| self.stack(layer));
    }

    /// How many pairs of links cross, counted with a Fenwick tree.
    fn crossings(&self) -> usize {
        let mut between: Vec<Vec<(f64, f64)>> = vec![Vec::new(); self.order.len()];
        for link in &self.links {
            let (from, to) = (&self.items[link.from], &self.items[link.to]);
            between[from.layer].push((from.y + link.out, to.y + link.into));
        }
        between.into_iter().map(inversions).sum()
    }

    /// Moves items towards their neighbours without changing the order.
    fn straighten(&mut self) {
        for sweep in 0..SWEEPS {
            let from_left = sweep % 2 == 0;
            for step in 0..self.order.len() {
                let layer = if from_left { step } else { self.order.len() - 1 - step };
                self.settle(layer, from_left, sweep + 4 > SWEEPS);
            }
        }
    }

    /// Places a layer by least squares: each item near its wish, none over another (pooled adjacent
    /// violators).
    fn settle(&mut self, layer: usize, from_left: bool, is_late: bool) {
        let mut offset = 0.0;
        let mut pools: Vec<(f64, f64, usize)> = Vec::new(); // sum of weighted wishes, weight, items
        for at in &self.order[layer] {
            let (left, right) = (from_left || is_late, !from_left || is_late);
            let mut wishes: Vec<f64> = Vec::new();
            if left {
                wishes.extend(self.wishes(*at, true));
            }
            if right {
                wishes.extend(self.wishes(*at, false));
            }
            let is_passage = self.items[*at].height == TRACK;
            let weight = if is_passage { 4.0 } else { 1.0 };
            let wish = match wishes.len() {
                0 => self.items[*at].y,
                n => wishes.iter().sum::<f64>() / n as f64,
            };
            pools.push(((wish - offset) * weight, weight, 1));
            while pools.len() > 1 {
                let (last, before) = (pools[pools.len() - 1], pools[pools.len() - 2]);
                if before.0 / before.1 <= last.0 / last.1 {
                    break;
                }
                pools.pop();
                let end = pools.len() - 1;
                pools[end] = (before.0 + last.0, before.1 + last.1, before.2 + last.2);
            }
            offset += self.items[*at].height + GAP_Y;
        }
        let means = pools.iter().flat_map(|(sum, weight, n)| std::iter::repeat_n(sum / weight, *n));
        let mut offset = 0.0;
        for (at, mean) in self.order[layer].iter().zip(means.collect::<Vec<_>>()) {
            self.items[*at].y = mean + offset;
            offset += self.items[*at].height + GAP_Y;
        }
    }
}

/// Pairs that stand in one order at the left and in the other at the right.
fn inversions(mut ends: Vec<(f64, f64)>) -> usize {
    ends.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut by_right: Vec<usize> = (0..ends.len()).collect();
    by_right.sort_by(|a, b| ends[*a].1.total_cmp(&ends[*b].1));
    let mut rank = vec![0; ends.len()];
    let mut level = 0;
    for pair in 0..by_right.len() {
        if pair > 0 && ends[by_right[pair]].1 > ends[by_right[pair - 1]].1 {
            level = pair;
        }
        rank[by_right[pair]] = level + 1;
    }
    let mut tree = vec![0usize; ends.len() + 1];
    let mut crossings = 0;
    for (seen, at) in rank.into_iter().enumerate() {
        let (mut not_above, mut index) = (0, at);
        while index > 0 {
            not_above += tree[index];
            index &= index - 1;
        }
        crossings += seen - not_above;
        let mut index = at;
        while index < tree.len() {
            tree[index] += 1;
            index += index & index.wrapping_neg();
        }
    }
    crossings
}

fn place(picture: &Picture, sizes: &[Size], ranks: &[usize], layers: &Layers) -> Layout {
    let mut widths = vec![0f64; layers.order.len()];
    for (size, rank) in sizes.iter().zip(ranks) {
        widths[*rank] = widths[*rank].max(size.width);
    }
    let mut lefts = Vec::with_capacity(widths.len());
    let mut x = GAP_Y;
    for width in &widths {
        lefts.push(x);
        x += width + GAP_X;
    }
    let top = layers.items.iter().map(|item| item.y).fold(f64::INFINITY, f64::min) - GAP_Y;
    let bottom =
        layers.items.iter().map(|item| item.y + item.height).fold(f64::NEG_INFINITY, f64::max)
            + GAP_Y;
    let y = |at: usize| layers.items[at].y - top;
    let place = |(at, size): (usize, &Size)| {
        let room = widths[ranks[at]] - size.width;
        // What begins wires stands at the right of its layer, so that they do not pass behind its
        // neighbours.
        let share = if layers.before[at].is_empty() { 1.0 } else { 0.5 };
        Placed { x: lefts[ranks[at]] + room * share, y: y(at), size: *size }
    };
    let boxes: Vec<Placed> = sizes.iter().enumerate().map(place).collect();
    let wires = picture.wires.iter().zip(&layers.passages).map(|(wire, passages)| {
        let (from, to) = (&boxes[wire.from.0], &boxes[wire.to.0]);
        let out = size::port_y(&picture.boxes[wire.from.0], wire.from.1);
        let into = size::port_y(&picture.boxes[wire.to.0], wire.to.1);
        let mut points = vec![(from.x + from.size.width, from.y + out)];
        for at in passages {
            let layer = layers.items[*at].layer;
            let middle = y(*at) + TRACK / 2.0;
            points.push((lefts[layer], middle));
            points.push((lefts[layer] + widths[layer], middle));
        }
        points.push((to.x, to.y + into));
        points
    });
    let wires = wires.collect();
    Layout { boxes, wires, size: ((x - GAP_X + GAP_Y).max(0.0), (bottom - top).max(0.0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crossings_are_counted() {
        assert_eq!(inversions(vec![(0.0, 0.0), (1.0, 1.0), (2.0, 2.0)]), 0);
        assert_eq!(inversions(vec![(0.0, 2.0), (1.0, 1.0), (2.0, 0.0)]), 3);
        // Wires that meet in one port do not cross there.
        assert_eq!(inversions(vec![(0.0, 1.0), (1.0, 1.0), (0.0, 0.0)]), 0);
        assert_eq!(inversions(vec![(0.0, 1.0), (0.0, 0.0)]), 0);
    }
}
