//! The matrix of a linear layer as products read it: packed once, when it is loaded.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, DType, Device, Storage, Tensor, bail};

use crate::Result;
use crate::block_panels::BlockPanels;
use crate::blocks::{BlockType, row_numbers};
use crate::buffer::filled;
use crate::cancel::CancelFlag;
use crate::dense::Dense;
use crate::e4m3;
use crate::int8;
use crate::interleave::interleave;
use crate::micro::{COLUMNS, Precision};
use crate::pack::Lines;
use crate::recycle::Reused;
use crate::tasks::each;

/// A matrix `[out, inner]` in panels of 32 rows, each interleaved along its rows; the last panel is
/// filled with zeros. It takes as much memory as its numbers, and is cheap to clone.
#[derive(Clone)]
pub struct PackedMatrix {
    data: Data,
    precision: Precision,
    out: usize,
    inner: usize,
    /// How many numbers of a row were rotated together, if they were.
    rotated: Option<usize>,
}

/// What sums are multiplied by.
#[derive(Debug, PartialEq)]
pub(crate) enum SumScale<'a> {
    One,
    All(f32),
    /// Each row of the matrix has its own.
    Rows(&'a [f32]),
}

/// What the numbers of a matrix are multiplied by that are held in eight bits each.
#[derive(Debug, Clone)]
pub enum WeightScale {
    /// All by one.
    All(f32),
    /// Those of each row by its own.
    Rows(Arc<[f32]>),
}

impl WeightScale {
    /// An error where there are not as many as rows.
    pub(crate) fn check(&self, rows: usize) -> Result<()> {
        match self {
            Self::Rows(scales) if scales.len() != rows => {
                bail!("linear: {} scales of {rows} rows", scales.len())
            }
            _ => Ok(()),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::All(_) => 0,
            Self::Rows(scales) => scales.len() * size_of::<f32>(),
        }
    }

    fn of_sums(&self) -> SumScale<'_> {
        match self {
            Self::All(scale) => SumScale::All(*scale),
            Self::Rows(scales) => SumScale::Rows(scales),
        }
    }
}

#[derive(Clone)]
pub(crate) enum Data {
    /// `[panels, words of a row, 32]`
    Words(Arc<Reused<u32>>),
    /// `[panels, inner, 32]`, a byte a number (E4M3), and what each number is multiplied by.
    E4m3(Arc<Reused<u8>>, WeightScale),
    /// The same of whole numbers.
    Int8(Arc<Reused<u8>>, WeightScale),
    /// `[panels, words of a row, 32]`, four whole numbers a word, and what they are multiplied by.
    Quads(Arc<Reused<u32>>, WeightScale),
    /// Blocks that share their scales.
    Blocks(BlockPanels),
}

impl PackedMatrix {
    /// Packs a matrix of f32 or bf16 on the CPU for products in `precision`.
    ///
    /// Shape: `weight` `[out, inner]`.
    ///
    /// # Errors
    /// When it is no matrix, of another type, or on another device.
    pub fn pack(weight: &Tensor, precision: Precision) -> Result<Self> {
        let (out, inner) = weight.dims2()?;
        let dense = Dense::new(weight)?;
        let numbers = dense.numbers();
        let lines = Lines::rows(numbers.slice(), inner);
        let panel = precision.words(inner) * COLUMNS;
        let words = filled(out.div_ceil(COLUMNS) * panel, panel, |index, words| {
            let first = index * COLUMNS;
            let count = COLUMNS.min(out - first);
            lines.skip(first).pack_panel(precision, count, 0..inner, words);
        })?;
        Ok(Self::new(Data::Words(Arc::new(words.into())), precision, [out, inner]))
    }

