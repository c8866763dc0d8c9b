//! Packing of matrices that are read piece by piece: while one thread waits for its rows, others
//! pack theirs.
//!
//! Pieces are taken in order by a few threads that do nothing else, since a thread that waits for a
//! disk is none that computes. Each has room for the rows of one piece; packed, they are written
//! where they stay. So only as many pieces as there are threads are ever held a second time.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::OnceLock;

use candle_core::{Error, bail};
use half::bf16;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::block_panels::{BlockPanels, pack_panel};
use crate::blocks::BlockType;
use crate::buffer::zeroed;
use crate::cancel::CancelFlag;
use crate::int8;
use crate::interleave::interleave;
use crate::micro::{COLUMNS, Precision};
use crate::number::{Number, Slice};
use crate::pack::Lines;
use crate::packed::{Data, PackedMatrix, WeightScale};
use crate::recycle::{Recycler, Unit};
use crate::{Result, tier};

/// Bytes of rows that are read at a time: with what is packed of them they fit into the cache of a
/// core.
const PIECE: usize = 1 << 19;
/// Threads that read and pack for each that computes: while some pack, the disk has others to
/// serve.
const READERS_EACH: usize = 2;
/// The most of them.
const MOST_READERS: usize = 8;

/// A matrix `[out, inner]` of which pieces are read, and where it is packed for which products.
///
/// `read(rows, values)` fills `values` with those rows, one after the other; it is called on
/// several threads at a time, about in order.
#[derive(Debug)]
pub struct PieceWise<'a> {
    /// Rows and columns.
    pub size: [usize; 2],
    /// In which type it is multiplied.
    pub precision: Precision,
    /// Where its memory comes from.
    pub memory: &'a Recycler,
}

