//! Attention in blocks with an online softmax: the matrix of scores never exists whole.

use std::ops::Range;

use candle_core::{DType, Tensor, bail};
use half::bf16;

use crate::buffer::with_scratch;
use crate::dense::{Dense, Numbers, fast_mixed, tensor};
use crate::kernel::{Kernel, are_whole_blocks};
use crate::math::LANES;
use crate::matrix::{TileMut, Unfilled, even_cuts};
use crate::micro::{COLUMNS, Precision};
use crate::number::{Number, Slice};
use crate::pack::{Lines, PackedRows};
use crate::packed::PackedMatrix;
use crate::product::{blocks, rows_in_place};
use crate::tier::{self, by_tier};
use crate::{Result, card, composite, math};

/// Queries of a task, in whole blocks of every kernel, and keys that it looks at together: their
/// scores fit the cache.
const QUERIES: usize = 96;
const KEYS: usize = 512;
const _: () = assert!(are_whole_blocks(QUERIES));
/// Bytes of keys and values that are packed at a time, where those are of as many heads as there
/// are threads.
const PACKED: usize = 16 << 20;
/// How far rows of scores lie apart: by no power of two, since blocks of rows would share a set of
/// the first-level cache.
const APART: usize = KEYS + LANES;

/// Softmax(q·kᵀ·scale)·v without a mask.
///
/// Shapes: `q` `[heads, n, d]`, `k` and `v` `[heads, m, d]`; the result is `[heads, n, d]`. Views
/// of `[n, heads, d]` (by `transpose(0, 1)`) are read where they lie. If `q` is one, the result
/// lies in memory as `[n, heads, d]` too: transposing it back and reshaping copies nothing.
///
/// Products of bf16 tensors are those of bf16, with sums in f32; the softmax is computed in f32.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor> {
    check(q, k, v)?;
    if let Some(mixed) = card::attention([q, k, v], None, scale) {
        return mixed;
    }
    if !is_fast(&[q, k, v]) || scale <= 0.0 {
        return composite::attention(q, k, v, scale);
    }
    on_cpu(q, k, v, None, scale)
}

/// Softmax(q·kᵀ·scale + bias)·v, as [`attention`].
///
/// Shapes: as [`attention`]; `bias` broadcasts to `[heads, n, m]`. One of keys alone,
/// `[1, 1, m]`, is read where it lies: ln c lets a key count as c that are equal.
pub fn attention_with_bias(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    bias: &Tensor,
    scale: f64,
) -> Result<Tensor> {
    check(q, k, v)?;
    if let Some(mixed) = card::attention([q, k, v], Some(bias), scale) {
        return mixed;
    }
    if !is_fast(&[q, k, v]) || !fast_mixed(&[bias]) {
        return composite::attention_with_bias(q, k, v, bias, scale);
    }
    let (heads, n, m) = (q.dim(0)?, q.dim(1)?, k.dim(1)?);
    if bias.dims() == [1, 1, m] {
        let bias = Dense::new(bias)?;
        return on_cpu(q, k, v, Some(Bias::Keys(bias.numbers())), scale);
    }
    let bias = Dense::new(&bias.broadcast_as((heads, n, m))?)?;
    on_cpu(q, k, v, Some(Bias::Pairs(bias.numbers())), scale)
}

/// Softmax(q·kᵀ·scale + bias)·v, as [`attention`], where the bias of a pair depends on how far
/// apart the two stand: no bias of pairs ever exists.
///
/// Shapes: as [`attention`]; `bias` `[heads, n + m − 1]`: that of query i and key j is number
/// j − i + n − 1 of a head.
pub fn attention_by_distance(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    bias: &Tensor,
    scale: f64,
) -> Result<Tensor> {
    check(q, k, v)?;
    let (heads, n, m) = (q.dim(0)?, q.dim(1)?, k.dim(1)?);
    if bias.dims() != [heads, (n + m).saturating_sub(1)] {
        bail!("attention: biases {:?} of {heads} heads, {n} queries, {m} keys", bias.dims());
    }
    if !is_fast(&[q, k, v]) || !fast_mixed(&[bias]) {
        return composite::attention_by_distance(q, k, v, bias, scale);
    }
    let bias = Dense::new(bias)?;
    on_cpu(q, k, v, Some(Bias::Distances(bias.numbers())), scale)
}

