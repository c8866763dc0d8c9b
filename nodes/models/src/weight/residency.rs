//! Which blocks of a network stay in memory where not all of its weights fit. The others are read
//! again, ahead of use, in every pass.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::DType;

use crate::checkpoint::PartFiles;

/// The most that is held of a weight while it is read and packed piece by piece: the pieces of all
/// threads that do that. On its way to a card it is no more ([`kino_kernels::CardCopies`]).
const PIECES: u64 = 8 << 20;

/// A list of blocks of one kind, as a network asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockList {
    /// What tells it from other lists of the network.
    pub name: &'static str,
    /// How many blocks it has.
    pub count: usize,
    /// Whether its blocks are computed with once a run, and not in every pass: they stay in memory
    /// only where all weights do.
    pub once: bool,
}

impl BlockList {
    /// So many blocks that every pass computes with.
    pub fn new(name: &'static str, count: usize) -> Self {
        Self { name, count, once: false }
    }

    /// So many blocks that are computed with once a run.
    pub fn once(name: &'static str, count: usize) -> Self {
        Self { name, count, once: true }
    }
}

/// The blocks that a network asked for, each by the names of its weights.
pub(super) struct AskedBlocks {
    pub(super) list: BlockList,
    pub(super) blocks: Vec<Vec<String>>,
}

/// The bytes of the weights of a network, block by block.
#[derive(Debug, Clone)]
pub struct BlockSizes {
    /// What lies in no block.
    rest: u64,
    lists: Vec<ListSizes>,
}

#[derive(Debug, Clone)]
struct ListSizes {
    list: BlockList,
    blocks: Vec<u64>,
    /// The most of one of its weights that is held a second time while it is packed.
    twice: u64,
}

impl ListSizes {
    /// What is held while its blocks are streamed: the one that computes, the one that is read, and
    /// what of a weight of that is held a second time.
    fn streaming(&self, stays: impl Fn(usize) -> bool) -> u64 {
        let streamed = self.blocks.iter().enumerate().filter(|(index, _)| !stays(*index));
        let sizes: Vec<u64> = streamed.map(|(_, bytes)| *bytes).collect();
        let block = sizes.iter().copied().max().unwrap_or(0);
        let beside = if sizes.is_empty() { 0 } else { self.twice };
        block.saturating_mul(sizes.len().min(2) as u64).saturating_add(beside)
    }
}

/// Which blocks of a network stay in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Residency {
    stays: HashMap<&'static str, Vec<bool>>,
}

impl Residency {
    /// Whether a block of a list stays.
    pub(super) fn stays(&self, list: &str, index: usize) -> bool {
        self.stays.get(list).and_then(|stays| stays.get(index)).copied().unwrap_or(true)
    }
}

/// How the weights of a network are held in the memory that they may take.
#[derive(Debug, Clone)]
pub struct WeightFit {
    /// Which blocks stay; none where all weights do.
    pub residency: Option<Arc<Residency>>,
    /// The bytes that they take: those that stay, and what streaming the others needs.
    pub bytes: u64,
    /// Blocks that every pass computes with, where not all stay; so the next two.
    pub blocks: usize,
    /// How many of them stay.
    pub resident: usize,
    /// The bytes of the others, which every pass reads.
    pub streamed: u64,
}

impl WeightFit {
    /// All of them, which take so many bytes.
    pub fn whole(bytes: u64) -> Self {
        WeightFit { residency: None, bytes, blocks: 0, resident: 0, streamed: 0 }
    }
}

impl BlockSizes {
    /// The sizes of the blocks that were asked for of `files`, in the compute type.
    pub(super) fn new(asked: &[AskedBlocks], files: &PartFiles, dtype: DType) -> Self {
        let sizes = |asked: &AskedBlocks| {
            let bytes = |name: &String| files.tensor_bytes(name, dtype);
            let of_block = |names: &Vec<String>| names.iter().map(bytes).sum();
            let held =
                |name: &String| bytes(name).min(PIECES).max(files.widened_bytes(name, dtype));
            let twice = asked.blocks.iter().flatten().map(held).max().unwrap_or(0);
            let blocks = asked.blocks.iter().map(of_block).collect();
            ListSizes { list: asked.list, blocks, twice }
        };
        let lists: Vec<ListSizes> = asked.iter().map(sizes).collect();
        let in_blocks: u64 = lists.iter().flat_map(|list| &list.blocks).sum();
        let rest = files.weight_bytes(dtype, &[""]).saturating_sub(in_blocks);
        Self { rest, lists }
    }

    /// All of them.
    pub fn whole(&self) -> u64 {
        self.lists.iter().flat_map(|list| &list.blocks).fold(self.rest, |sum, bytes| sum + bytes)
    }

