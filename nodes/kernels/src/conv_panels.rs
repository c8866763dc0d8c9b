//! Convolution by packed weights: the numbers of a pixel and of its neighbours in a row are one run
//! of memory, which the innermost product reads where it lies. Nothing is copied or packed but the
//! weights, once. Where channels are few, [`direct`] computes; kernels of 3×3 in f32 may take fewer
//! products ([`winograd`]).

use candle_core::{DType, Tensor};
use half::bf16;

use crate::Result;
use crate::buffer::with_scratch;
use crate::conv_output::{Output, Rows};
use crate::conv_weights::{ConvInput, ConvWeights, PackedWeights};
use crate::dense::{Dense, Numbers, tensor};
use crate::direct::{self, TapRow};
use crate::math::LANES;
use crate::matrix::{TileMut, even_cuts};
use crate::micro::DEPTH;
use crate::micro::{COLUMNS, ROWS, multiply_rows};
use crate::number::{Number, Slice};
use crate::winograd::{self, Channels, Tap};

/// Pixels of a task of [`winograd`], about.
const WINOGRAD_PIXELS: usize = 512;

/// The frames of a part as its weights read them, and what it keeps of the chunk before.
pub(crate) struct Frames {
    frames: Dense,
    past: Option<Dense>,
}

impl Frames {
    /// Makes them contiguous. Channels are filled up with zeros to whole words, as those of the
    /// weights are.
    pub(crate) fn new(input: &ConvInput, weights: &ConvWeights) -> Result<Self> {
        let dense = |frames: &Tensor| match weights.word_channels() - weights.channels()[0] {
            0 => Dense::new(frames),
            missing => Dense::new(&frames.pad_with_zeros(3, 0, missing)?),
        };
        Ok(Self { frames: dense(input.frames)?, past: input.past.map(dense).transpose()? })
    }

    fn read(&self) -> [Option<Numbers<'_>>; 2] {
        [self.past.as_ref().map(Dense::numbers), Some(self.frames.numbers())]
    }
}

/// One of the convolutions whose sum is computed.
struct Part<'a> {
    /// The frames under the kernel; `None` is a frame of zeros.
    frames: Vec<Option<Slice<'a>>>,
    weights: &'a PackedWeights,
    kernel: [usize; 3],
    stride: [usize; 3],
    cin: usize,
    /// Pixels of an input row.
    width: usize,
}

/// The sum of convolutions of frames of one type, f32 or bf16, which is that of the result, by
/// weights packed for it; `size` is that of the result without padding.
pub(crate) fn conv_sum(
    parts: &[(ConvInput, &ConvWeights)],
    packed: &[&PackedWeights],
    output: &Output,
    (dtype, size): (DType, [usize; 4]),
) -> Result<Tensor> {
    let frames = parts.iter().map(|(input, weights)| Frames::new(input, weights));
    let frames = frames.collect::<Result<Vec<_>>>()?;
    let numbers: Vec<_> = frames.iter().map(Frames::read).collect();
    let parts = parts.iter().zip(packed).zip(&numbers);
    let parts = parts.map(|(((input, weights), packed), numbers)| {
        let (_, h, w, _) = input.frames.dims4()?;
        let cin = weights.word_channels();
        let given = numbers.iter().flatten();
        let given = given.flat_map(|numbers| numbers.slice().cut(h * w * cin));
        Ok(Part {
            frames: std::iter::repeat_n(None, input.zeros).chain(given.map(Some)).collect(),
            weights: packed,
            kernel: weights.kernel(),
            stride: weights.stride(),
            cin,
            width: w,
        })
    });
    let job = Job { parts: parts.collect::<Result<_>>()?, output };
    let [top, bottom, left, right] = output.padding;
    let whole = [size[0], top + size[1] + bottom, left + size[2] + right, size[3]];
    match dtype {
        DType::BF16 => tensor(job.run::<bf16>(size)?, &whole),
        _ => tensor(job.run::<f32>(size)?, &whole),
    }
}