impl PieceWise<'_> {
    /// Packs numbers of f32, as [`PackedMatrix::pack`].
    ///
    /// # Errors
    /// When `read` fails, there is no memory, or it is cancelled.
    pub fn pack_f32<E: From<Error> + Send>(
        &self,
        read: impl Fn(Range<usize>, &mut [f32]) -> std::result::Result<(), E> + Sync,
    ) -> std::result::Result<PackedMatrix, E> {
        self.pack(read, |rows| Slice::F32(rows))
    }

    /// Packs numbers of bf16, as [`PackedMatrix::pack`].
    ///
    /// # Errors
    /// As [`PieceWise::pack_f32`].
    pub fn pack_bf16<E: From<Error> + Send>(
        &self,
        read: impl Fn(Range<usize>, &mut [bf16]) -> std::result::Result<(), E> + Sync,
    ) -> std::result::Result<PackedMatrix, E> {
        self.pack(read, |rows| Slice::Bf16(rows))
    }

    /// Packs numbers of eight bits, as [`PackedMatrix::pack_e4m3`].
    ///
    /// # Errors
    /// As [`PieceWise::pack_f32`], and when there are not as many scales as rows.
    pub fn pack_e4m3<E: From<Error> + Send>(
        &self,
        scale: WeightScale,
        read: impl Fn(Range<usize>, &mut [u8]) -> std::result::Result<(), E> + Sync,
    ) -> std::result::Result<PackedMatrix, E> {
        scale.check(self.size[0])?;
        let data = Data::E4m3(self.memory.keep(self.interleaved(read)?).into(), scale);
        Ok(PackedMatrix::new(data, self.precision, self.size))
    }

    /// Packs whole numbers of eight bits, as [`PackedMatrix::pack_int8`].
    ///
    /// # Errors
    /// As [`PieceWise::pack_f32`], and when there are not as many scales as rows.
    pub fn pack_int8<E: From<Error> + Send>(
        &self,
        scales: Vec<f32>,
        rotated: Option<usize>,
        read: impl Fn(Range<usize>, &mut [u8]) -> std::result::Result<(), E> + Sync,
    ) -> std::result::Result<PackedMatrix, E> {
        let scales = WeightScale::Rows(scales.into());
        scales.check(self.size[0])?;
        let data = match self.precision {
            Precision::Int8 => {
                let inner = self.size[1];
                let panel = self.precision.words(inner) * COLUMNS;
                let words = self.filled(inner, panel, read, |rows: &[u8], panel: &mut [u32]| {
                    int8::pack_quads(rows, inner, panel);
                })?;
                Data::Quads(self.memory.keep(words).into(), scales)
            }
            _ => Data::Int8(self.memory.keep(self.interleaved(read)?).into(), scales),
        };
        Ok(PackedMatrix::new(data, self.precision, self.size).rotated_by(rotated))
    }

    /// Packs blocks, as [`PackedMatrix::pack_blocks`].
    ///
    /// # Errors
    /// As [`PieceWise::pack_f32`], and when rows are no whole blocks.
    pub fn pack_blocks<E: From<Error> + Send>(
        &self,
        form: BlockType,
        read: impl Fn(Range<usize>, &mut [u8]) -> std::result::Result<(), E> + Sync,
    ) -> std::result::Result<PackedMatrix, E> {
        let row = row_bytes(form, self.size[1])?;
        if self.precision == Precision::Int8Blocks {
            let panel = self.precision.words(self.size[1]) * COLUMNS;
            let words = self.filled(row, panel, read, |rows: &[u8], panel: &mut [u32]| {
                int8::pack_blocks(rows, row, panel);
            })?;
            let data = Data::Words(self.memory.keep(words).into());
            return Ok(PackedMatrix::new(data, self.precision, self.size));
        }
        let panel = BlockPanels::panel_bytes(form, row);
        let bytes = self.filled(row, panel, read, |rows: &[u8], panel: &mut [u8]| {
            pack_panel(form, rows, row, panel);
        })?;
        let data = Data::Blocks(BlockPanels::new(form, self.memory.keep(bytes), panel));
        Ok(PackedMatrix::new(data, self.precision, self.size))
    }

    fn pack<T: Number, E: From<Error> + Send>(
        &self,
        read: impl Fn(Range<usize>, &mut [T]) -> std::result::Result<(), E> + Sync,
        slice: impl Fn(&[T]) -> Slice<'_> + Sync,
    ) -> std::result::Result<PackedMatrix, E> {
        let (precision, inner) = (self.precision, self.size[1]);
        let panel = precision.words(inner) * COLUMNS;
        let words = self.filled(inner, panel, read, |rows: &[T], words: &mut [u32]| {
            let lines = Lines::rows(slice(rows), inner);
            lines.pack_panel(precision, rows.len() / inner, 0..inner, words);
        })?;
        let data = Data::Words(self.memory.keep(words).into());
        Ok(PackedMatrix::new(data, precision, self.size))
    }

    fn interleaved<E: From<Error> + Send>(
        &self,
        read: impl Fn(Range<usize>, &mut [u8]) -> std::result::Result<(), E> + Sync,
    ) -> std::result::Result<Vec<u8>, E> {
        let inner = self.size[1];
        self.filled(inner, inner * COLUMNS, read, |rows: &[u8], panel: &mut [u8]| {
            interleave(rows, inner, panel);
        })
    }

    /// Panels of `panel` elements, which begin as zeros, each packed of up to 32 rows of `row`
    /// elements.
    fn filled<T: Copy + Default + Send, P: Unit, E: From<Error> + Send>(
        &self,
        row: usize,
        panel: usize,
        read: impl Fn(Range<usize>, &mut [T]) -> std::result::Result<(), E> + Sync,
        pack: impl Fn(&[T], &mut [P]) + Sync,
    ) -> std::result::Result<Vec<P>, E> {
        let out = self.size[0];
        let length = out.div_ceil(COLUMNS) * panel;
        let mut packed: Vec<P> = self.memory.take(length)?;
        let panels = (PIECE / (row * size_of::<T>() * COLUMNS).max(1)).max(1);
        let cancel = CancelFlag::of_thread();
        let piece = |room: &mut Vec<T>, index: usize, part: &mut [MaybeUninit<P>]| {
            if cancel.is_raised() {
                return Ok(());
            }
            let first = index * panels * COLUMNS;
            let rows = first..(first + panels * COLUMNS).min(out);
            room.resize(rows.len() * row, T::default());
            read(rows, room)?;
            let panels = zeroed(part).chunks_exact_mut(panel);
            panels.zip(room.chunks(row * COLUMNS)).for_each(|(panel, rows)| pack(rows, panel));
            Ok::<(), E>(())
        };
        let spare = &mut packed.spare_capacity_mut()[..length];
        let mut pieces = spare.chunks_mut((panels * panel).max(1)).enumerate();
        match readers().filter(|_| pieces.len() > 1) {
            Some(readers) => readers.install(|| {
                let pieces = pieces.par_bridge();
                pieces.try_for_each_init(Vec::new, |room, (index, part)| piece(room, index, part))
            })?,
            None => {
                let mut room = Vec::new();
                pieces.try_for_each(|(index, part)| piece(&mut room, index, part))?;
            }
        }
        cancel.check()?;
        // SAFETY: the capacity is at least `length`, and the parts, which cover `..length`, were each
        // initialised by `zeroed`: one that was left out is an error of `piece` or of `check`.
        unsafe { packed.set_len(length) };
        Ok(packed)
    }
}