/// What is added to scores.
enum Bias<'a> {
    /// `[heads, n, m]`
    Pairs(Numbers<'a>),
    /// `[heads, n + m − 1]`, by distance.
    Distances(Numbers<'a>),
    /// `[m]`, the same for all queries.
    Keys(Numbers<'a>),
}

/// Whether the fast path may take queries, keys and values: of one type.
fn is_fast(tensors: &[&Tensor; 3]) -> bool {
    fast_mixed(tensors) && tensors.iter().all(|t| t.dtype() == tensors[0].dtype())
}

fn on_cpu(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    bias: Option<Bias<'_>>,
    scale: f64,
) -> Result<Tensor> {
    let (heads, n, d) = q.dims3()?;
    let by_token = heads > 1 && q.stride()[0] < q.stride()[1];
    let precision = Precision::of(q.dtype());
    let (queries, keys, values) = (Operand::new(q)?, Operand::new(k)?, Operand::new(v)?);
    let job = Job {
        queries: queries.read()?,
        keys: keys.read()?,
        values: values.read()?,
        bias,
        precision,
        kernel: Kernel::of(precision, n),
        scale: scale as f32,
        size: [n, k.dim(1)?, d],
    };
    match q.dtype() {
        DType::BF16 => job.run::<bf16>(heads, by_token),
        _ => job.run::<f32>(heads, by_token),
    }
}

fn check(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<()> {
    let (heads, _, d) = q.dims3()?;
    let (key_heads, m, key_d) = k.dims3()?;
    if (heads, d) != (key_heads, key_d) || v.dims3()? != (heads, m, d) || m == 0 {
        bail!(
            "attention: q {:?}, k {:?}, v {:?}; expected [heads, n, d] and twice [heads, m, d]",
            q.dims(),
            k.dims(),
            v.dims()
        );
    }
    Ok(())
}

/// A tensor `[heads, length, d]`, wherever its numbers lie.
struct Operand(Tensor);

impl Operand {
    fn new(x: &Tensor) -> Result<Self> {
        let contiguous_vectors = x.stride()[2] == 1 || x.dims()[2] == 1;
        Ok(Self(if contiguous_vectors { x.clone() } else { x.force_contiguous()? }))
    }

    fn read(&self) -> Result<Heads<'_>> {
        let (stride, first) = (self.0.stride(), self.0.layout().start_offset());
        Ok(Heads { numbers: Numbers::whole(&self.0)?, first, step: [stride[0], stride[1]] })
    }
}

/// The vectors of an [`Operand`], by head.
struct Heads<'a> {
    numbers: Numbers<'a>,
    first: usize,
    step: [usize; 2],
}

impl Heads<'_> {
    /// The vectors of a head as rows.
    fn head(&self, head: usize) -> Lines<'_> {
        let first = self.first + head * self.step[0];
        Lines { first, ..Lines::rows(self.numbers.slice(), self.step[1]) }
    }
}

/// Heads whose keys and values are packed at a time, of `[heads, keys, width]` in `number` bytes:
/// as few as give all threads something to do, unless they are small.
pub fn heads_at_once([heads, keys, width]: [usize; 3], number: usize) -> usize {
    let of_head = (2 * number).saturating_mul(keys).saturating_mul(width);
    match PACKED / of_head.max(1) {
        // Not asked for short sequences: the answer starts the threads, and a check needs none.
        few if few < heads => few.max(tier::threads()).min(heads),
        _ => heads.max(1),
    }
}

/// Keys and values of some heads, packed: `[m, d]` and `[d, m]` of each.
struct PackedHeads {
    first: usize,
    keys: Vec<PackedMatrix>,
    values: Vec<PackedMatrix>,
}

/// What the tasks of one attention share.
struct Job<'a> {
    queries: Heads<'a>,
    keys: Heads<'a>,
    values: Heads<'a>,
    bias: Option<Bias<'a>>,
    precision: Precision,
    kernel: Kernel,
    scale: f32,
    /// Queries, keys, width of a head.
    size: [usize; 3],
}