/// What the tasks of one sum share.
struct Job<'a> {
    parts: Vec<Part<'a>>,
    output: &'a Output<'a>,
}

impl Job<'_> {
    fn run<T: Number>(&self, size: [usize; 4]) -> Result<Vec<T>> {
        let (output, width) = (self.output, self.output.width);
        let unpadded = |part: &Part| part.weights.padded.is_none() || part.stride[1..] != [1, 1];
        if width >= direct::LEAST_WIDTH && !self.parts.iter().any(unpadded) {
            let few = output.rows_per_task(size[1]);
            return output.filled(size, (few, 1), |rows, tile| self.rows_directly(rows, tile));
        }
        if self.parts.iter().all(|part| part.weights.winograd.is_some()) {
            let rows =
                (WINOGRAD_PIXELS / width).next_multiple_of(winograd::TILE).max(winograd::TILE);
            let cut = (rows, winograd::TILE);
            return output.filled(size, cut, |rows, tile| self.rows_by_winograd(rows, tile));
        }
        let few = output.rows_per_task(size[1]);
        output.filled(size, (few, 1), |rows, tile| self.rows(rows, tile))
    }

    /// Computes some whole rows of a frame by [`winograd`].
    fn rows_by_winograd<T: Number>(&self, rows: &Rows, mut tile: TileMut<T>) {
        let &Output { width, cout, .. } = self.output;
        let taps: Vec<Tap> = self.parts.iter().flat_map(|part| part.taps(rows.frame)).collect();
        let most_in = taps.iter().map(|tap| tap.cin).max().unwrap_or(1);
        let channels = Channels { most_in, out: cout };
        let across = width.div_ceil(winograd::TILE);
        let corner = |index: usize| {
            [rows.rows.start + index / across * winograd::TILE, index % across * winograd::TILE]
        };
        let all = rows.rows.len().div_ceil(winograd::TILE) * across;
        let corners: Vec<[usize; 2]> = (0..all).map(corner).collect();
        with_scratch(channels.room() + rows.rows.len() * width * cout, |room| {
            let (lines, room) = room.split_at_mut(rows.rows.len() * width * cout);
            for corners in corners.chunks(channels.tiles()) {
                let sums = winograd::sums(&taps, corners, channels, room);
                for (index, [y, x]) in corners.iter().enumerate() {
                    let down = y - rows.rows.start;
                    let lines = lines[down * width * cout..].chunks_mut(width * cout);
                    for (row, line) in lines.take(winograd::TILE).enumerate() {
                        sums.row(index, row, &mut line[x * cout..], cout);
                    }
                }
            }
            for (line, row) in lines.chunks_exact_mut(width * cout).zip(rows.rows.clone()) {
                self.output.finish(rows, row, line);
                T::narrow(line, self.output.line(&mut tile, row));
            }
        });
    }

    /// Computes some whole rows of a frame by [`direct`].
    fn rows_directly<T: Number>(&self, rows: &Rows, mut tile: TileMut<T>) {
        let &Output { width, cout, .. } = self.output;
        let lanes = cout.next_multiple_of(LANES);
        let mut taps = Vec::new();
        for row in rows.rows.clone() {
            taps.clear();
            self.parts.iter().for_each(|part| part.tap_rows(rows.frame, row, lanes, &mut taps));
            with_scratch(width * cout, |sums| {
                direct::row(&taps, lanes, sums, cout);
                self.output.finish(rows, row, sums);
                T::narrow(sums, self.output.line(&mut tile, row));
            });
        }
    }

    /// Computes some whole rows of a frame.
    fn rows<T: Number>(&self, rows: &Rows, mut tile: TileMut<T>) {
        let &Output { width, cout, .. } = self.output;
        let step = cout.next_multiple_of(COLUMNS);
        with_scratch(rows.rows.len() * width * step, |sums| {
            for panel in 0..step / COLUMNS {
                self.panel(panel, rows, (&mut *sums, step));
            }
            for (sums, row) in sums.chunks_exact_mut(width * step).zip(rows.rows.clone()) {
                if step > cout {
                    (1..width).for_each(|x| sums.copy_within(x * step..x * step + cout, x * cout));
                }
                let sums = &mut sums[..width * cout];
                self.output.finish(rows, row, sums);
                T::narrow(sums, self.output.line(&mut tile, row));
            }
        });
    }

    /// The sums of the channels of a panel, `step` apart from pixel to pixel.
    fn panel(&self, panel: usize, rows: &Rows, (sums, step): (&mut [f32], usize)) {
        let sums = &mut sums[panel * COLUMNS..];
        let (mut started, mut room) = (false, Vec::new());
        for part in &self.parts {
            let [down, high, _] = part.kernel;
            for (kt, kh) in (0..down).flat_map(|kt| (0..high).map(move |kh| (kt, kh))) {
                let Some(frame) = part.frames[rows.frame * part.stride[0] + kt] else { continue };
                let run = part.run_words();
                for words in even_cuts(0..run, DEPTH, 1) {
                    let tap = (kt * high + kh) * run;
                    let of_panel = tap + words.start..tap + words.end;
                    let weights = part.weights.matrix.panel(panel, of_panel, &mut room);
                    let place = (kh, words.start * part.weights.matrix.precision().in_word());
                    part.add(frame, place, weights, rows, (&mut *sums, step, started));
                    started = true;
                }
            }
        }
        if !started {
            sums.chunks_mut(step).for_each(|sums| sums[..COLUMNS].fill(0.0));
        }
    }
}