    /// Packs a matrix of each head, `lines(head)`, in parallel.
    ///
    /// Shape: each `[out, inner]`.
    pub(crate) fn of_heads<'a>(
        lines: impl Fn(usize) -> Lines<'a> + Sync,
        precision: Precision,
        heads: usize,
        [out, inner]: [usize; 2],
    ) -> Result<Vec<Self>> {
        let panel = precision.words(inner) * COLUMNS;
        let cancel = CancelFlag::of_thread();
        let mut all = vec![Vec::new(); heads];
        each(all.iter_mut().enumerate().collect(), |(head, words)| {
            let lines = lines(head);
            *words = vec![0; out.div_ceil(COLUMNS) * panel];
            for (index, words) in words.chunks_exact_mut(panel.max(1)).enumerate() {
                if cancel.is_raised() {
                    break;
                }
                let first = index * COLUMNS;
                let count = COLUMNS.min(out - first);
                lines.skip(first).pack_panel(precision, count, 0..inner, words);
            }
        });
        cancel.check()?;
        let packed = |words: Vec<u32>| {
            Self::new(Data::Words(Arc::new(words.into())), precision, [out, inner])
        };
        Ok(all.into_iter().map(packed).collect())
    }

    /// Packs a matrix whose numbers are held as E4M3, times `scale`. They stay so, and are widened
    /// where they are multiplied.
    ///
    /// Shape: `bytes` `[out, inner]` in U8.
    ///
    /// # Errors
    /// When it is no matrix, of another type, on another device, or there are not as many scales
    /// as rows.
    pub fn pack_e4m3(bytes: &Tensor, scale: WeightScale, precision: Precision) -> Result<Self> {
        let (packed, size) = interleaved(bytes)?;
        scale.check(size[0])?;
        Ok(Self::new(Data::E4m3(Arc::new(packed.into()), scale), precision, size))
    }

    /// Packs a matrix of whole numbers of eight bits, those of row i times `scales[i]`. They stay
    /// so, and are widened where they are multiplied; bf16 holds each of them exactly.
    ///
    /// Where numbers of a row were `rotated` together before they were rounded, what is multiplied
    /// by the matrix is rotated too ([`crate::rotate_groups`]): x·Wᵀ = (x·H)·(W·H)ᵀ.
    ///
    /// Shapes: `bytes` `[out, inner]` in U8 (two's complement), `scales` `[out]` in f32.
    ///
    /// # Errors
    /// When a shape or a type is another, or it lies on another device.
    pub fn pack_int8(
        bytes: &Tensor,
        scales: &Tensor,
        rotated: Option<usize>,
        precision: Precision,
    ) -> Result<Self> {
        let size: [usize; 2] = bytes.dims2()?.into();
        if scales.dims() != [size[0]] || scales.dtype() != DType::F32 {
            let (shape, dtype) = (scales.dims(), scales.dtype());
            bail!("linear: scales {shape:?} in {dtype:?} of {} rows, expected F32", size[0]);
        }
        let scales = WeightScale::Rows(scales.to_vec1()?.into());
        let data = match precision {
            Precision::Int8 => {
                let words = panels(bytes, precision.words(size[1]), |rows, panel| {
                    int8::pack_quads(rows, size[1], panel);
                })?;
                Data::Quads(Arc::new(words.into()), scales)
            }
            _ => Data::Int8(Arc::new(interleaved(bytes)?.0.into()), scales),
        };
        Ok(Self::new(data, precision, size).rotated_by(rotated))
    }

    /// Packs a matrix that is held in blocks. They stay as they are, and are widened where they are
    /// multiplied, into f32 or, rounded once, bf16.
    ///
    /// Shape: `bytes` `[out, bytes of a row]` in U8.
    ///
    /// # Errors
    /// When rows are no whole blocks, or it is of another type or on another device.
    pub fn pack_blocks(bytes: &Tensor, form: BlockType, precision: Precision) -> Result<Self> {
        let inner = row_numbers(bytes, form)?;
        let (out, row) = bytes.dims2()?;
        if precision == Precision::Int8Blocks {
            let words = panels(bytes, precision.words(inner), |rows, panel| {
                int8::pack_blocks(rows, row, panel);
            })?;
            return Ok(Self::new(Data::Words(Arc::new(words.into())), precision, [out, inner]));
        }
        let panels = with_bytes(bytes, |rows| BlockPanels::pack(form, rows, row))?;
        Ok(Self::new(Data::Blocks(panels), precision, [out, inner]))
    }

    pub(crate) fn new(data: Data, precision: Precision, [out, inner]: [usize; 2]) -> Self {
        Self { data, precision, out, inner, rotated: None }
    }

    /// The same, of whose rows so many numbers were rotated together.
    pub(crate) fn rotated_by(self, rotated: Option<usize>) -> Self {
        Self { rotated, ..self }
    }

    /// Rows and columns, `[out, inner]`.
    pub fn dims(&self) -> [usize; 2] {
        [self.out, self.inner]
    }

    /// The type in which it is multiplied.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The memory that it takes.
    pub fn bytes(&self) -> usize {
        match &self.data {
            Data::Words(words) => words.len() * 4,
            Data::Quads(words, scale) => words.len() * 4 + scale.bytes(),
            Data::E4m3(bytes, scale) | Data::Int8(bytes, scale) => bytes.len() + scale.bytes(),
            Data::Blocks(panels) => panels.bytes(),
        }
    }

    /// What sums are multiplied by.
    pub(crate) fn scale(&self) -> SumScale<'_> {
        match &self.data {
            Data::Words(_) | Data::Blocks(_) => SumScale::One,
            Data::E4m3(_, scale) | Data::Int8(_, scale) | Data::Quads(_, scale) => scale.of_sums(),
        }
    }

    /// How many numbers of what it multiplies are rotated together first, if they are.
    pub(crate) fn rotated(&self) -> Option<usize> {
        self.rotated
    }

    /// Words of a row.
    pub(crate) fn depth(&self) -> usize {
        self.precision.words(self.inner)
    }

    /// Panels of 32 rows.
    pub(crate) fn panels(&self) -> usize {
        self.out.div_ceil(COLUMNS)
    }

    /// Some words of a panel, widened into `room` where they are held in a narrower type.
    pub(crate) fn panel<'a>(
        &'a self,
        index: usize,
        words: Range<usize>,
        room: &'a mut Vec<u32>,
    ) -> &'a [u32] {
        if let Data::Words(all) | Data::Quads(all, _) = &self.data {
            let start = index * self.depth();
            return &all[(start + words.start) * COLUMNS..(start + words.end) * COLUMNS];
        }
        let each = self.precision.in_word();
        let numbers = words.start * each..(words.end * each).min(self.inner);
        let narrow = |all: &'a [u8]| {
            let start = index * self.inner;
            &all[(start + numbers.start) * COLUMNS..(start + numbers.end) * COLUMNS]
        };
        room.resize(words.len() * COLUMNS, 0);
        match (&self.data, self.precision) {
            (Data::Words(_) | Data::Quads(..), _) => {}
            (Data::E4m3(all, _), Precision::F32) => e4m3::widen(narrow(all), room),
            (Data::E4m3(all, _), _) => {
                e4m3::widen_pairs(narrow(all), COLUMNS, room);
            }
            (Data::Int8(all, _), Precision::F32) => e4m3::widen_signed(narrow(all), room),
            (Data::Int8(all, _), _) => {
                e4m3::widen_signed_pairs(narrow(all), COLUMNS, room);
            }
            (Data::Blocks(panels), precision) => panels.widen(index, numbers, precision, room),
        }
        room
    }
}