impl Job<'_> {
    /// The result `[heads, n, d]`, which lies in memory by tokens or by heads.
    fn run<T: Number>(&self, heads: usize, by_token: bool) -> Result<Tensor> {
        let [n, m, d] = self.size;
        let rows = even_cuts(0..n, QUERIES, self.kernel.layout().rows);
        let size = if by_token { [n, heads * d] } else { [heads * n, d] };
        let mut out = Unfilled::<T>::new(1, size);
        let at_once = heads_at_once([heads, m, d], size_of::<T>());
        for heads in even_cuts(0..heads, at_once, 1) {
            let packed = self.pack(heads.clone())?;
            if by_token {
                let columns: Vec<_> = heads.map(|head| head * d..(head + 1) * d).collect();
                out.fill(&rows, &columns, |_, tile| {
                    self.attend(&packed, (tile.columns.start / d, tile.rows.start), tile);
                });
            } else {
                let of_head = |head| rows.iter().map(move |r| head * n + r.start..head * n + r.end);
                let rows: Vec<_> = heads.flat_map(of_head).collect();
                out.fill(&rows, std::slice::from_ref(&(0..d)), |_, tile| {
                    self.attend(&packed, (tile.rows.start / n, tile.rows.start % n), tile);
                });
            }
        }
        let numbers = out.finish()?;
        match by_token {
            true => tensor(numbers, (n, heads, d))?.transpose(0, 1),
            false => tensor(numbers, (heads, n, d)),
        }
    }

    fn pack(&self, heads: Range<usize>) -> Result<PackedHeads> {
        let ([_, m, d], first) = (self.size, heads.start);
        let keys = |at: usize| self.keys.head(first + at);
        let values = |at: usize| self.values.head(first + at).transposed();
        Ok(PackedHeads {
            first,
            keys: PackedMatrix::of_heads(keys, self.precision, heads.len(), [m, d])?,
            values: PackedMatrix::of_heads(values, self.precision, heads.len(), [d, m])?,
        })
    }

    /// The result for queries of one head from `first` on: `tile` is `[queries, d]`.
    ///
    /// For each block of keys: scores s, new maximum m' ≥ m of each row, p = exp(s − m'); what was
    /// summed before shrinks by exp(m − m').
    fn attend<T: Number>(
        &self,
        packed: &PackedHeads,
        (head, first): (usize, usize),
        mut tile: TileMut<T>,
    ) {
        let [_, m, d] = self.size;
        let (keys, values) =
            (&packed.keys[head - packed.first], &packed.values[head - packed.first]);
        let queries = tile.rows.len();
        let of_block = self.kernel.layout().rows;
        let groups = queries.div_ceil(of_block);
        let wide = d.next_multiple_of(COLUMNS);
        let lines = self.queries.head(head).skip(first);
        let queries_packed = PackedRows::in_task(lines, self.kernel, queries, d);
        let mut tops = [f32::NEG_INFINITY; QUERIES];
        let mut sums = [0.0; QUERIES];
        let (scores, mixed) = (groups * of_block * APART, groups * of_block * wide);
        let mut halves = Vec::new();
        with_scratch(scores + mixed, |room| {
            let (scores, mixed) = room.split_at_mut(scores);
            for start in (0..m).step_by(KEYS) {
                let count = KEYS.min(m - start);
                let panels = start / COLUMNS..(start + count).div_ceil(COLUMNS);
                blocks(
                    queries_packed.view(),
                    0..groups,
                    (keys, 0..keys.depth()),
                    panels,
                    (&mut *scores, APART),
                    false,
                );
                for row in 0..queries {
                    let scores = &mut scores[row * APART..][..count];
                    let scale = self.biased(scores, head, first + row, start);
                    let shrink = absorb(scores, scale, &mut tops[row], &mut sums[row]);
                    if start > 0 && shrink != 1.0 {
                        scale_row(&mut mixed[row * wide..][..d], shrink);
                    }
                }
                let from = values.precision().words(start);
                let values = (values, from..from + values.precision().words(count));
                self.mix(scores, queries, values, &mut halves, (&mut *mixed, wide), start > 0);
            }
            for (row, sum) in sums.iter().enumerate().take(queries) {
                let mixed = &mut mixed[row * wide..][..d];
                scale_row(mixed, 1.0 / sum);
                T::narrow(mixed, tile.row(row));
            }
        });
    }

    /// Adds the values of some keys, weighted by scores, to what was mixed; replaces it where
    /// nothing was before. `halves` is room for weights of bf16.
    fn mix(
        &self,
        scores: &[f32],
        queries: usize,
        (values, words): (&PackedMatrix, Range<usize>),
        halves: &mut Vec<bf16>,
        mixed: (&mut [f32], usize),
        accumulate: bool,
    ) {
        let weights = match self.kernel {
            Kernel::Vectors(Precision::F32) => Slice::F32(scores),
            // Behind an odd number of keys stands the score of a key of zeros: what fills the panel.
            Kernel::Vectors(Precision::Bf16) => {
                halves.resize(queries * APART, bf16::ZERO);
                bf16::narrow(&scores[..queries * APART], halves);
                Slice::Bf16(halves)
            }
            Kernel::Vectors(Precision::Int8 | Precision::Int8Blocks) => {
                unreachable!("keys and values are not rounded")
            }
            Kernel::Tiles(_) => {
                let lines = Lines::rows(Slice::F32(scores), APART);
                let [_, m, _] = self.size;
                let numbers = words.len() * values.precision().in_word();
                let count = numbers.min(m - words.start * values.precision().in_word());
                let weights = PackedRows::in_task(lines, self.kernel, queries, count);
                let groups = queries.div_ceil(self.kernel.layout().rows);
                let (weights, panels) = (weights.view(), 0..values.panels());
                return blocks(weights, 0..groups, (values, words), panels, mixed, accumulate);
            }
        };
        rows_in_place((weights, APART), queries, (values, words), mixed, accumulate);
    }

    /// Adds the bias to scores of keys from `start` on, where there is one; what they are still to
    /// be multiplied by.
    fn biased(&self, scores: &mut [f32], head: usize, query: usize, start: usize) -> f32 {
        let Some(bias) = &self.bias else { return self.scale };
        let [n, m, _] = self.size;
        let (bias, first) = match bias {
            Bias::Pairs(bias) => (bias, (head * n + query) * m + start),
            Bias::Distances(bias) => (bias, head * (n + m - 1) + n - 1 - query + start),
            Bias::Keys(bias) => (bias, start),
        };
        bias.with(first..first + scores.len(), |bias| add_scaled(scores, self.scale, bias));
        1.0
    }
}

