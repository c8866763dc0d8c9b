//! The matrix of a linear layer as products read it: packed once, when it is loaded.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, DType, Device, Storage, Tensor, bail};
use rayon::prelude::*;

use crate::Result;
use crate::buffer::filled;
use crate::cancel::CancelFlag;
use crate::dense::Dense;
use crate::e4m3;
use crate::micro::{COLUMNS, Precision};
use crate::pack::Lines;

/// A matrix `[out, inner]` in panels of 32 rows, each interleaved along its rows; the last panel is
/// filled with zeros. It takes as much memory as its numbers, and is cheap to clone.
#[derive(Clone)]
pub struct PackedMatrix {
    data: Data,
    precision: Precision,
    out: usize,
    inner: usize,
}

#[derive(Clone)]
enum Data {
    /// `[panels, words of a row, 32]`
    Words(Arc<Vec<u32>>),
    /// `[panels, inner, 32]`, a byte a number (E4M3), and what each number is multiplied by.
    E4m3(Arc<Vec<u8>>, f32),
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
            lines.skip(first).pack(precision, count, 0..inner, COLUMNS, words);
        })?;
        Ok(Self { data: Data::Words(Arc::new(words)), precision, out, inner })
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
        let packed = (0..heads).into_par_iter().map(|head| {
            let lines = lines(head);
            let mut words = vec![0; out.div_ceil(COLUMNS) * panel];
            for (index, words) in words.chunks_exact_mut(panel.max(1)).enumerate() {
                if cancel.is_raised() {
                    break;
                }
                let first = index * COLUMNS;
                let count = COLUMNS.min(out - first);
                lines.skip(first).pack(precision, count, 0..inner, COLUMNS, words);
            }
            Self { data: Data::Words(Arc::new(words)), precision, out, inner }
        });
        let packed = packed.collect();
        cancel.check()?;
        Ok(packed)
    }

    /// Packs a matrix whose numbers are held as E4M3, each times `scale`. They stay so, and are
    /// widened where they are multiplied.
    ///
    /// Shape: `bytes` `[out, inner]` in U8.
    ///
    /// # Errors
    /// When it is no matrix, of another type, or on another device.
    pub fn pack_e4m3(bytes: &Tensor, scale: f32, precision: Precision) -> Result<Self> {
        let (out, inner) = bytes.dims2()?;
        if bytes.dtype() != DType::U8 || !matches!(bytes.device(), Device::Cpu) {
            bail!(
                "a weight of {:?} on {:?}, expected U8 on the CPU",
                bytes.dtype(),
                bytes.device()
            );
        }
        let bytes = bytes.contiguous()?;
        let (storage, layout) = bytes.storage_and_layout();
        let Storage::Cpu(CpuStorage::U8(all)) = &*storage else {
            bail!("a CPU kernel was given {:?} on {:?}", bytes.dtype(), bytes.device());
        };
        let rows = &all[layout.start_offset()..][..out * inner];
        let panel = inner * COLUMNS;
        let packed = filled(out.div_ceil(COLUMNS) * panel, panel, |index, packed| {
            let first = index * COLUMNS;
            let rows = rows[first * inner..].chunks_exact(inner.max(1)).take(COLUMNS);
            for (column, row) in rows.enumerate() {
                let places = packed[column..].iter_mut().step_by(COLUMNS);
                places.zip(row).for_each(|(place, byte)| *place = *byte);
            }
        })?;
        Ok(Self { data: Data::E4m3(Arc::new(packed), scale), precision, out, inner })
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
            Data::E4m3(bytes, _) => bytes.len(),
        }
    }

    /// What sums are multiplied by.
    pub(crate) fn scale(&self) -> f32 {
        match self.data {
            Data::Words(_) => 1.0,
            Data::E4m3(_, scale) => scale,
        }
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
        match &self.data {
            Data::Words(all) => {
                let start = index * self.depth();
                &all[(start + words.start) * COLUMNS..(start + words.end) * COLUMNS]
            }
            Data::E4m3(all, _) => {
                let (start, each) = (index * self.inner, self.precision.in_word());
                let end = (words.end * each).min(self.inner);
                let bytes = &all[(start + words.start * each) * COLUMNS..(start + end) * COLUMNS];
                room.resize(words.len() * COLUMNS, 0);
                match self.precision {
                    Precision::F32 => e4m3::widen(bytes, room),
                    Precision::Bf16 => e4m3::widen_pairs(bytes, COLUMNS, room),
                }
                room
            }
        }
    }
}

impl fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = match self.data {
            Data::Words(_) => "words",
            Data::E4m3(..) => "e4m3",
        };
        write!(f, "PackedMatrix({:?}, {held}, {:?})", self.dims(), self.precision)
    }
}