/// Bytes of a row of blocks.
fn row_bytes(form: BlockType, inner: usize) -> Result<usize> {
    match form.bytes_of(inner) {
        Some(bytes) => Ok(bytes),
        None => bail!("linear: rows of {inner} are no whole blocks of {}", form.name()),
    }
}

/// The threads that read and pack; none where the system starts none.
fn readers() -> Option<&'static ThreadPool> {
    static READERS: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let start = || {
        let threads = (READERS_EACH * tier::threads()).min(MOST_READERS);
        let pool = ThreadPoolBuilder::new().num_threads(threads);
        pool.thread_name(|index| format!("kino weights {index}")).build().ok()
    };
    READERS.get_or_init(start).as_ref()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::tier::tests::in_every_tier;

    const SIZES: [[usize; 2]; 7] =
        [[1, 7], [33, 5000], [100, 5000], [128, 4096], [31, 1], [70, 10_016], [0, 5]];

    fn pieces(size: [usize; 2], precision: Precision, memory: &Recycler) -> PieceWise<'_> {
        PieceWise { size, precision, memory }
    }

    /// All panels, widened.
    fn words(matrix: &PackedMatrix) -> Vec<u32> {
        let mut room = Vec::new();
        let panel = |index| matrix.panel(index, 0..matrix.depth(), &mut room).to_vec();
        (0..matrix.panels()).flat_map(panel).collect()
    }

    /// Gives rows of a matrix, and keeps in mind which were asked for.
    fn rows_of<'a, T: Copy + Sync>(
        values: &'a [T],
        row: usize,
        asked: &'a Mutex<Vec<Range<usize>>>,
    ) -> impl Fn(Range<usize>, &mut [T]) -> Result<()> + Sync + 'a {
        move |rows, out| {
            out.copy_from_slice(&values[rows.start * row..rows.end * row]);
            asked.lock().unwrap().push(rows);
            Ok(())
        }
    }

    /// Packed in pieces, the last of which may be no whole panel, or at once: the same. What lay in
    /// the memory before leaves no trace.
    #[track_caller]
    fn check(
        what: &str,
        whole: &Tensor,
        at_once: impl Fn(&Tensor) -> Result<PackedMatrix>,
        in_pieces: impl Fn(&Recycler, &Mutex<Vec<Range<usize>>>) -> Result<PackedMatrix>,
    ) {
        let (expected, memory) = (at_once(whole).unwrap(), Recycler::default());
        for _ in 0..3 {
            let asked = Mutex::default();
            let found = in_pieces(&memory, &asked).unwrap();
            assert!(words(&found) == words(&expected), "{what}");
            assert_eq!(
                (found.scale(), found.rotated(), found.dims(), found.bytes()),
                (expected.scale(), expected.rotated(), expected.dims(), expected.bytes()),
                "{what}"
            );
            let mut asked = asked.into_inner().unwrap();
            asked.sort_by_key(|rows| rows.start);
            let end = asked.iter().fold(0, |end, rows| {
                assert_eq!(rows.start, end, "{what}");
                rows.end
            });
            assert_eq!(end, found.dims()[0], "{what}");
        }
    }

    #[test]
    fn a_matrix_is_packed_in_pieces_as_it_is_at_once() {
        for ([out, inner], precision) in
            SIZES.iter().flat_map(|size| [Precision::F32, Precision::Bf16].map(|p| (*size, p)))
        {
            let (what, shape) = (format!("[{out}, {inner}], {precision:?}"), (out, inner));
            let cpu = &Device::Cpu;
            let wave = |i: usize| ((i * 7919) as f64 * 0.618_034).fract() as f32 - 0.5;
            let wide: Vec<f32> = (0..out * inner).map(wave).collect();
            let narrow: Vec<bf16> = wide.iter().map(|x| bf16::from_f32(*x)).collect();
            let bytes: Vec<u8> = (0..out * inner).map(|i| (i * 31 % 251) as u8 & 0x7e).collect();
            let scales: Vec<f32> = (0..out).map(|row| 0.5 + row as f32).collect();
            let tensor = Tensor::from_slice(&wide, shape, cpu).unwrap();
            let pack = |x: &Tensor| PackedMatrix::pack(x, precision);
            check(&what, &tensor, pack, |memory, asked| {
                pieces([out, inner], precision, memory).pack_f32(rows_of(&wide, inner, asked))
            });
            let tensor = tensor.to_dtype(DType::BF16).unwrap();
            check(&what, &tensor, pack, |memory, asked| {
                pieces([out, inner], precision, memory).pack_bf16(rows_of(&narrow, inner, asked))
            });
            let tensor = Tensor::from_slice(&bytes, shape, cpu).unwrap();
            for scale in [WeightScale::All(0.5), WeightScale::Rows(scales.clone().into())] {
                let pack = |x: &Tensor| PackedMatrix::pack_e4m3(x, scale.clone(), precision);
                check(&what, &tensor, pack, |memory, asked| {
                    pieces([out, inner], precision, memory)
                        .pack_e4m3(scale.clone(), rows_of(&bytes, inner, asked))
                });
            }
            let of_rows = Tensor::from_slice(&scales, out, cpu).unwrap();
            let pack = |x: &Tensor| PackedMatrix::pack_int8(x, &of_rows, Some(4), precision);
            check(&what, &tensor, pack, |memory, asked| {
                pieces([out, inner], precision, memory).pack_int8(
                    scales.clone(),
                    Some(4),
                    rows_of(&bytes, inner, asked),
                )
            });
        }
    }

    #[test]
    fn blocks_are_packed_in_pieces_as_they_are_at_once() {
        for form in BlockType::ALL {
            let (out, inner) = (133, form.numbers() * 40);
            let row = form.bytes_of(inner).unwrap();
            let bytes: Vec<u8> = (0..out * row).map(|i| (i * 7919 % 251) as u8 & 0xbb).collect();
            let tensor = Tensor::from_slice(&bytes, (out, row), &Device::Cpu).unwrap();
            let precision = Precision::F32;
            let pack = |x: &Tensor| PackedMatrix::pack_blocks(x, form, precision);
            check(form.name(), &tensor, pack, |memory, asked| {
                pieces([out, inner], precision, memory)
                    .pack_blocks(form, rows_of(&bytes, row, asked))
            });
        }
    }

    #[test]
    fn bytes_are_interleaved_the_same_in_every_tier() {
        for [rows, inner] in [[32, 48], [32, 37], [17, 16], [16, 33], [5, 100], [1, 1]] {
            let bytes: Vec<u8> = (0..rows * inner).map(|i| (i * 7919 % 251) as u8).collect();
            let mut expected = vec![0; inner * COLUMNS];
            for (row, column) in (0..rows).flat_map(|r| (0..inner).map(move |c| (r, c))) {
                expected[column * COLUMNS + row] = bytes[row * inner + column];
            }
            in_every_tier(|tier| {
                let mut found = vec![0; inner * COLUMNS];
                interleave(&bytes, inner, &mut found);
                assert!(found == expected, "{tier:?}: [{rows}, {inner}]");
            });
        }
    }

    #[test]
    fn what_cannot_be_read_does_not_fit_or_is_cancelled_is_an_error() {
        let memory = Recycler::default();
        let pieces = pieces([6400, 1000], Precision::F32, &memory);
        let failed =
            pieces.pack_e4m3(WeightScale::All(1.0), |rows: Range<usize>, _: &mut [u8]| match rows
                .contains(&1000)
            {
                true => bail!("the disk is gone"),
                false => Ok(()),
            });
        assert!(failed.unwrap_err().to_string().contains("the disk is gone"));
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let guard = crate::cancelled_by(Arc::new(move || asked.load(Ordering::Relaxed)));
        let failed = pieces.pack_f32(|_, _| {
            stop.store(true, Ordering::Relaxed);
            Ok::<(), Error>(())
        });
        assert!(crate::is_cancelled(&failed.unwrap_err()));
        drop(guard);
        let nothing = |_: Range<usize>, _: &mut [u8]| Ok::<(), Error>(());
        assert!(pieces.pack_int8(vec![1.0; 3], None, nothing).is_err());
        assert!(pieces.pack_e4m3(WeightScale::Rows([1.0; 3].into()), nothing).is_err());
        assert!(pieces.pack_blocks(BlockType::Q8_0, nothing).is_err());
    }
}