/// Panels of words, `depth` of each row, each packed of the bytes of up to 32 rows.
fn panels(
    bytes: &Tensor,
    depth: usize,
    pack: impl Fn(&[u8], &mut [u32]) + Sync + Send,
) -> Result<Vec<u32>> {
    let (out, row) = bytes.dims2()?;
    let panel = depth * COLUMNS;
    with_bytes(bytes, |rows| {
        filled(out.div_ceil(COLUMNS) * panel, panel, |index, panel| {
            pack(&rows[index * COLUMNS * row..], panel);
        })
    })
}

/// The bytes of a matrix as `[panels, inner, 32]`, and its rows and columns.
fn interleaved(bytes: &Tensor) -> Result<(Vec<u8>, [usize; 2])> {
    let (out, inner) = bytes.dims2()?;
    let panel = inner * COLUMNS;
    let packed = with_bytes(bytes, |rows| {
        filled(out.div_ceil(COLUMNS) * panel, panel, |index, packed| {
            interleave(&rows[index * panel..], inner, packed);
        })
    })?;
    Ok((packed, [out, inner]))
}

/// What `read` makes of a matrix of bytes on the CPU, row after row.
fn with_bytes<R>(matrix: &Tensor, read: impl FnOnce(&[u8]) -> Result<R>) -> Result<R> {
    let (dtype, device) = (matrix.dtype(), matrix.device());
    if dtype != DType::U8 || !matches!(device, Device::Cpu) {
        bail!("a weight of {dtype:?} on {device:?}, expected U8 on the CPU");
    }
    let matrix = matrix.contiguous()?;
    let (storage, layout) = matrix.storage_and_layout();
    let Storage::Cpu(CpuStorage::U8(all)) = &*storage else {
        bail!("a CPU kernel was given {dtype:?} on {device:?}");
    };
    read(&all[layout.start_offset()..][..matrix.elem_count()])
}

impl fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = match &self.data {
            Data::Words(_) => "words",
            Data::E4m3(..) => "e4m3",
            Data::Int8(..) | Data::Quads(..) => "int8",
            Data::Blocks(panels) => panels.name(),
        };
        write!(f, "PackedMatrix({:?}, {held}, {:?})", self.dims(), self.precision)
    }
}