by_tier! {
    /// score·scale + bias.
    fn add_scaled<FMA>(scores: &mut [f32], scale: f32, bias: &[f32]) {
        for (score, bias) in scores.iter_mut().zip(bias) {
            *score = math::madd::<FMA>(*score, scale, *bias);
        }
    }
}

by_tier! {
    /// Turns a row of scores into weights; returns by how much the earlier ones shrink.
    fn absorb<FMA>(scores: &mut [f32], scale: f32, top: &mut f32, sum: &mut f32) -> f32 {
        let before = *top;
        let here = math::largest(scores) * scale;
        let now = if here > before { here } else { before };
        let added = math::exp_row::<FMA>(scores, scale, now);
        let shrink = if before == now { 1.0 } else { math::exp::<FMA>(before - now) };
        *sum = math::madd::<FMA>(*sum, shrink, added);
        *top = now;
        shrink
    }
}

by_tier! {
    fn scale_row<FMA>(row: &mut [f32], factor: f32) {
        row.iter_mut().for_each(|x| *x *= factor);
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Keys and values that are packed some heads at a time: each head is what it is alone, in
    /// whichever order the numbers lie.
    #[test]
    fn many_heads_of_many_keys_are_those_of_each_head() {
        let (n, m, d) = (100, 1500, 128);
        let heads = 3 * heads_at_once([usize::MAX, m, d], size_of::<f32>()) + 1;
        let random = |rows| Tensor::randn(0f32, 1.0, (rows, heads, d), &Device::Cpu).unwrap();
        let by_token = [n, m, m].map(|rows| random(rows).transpose(0, 1).unwrap());
        let by_head = by_token.each_ref().map(|t| t.contiguous().unwrap());
        for operands in [&by_token, &by_head] {
            let [q, k, v] = operands;
            let mixed = attention(q, k, v, 0.1).unwrap().to_vec3::<f32>().unwrap();
            for (head, mixed) in mixed.iter().enumerate() {
                let [q, k, v] = operands.each_ref().map(|t| t.narrow(0, head, 1).unwrap());
                let alone = attention(&q, &k, &v, 0.1).unwrap().to_vec3::<f32>().unwrap();
                assert!(alone[0] == *mixed, "head {head}");
            }
        }
    }
}