    /// How they are held where they may take `room` bytes: all, where they fit, else with as many
    /// blocks in memory as fit. Where not even streaming fits, the smallest that there is.
    pub fn fit(&self, room: u64) -> WeightFit {
        let each = self.lists.iter().filter(|list| !list.list.once);
        let blocks = each.map(|list| list.blocks.len()).sum();
        let whole = self.whole();
        if whole <= room || self.streaming(0, blocks).bytes >= whole {
            return WeightFit::whole(whole);
        }
        let fits = (0..=blocks).rev().map(|resident| self.streaming(resident, blocks));
        let mut fits = fits.filter(|fit| fit.bytes < whole);
        fits.find(|fit| fit.bytes <= room).unwrap_or_else(|| self.streaming(0, blocks))
    }

    /// The same where `resident` of all `blocks` of every pass stay, evenly spread, the first among
    /// them: while they compute, the next that does not is read.
    fn streaming(&self, resident: usize, blocks: usize) -> WeightFit {
        let mut number = 0;
        let mut stays = HashMap::new();
        let (mut bytes, mut streamed, mut at_once, mut of_once) = (self.rest, 0, 0, 0);
        for sizes in &self.lists {
            let once = sizes.list.once;
            let of_list: Vec<bool> = (0..sizes.blocks.len())
                .map(|index| !once && (number + index) * resident % blocks.max(1) < resident)
                .collect();
            let slots = sizes.streaming(|index| of_list[index]);
            if once {
                of_once = slots.max(of_once);
            } else {
                number += sizes.blocks.len();
                at_once += slots;
                for (block, stays) in sizes.blocks.iter().zip(&of_list) {
                    *(if *stays { &mut bytes } else { &mut streamed }) += block;
                }
            }
            stays.insert(sizes.list.name, of_list);
        }
        // What is computed with once is not while a pass is under way.
        let bytes = bytes + at_once.max(of_once);
        WeightFit {
            residency: Some(Arc::new(Residency { stays })),
            bytes,
            blocks,
            resident,
            streamed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(lists: &[(BlockList, u64)]) -> BlockSizes {
        let list = |(list, bytes): &(BlockList, u64)| ListSizes {
            list: *list,
            blocks: vec![*bytes; list.count],
            twice: bytes / 4,
        };
        BlockSizes { rest: 50, lists: lists.iter().map(list).collect() }
    }

    #[test]
    fn as_many_blocks_stay_as_fit_and_they_are_spread_evenly() {
        let sizes =
            sizes(&[(BlockList::new("blocks", 10), 100), (BlockList::once("texts", 10), 20)]);
        assert_eq!(sizes.whole(), 1250);
        let whole = sizes.fit(1250);
        assert!(whole.residency.is_none() && whole.bytes == 1250 && whole.streamed == 0);
        // Two blocks and a quarter of one are on their way, and the rest stays.
        let fit = sizes.fit(700);
        assert_eq!((fit.bytes, fit.resident, fit.blocks, fit.streamed), (675, 4, 10, 600));
        let residency = fit.residency.unwrap();
        let stays: Vec<usize> = (0..10).filter(|at| residency.stays("blocks", *at)).collect();
        assert_eq!(stays, [0, 3, 5, 8]);
        assert!((0..10).all(|at| !residency.stays("texts", at)));
        // All but what is needed once: a text's block is read while another computes.
        let fit = sizes.fit(1249);
        assert_eq!((fit.bytes, fit.resident), (50 + 1000 + 2 * 20 + 5, 10));
        for room in [0, 274] {
            assert_eq!((sizes.fit(room).bytes, sizes.fit(room).resident), (275, 0));
        }
    }

    #[test]
    fn what_streaming_would_not_make_smaller_is_not_streamed() {
        assert!(sizes(&[(BlockList::new("blocks", 2), 100)]).fit(0).residency.is_none());
        assert!(sizes(&[]).fit(0).residency.is_none());
        assert!(sizes(&[(BlockList::new("blocks", 3), 100)]).fit(0).residency.is_some());
    }

    #[test]
    fn two_lists_of_a_pass_are_streamed_side_by_side() {
        let sizes = sizes(&[(BlockList::new("one", 4), 100), (BlockList::new("two", 4), 40)]);
        assert_eq!(sizes.fit(0).bytes, 50 + 225 + 90);
        assert_eq!(sizes.fit(500).resident, 1);
        // One that does not stay takes its own room and that of its packing: here no more stay.
        assert_eq!((sizes.fit(609).resident, sizes.fit(609).bytes), (3, 605));
    }
}