impl<'a> Part<'a> {
    /// What [`direct`] reads for row `row` of frame `frame` of the result.
    fn tap_rows(&self, frame: usize, row: usize, lanes: usize, taps: &mut Vec<TapRow<'a>>) {
        let [down, high, wide] = self.kernel;
        let size = wide * self.cin * lanes;
        for kt in 0..down {
            let place = frame * self.stride[0] + kt;
            let weights = self.weights.padded.as_deref();
            let (Some(Slice::F32(frame)), Some(weights)) = (self.frames[place], weights) else {
                continue;
            };
            taps.extend((0..high).map(|kh| TapRow {
                input: &frame[(row + kh) * self.width * self.cin..],
                weights: &weights[(kt * high + kh) * size..][..size],
                step: self.cin,
            }));
        }
    }

    /// What [`winograd`] reads for frame `frame` of the result.
    fn taps(&self, frame: usize) -> impl Iterator<Item = Tap<'a>> {
        let first = frame * self.stride[0];
        let frames = self.frames[first..first + self.kernel[0]].iter().enumerate();
        frames.filter_map(|(tap, frame)| match (frame, &self.weights.winograd) {
            (Some(Slice::F32(frame)), Some(weights)) => {
                let size = [self.width, frame.len() / self.cin / self.width];
                Some(Tap { frame, weights, tap, cin: self.cin, size })
            }
            _ => None,
        })
    }

    /// Words of what a row of the kernel reads for one pixel.
    fn run_words(&self) -> usize {
        self.weights.matrix.precision().words(self.kernel[2] * self.cin)
    }

    /// Adds a part of one row of the kernel, from number `first` on, to the sums of all pixels.
    fn add(
        &self,
        frame: Slice,
        (kh, first): (usize, usize),
        weights: &[u32],
        Rows { rows, .. }: &Rows,
        (sums, step, accumulate): (&mut [f32], usize, bool),
    ) {
        let [_, down, right] = self.stride;
        let pixels = sums.len().div_ceil(step) / rows.len();
        for (index, row) in rows.clone().enumerate() {
            let line = (row * down + kh) * self.width * self.cin + first;
            for block in even_cuts(0..pixels, ROWS, 1) {
                let (x, count) = (block.start, block.len());
                let inputs = frame.skip(line + x * right * self.cin);
                let sums = &mut sums[(index * pixels + x) * step..];
                multiply_rows(count, (inputs, right * self.cin), weights, (sums, step), accumulate);
            }
        }
    }
}
