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
use crate::tier::by_tier;
use crate::{Result, card, composite, math};

/// Queries of a task, in whole blocks of every kernel, and keys that it looks at together: their
/// scores fit the cache.
const QUERIES: usize = 96;
const KEYS: usize = 512;
const _: () = assert!(are_whole_blocks(QUERIES));
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
    let (keys, values) = (Operand::new(k)?, Operand::new(v)?);
    let (keys, values) = (keys.read()?, values.read()?);
    let m = k.dim(1)?;
    let keys = PackedMatrix::of_heads(|head| keys.head(head), precision, heads, [m, d])?;
    let values =
        PackedMatrix::of_heads(|head| values.head(head).transposed(), precision, heads, [d, m])?;
    let queries = Operand::new(q)?;
    let job = Job {
        queries: queries.read()?,
        keys: &keys,
        values: &values,
        bias,
        kernel: Kernel::of(precision, n),
        scale: scale as f32,
        size: [n, m, d],
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

/// What the tasks of one attention share.
struct Job<'a> {
    queries: Heads<'a>,
    /// `[m, d]` and `[d, m]` of each head.
    keys: &'a [PackedMatrix],
    values: &'a [PackedMatrix],
    bias: Option<Bias<'a>>,
    kernel: Kernel,
    scale: f32,
    /// Queries, keys, width of a head.
    size: [usize; 3],
}

impl Job<'_> {
    /// The result `[heads, n, d]`, which lies in memory by tokens or by heads.
    fn run<T: Number>(&self, heads: usize, by_token: bool) -> Result<Tensor> {
        let [n, _, d] = self.size;
        let rows = even_cuts(0..n, QUERIES, self.kernel.layout().rows);
        if by_token {
            let columns: Vec<_> = (0..heads).map(|head| head * d..(head + 1) * d).collect();
            let mut out = Unfilled::<T>::new(1, [n, heads * d]);
            out.fill(&rows, &columns, |_, tile| self.attend(tile.columns.start / d, tile));
            tensor(out.finish()?, (n, heads, d))?.transpose(0, 1)
        } else {
            let mut out = Unfilled::<T>::new(heads, [n, d]);
            out.fill(&rows, std::slice::from_ref(&(0..d)), |head, tile| self.attend(head, tile));
            tensor(out.finish()?, (heads, n, d))
        }
    }

    /// The result for some queries of one head: `tile` is `[queries, d]`.
    ///
    /// For each block of keys: scores s, new maximum m' ≥ m of each row, p = exp(s − m'); what was
    /// summed before shrinks by exp(m − m').
    fn attend<T: Number>(&self, head: usize, mut tile: TileMut<T>) {
        let [_, m, d] = self.size;
        let (keys, values) = (&self.keys[head], &self.values[head]);
        let (first, queries) = (tile.rows.start, tile.rows.len());
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
