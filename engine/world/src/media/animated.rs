//! Animated GIF, WebP and PNG, read: when each frame is shown, from what stands before each, and
//! frames as they are seen, each drawn over the ones before. Colours of a profile are brought to
//! those of frames; what stays transparent shows a background.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::ControlFlow;

use super::colour::room;
use super::demux::Refused;
use super::timing::Timing;
use crate::InputFile;
use crate::image::{self, MAX_PIXELS, of_icc, png_profile};
use crate::png_chunks::{PngChunks, PngSource};
use crate::profile::{self, ColorProfile};

/// The most frames of an animation.
const MOST_FRAMES: usize = 1 << 20;
/// The most bytes that a decoder may take.
const MOST_MEMORY: usize = 2 << 30;

/// A format of animations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Animation {
    Gif,
    WebP,
    Png,
}

/// Size and times.
pub(super) struct Animated {
    pub(super) size: (usize, usize),
    pub(super) timing: Timing,
}

/// Takes the frames that are wanted, `[height, width, 3]` in 0…1; says whether to go on.
pub(super) type Each<'e> = dyn FnMut(usize, Vec<f32>) -> ControlFlow<()> + 'e;

/// What becomes of the colours of a file.
#[derive(Clone, Copy)]
pub(super) struct Shown<'s> {
    pub(super) profile: Option<&'s ColorProfile>,
    /// What is seen through what is transparent, in 0…1.
    pub(super) background: [f32; 3],
}

impl Shown<'_> {
    /// Pixels as frames have them, of RGBA in 0…1 or of RGB.
    fn rgb(
        self,
        count: usize,
        pixels: impl Iterator<Item = [f32; 4]> + Clone,
    ) -> io::Result<Vec<f32>> {
        let mut rgb = room(count * 3)?;
        rgb.extend(pixels.clone().flat_map(|[r, g, b, _]| [r, g, b]));
        if let Some(profile) = self.profile {
            profile.convert(&mut rgb);
        }
        for (to, [.., alpha]) in rgb.chunks_exact_mut(3).zip(pixels) {
            over(to, alpha, self.background);
        }
        Ok(rgb)
    }
}

/// Mixes encoded values of a pixel with those behind it, as browsers and editors do.
pub(super) fn over(pixel: &mut [f32], alpha: f32, background: [f32; 3]) {
    if alpha < 1.0 {
        let mixed = pixel.iter_mut().zip(background);
        mixed.for_each(|(value, behind)| *value = *value * alpha + behind * (1.0 - alpha));
    }
}

fn early(error: io::Error) -> Refused {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it ends early".to_owned(),
        _ => format!("it cannot be read: {error}"),
    }
}

impl Animation {
    /// Size and times, from what stands before each frame; none where it is a still image.
    pub(super) fn scan(self, file: &mut InputFile) -> Result<Option<Animated>, Refused> {
        let mut from = begun(file)?;
        let scanned = match self {
            Animation::Gif => gif_times(&mut from).map(Some),
            Animation::WebP => webp_times(&mut from),
            Animation::Png => png_times(&mut from),
        }?;
        let Some(Animated { size: (width, height), timing }) = &scanned else { return Ok(None) };
        if *width == 0 || *height == 0 {
            return Err(format!("its frames are of {width}x{height}: there is nothing to see"));
        }
        if width.saturating_mul(*height) > MAX_PIXELS {
            return Err(format!(
                "it claims frames of {width}x{height}; at most {MAX_PIXELS} pixels are read"
            ));
        }
        match timing.ticks.len() {
            0 => Err("it has no frames".to_owned()),
            count if count >= MOST_FRAMES => {
                Err(format!("it has more frames than {MOST_FRAMES}, the most that are read"))
            }
            _ => Ok(scanned),
        }
    }

    /// From its colours to those of frames; none where they are those.
    pub(super) fn profile(
        self,
        file: &mut InputFile,
    ) -> Result<Result<Option<ColorProfile>, profile::Refused>, Refused> {
        Ok(match self {
            Animation::Gif => {
                let mut decoder = gif_decoder(begun(file)?)?;
                // It stands before the first picture.
                decoder.next_frame_info().map_err(gif_damaged)?;
                of_icc(decoder.icc_profile().map(<[u8]>::to_vec), false)
            }
            Animation::WebP => {
                let decoder = image_webp::WebPDecoder::new(begun(file)?);
                let mut decoder = decoder.map_err(webp_damaged)?;
                decoder.set_memory_limit(MOST_MEMORY);
                of_icc(decoder.icc_profile().map_err(webp_damaged)?, false)
            }
            Animation::Png => {
                let (chunks, decoder) = png_decoder(file)?;
                png_profile(&decoder.read_info().map_err(png_damaged)?, chunks.icc)
            }
        })
    }

    /// Draws the frames up to `last`, and gives those from `first` on.
    pub(super) fn draw(
        self,
        file: &mut InputFile,
        (first, last): (usize, usize),
        colours: Shown<'_>,
        each: &mut Each<'_>,
    ) -> Result<(), Refused> {
        let mut index = 0;
        let mut shown = |rgb: &mut dyn FnMut() -> io::Result<Vec<f32>>| {
            index += 1;
            if index > first && each(index - 1, rgb().map_err(early)?).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            Ok(if index > last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        match self {
            Animation::Gif => draw_gif(begun(file)?, colours, &mut shown),
            Animation::WebP => draw_webp(begun(file)?, colours, &mut shown),
            Animation::Png => draw_png(png_decoder(file)?.1, colours, &mut shown),
        }
    }
}

type Buffered<'f> = BufReader<&'f mut InputFile>;

/// A file from its beginning on.
fn begun(file: &mut InputFile) -> Result<Buffered<'_>, Refused> {
    file.seek(SeekFrom::Start(0)).map_err(early)?;
    Ok(BufReader::new(file))
}

/// Takes one frame after another, each made only if it is wanted.
type Give<'s> =
    dyn FnMut(&mut dyn FnMut() -> io::Result<Vec<f32>>) -> Result<ControlFlow<()>, Refused> + 's;

/// Bytes, of which there must be as many.
fn take<const N: usize>(from: &mut impl Read) -> Result<[u8; N], Refused> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).map_err(early)?;
    Ok(bytes)
}

fn skip<R: Read + Seek>(from: &mut BufReader<R>, bytes: u64) -> Result<(), Refused> {
    let bytes = i64::try_from(bytes).map_err(|_| "it ends early".to_owned())?;
    from.seek_relative(bytes).map_err(early)
}

/// Whether nothing is left.
fn is_at_end<R: Read>(from: &mut BufReader<R>) -> Result<bool, Refused> {
    Ok(io::BufRead::fill_buf(from).map_err(early)?.is_empty())
}

/// GIF 89a §15 to §27. Players show what is to be shown for 1/100 second or less for 1/10.
fn gif_times<R: Read + Seek>(from: &mut BufReader<R>) -> Result<Animated, Refused> {
    let head: [u8; 13] = take(from)?;
    let short = |low: u8, high: u8| u16::from_le_bytes([low, high]);
    let size = (short(head[6], head[7]).into(), short(head[8], head[9]).into());
    let table = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    skip(from, table(head[10]))?;
    let (mut delays, mut delay) = (Vec::new(), 10);
    loop {
        // Some files lack the mark of the end.
        if is_at_end(from)? && !delays.is_empty() {
            break;
        }
        match take::<1>(from)? {
            [0x21] => {
                let [label] = take(from)?;
                if label == 0xf9 {
                    let control: [u8; 6] = take(from)?;
                    delay = match short(control[2], control[3]) {
                        0 | 1 => 10,
                        delay => u32::from(delay),
                    };
                    skip(from, u64::from(control[0]).saturating_sub(5))?;
                    if control[5] != 0 {
                        skip(from, u64::from(control[5]))?;
                        skip_blocks(from)?;
                    }
                } else {
                    skip_blocks(from)?;
                }
            }
            [0x2c] => {
                let image: [u8; 9] = take(from)?;
                skip(from, table(image[8]) + 1)?;
                skip_blocks(from)?;
                delays.push(delay);
                delay = 10;
                if delays.len() >= MOST_FRAMES {
                    break;
                }
            }
            [0x3b] => break,
            [other] => return Err(format!("it is damaged: a block of kind {other:#04x}")),
        }
    }
    Ok(Animated { size, timing: Timing::of_delays(&delays, 100) })
}

fn skip_blocks<R: Read + Seek>(from: &mut BufReader<R>) -> Result<(), Refused> {
    loop {
        match take::<1>(from)? {
            [0] => return Ok(()),
            [length] => skip(from, length.into())?,
        }
    }
}

/// RFC 9649 §2.7.
fn webp_times<R: Read + Seek>(from: &mut BufReader<R>) -> Result<Option<Animated>, Refused> {
    let _: [u8; 12] = take(from)?;
    let (mut size, mut delays) = (None, Vec::new());
    while !is_at_end(from)? && delays.len() < MOST_FRAMES {
        let head: [u8; 8] = take(from)?;
        let length = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
        let padded = length + length % 2;
        let three = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
        match &head[..4] {
            b"VP8X" if length >= 10 => {
                let about: [u8; 10] = take(from)?;
                if about[0] & 2 == 0 {
                    return Ok(None);
                }
                let side = |at: usize| three(&about[at..]) as usize + 1;
                size = Some((side(4), side(7)));
                skip(from, padded - 10)?;
            }
            b"ANMF" if length >= 16 => {
                let frame: [u8; 16] = take(from)?;
                delays.push(match three(&frame[12..]) {
                    0 => 100,
                    delay => delay,
                });
                skip(from, padded - 16)?;
            }
            _ => skip(from, padded)?,
        }
        if size.is_none() {
            return Ok(None);
        }
    }
    Ok(size.map(|size| Animated { size, timing: Timing::of_delays(&delays, 1000) }))
}

/// PNG, third edition, §11.3.6.
fn png_times<R: Read + Seek>(from: &mut BufReader<R>) -> Result<Option<Animated>, Refused> {
    let _: [u8; 8] = take(from)?;
    let (mut size, mut delays, mut is_animated) = ((0, 0), Vec::new(), false);
    while !is_at_end(from)? && delays.len() < MOST_FRAMES {
        let head: [u8; 8] = take(from)?;
        let length = u64::from(u32::from_be_bytes([head[0], head[1], head[2], head[3]]));
        let long = |bytes: &[u8]| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        match &head[4..] {
            b"IHDR" if length == 13 => {
                let header: [u8; 13] = take(from)?;
                size = (long(&header) as usize, long(&header[4..]) as usize);
                skip(from, 4)?;
            }
            b"acTL" => {
                is_animated = true;
                skip(from, length + 4)?;
            }
            b"IDAT" if !is_animated => return Ok(None),
            b"fcTL" if length == 26 => {
                let control: [u8; 26] = take(from)?;
                let short = |at: usize| u16::from_be_bytes([control[at], control[at + 1]]);
                delays.push((short(20), if short(22) == 0 { 100 } else { short(22) }));
                skip(from, 4)?;
            }
            b"IEND" => break,
            _ => skip(from, length + 4)?,
        }
    }
    if !is_animated {
        return Ok(None);
    }
    // A delay of nothing is 1/10 second, as in the other formats.
    let delays: Vec<(u32, u32)> = delays
        .into_iter()
        .map(|(ticks, of)| if ticks == 0 { (1, 10) } else { (ticks.into(), of.into()) })
        .collect();
    let timing = match delays.first() {
        Some(&(ticks, of)) if delays.iter().all(|delay| *delay == (ticks, of)) => {
            Timing::of_delays(&vec![ticks; delays.len()], of)
        }
        _ => {
            let micros = |(ticks, of): &(u32, u32)| {
                (f64::from(*ticks) / f64::from(*of) * 1e6).round().max(1.0) as u32
            };
            Timing::of_delays(&delays.iter().map(micros).collect::<Vec<_>>(), 1_000_000)
        }
    };
    Ok(Some(Animated { size, timing }))
}

/// What is seen: RGBA in 0…1.
struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<f32>,
}

/// A rectangle of a canvas: left, top, width, height.
type Place = [usize; 4];

/// What becomes of a frame's place before the next one is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dispose {
    Keep,
    Clear,
    Restore,
}

impl Canvas {
    fn new(width: usize, height: usize) -> io::Result<Self> {
        let mut pixels = room(width * height * 4)?;
        pixels.resize(width * height * 4, 0.0);
        Ok(Canvas { width, height, pixels })
    }

    /// The rows of a place, each `4·width` numbers.
    fn rows(&mut self, [left, top, width, height]: Place) -> impl Iterator<Item = &mut [f32]> {
        let stride = self.width * 4;
        let rows = self.pixels.chunks_exact_mut(stride).skip(top).take(height);
        rows.map(move |row| &mut row[left * 4..(left + width) * 4])
    }

    fn holds(&self, [left, top, width, height]: Place) -> bool {
        let fits = |begin: usize, length: usize, side: usize| {
            begin.checked_add(length).is_some_and(|end| end <= side)
        };
        fits(left, width, self.width) && fits(top, height, self.height)
    }

    fn clear(&mut self, place: Place) {
        self.rows(place).for_each(|row| row.fill(0.0));
    }

    /// Draws pixels, RGBA, over what is there or instead of it.
    fn draw(&mut self, place: Place, pixels: impl Iterator<Item = [f32; 4]>, over: bool) {
        let mut pixels = pixels;
        for row in self.rows(place) {
            for (to, new) in row.chunks_exact_mut(4).zip(&mut pixels) {
                let behind = if over { (1.0 - new[3]) * to[3] } else { 0.0 };
                let alpha = new[3] + behind;
                if behind == 0.0 {
                    to.copy_from_slice(&new);
                } else {
                    (0..3).for_each(|c| to[c] = (new[c] * new[3] + to[c] * behind) / alpha);
                    to[3] = alpha;
                }
            }
        }
    }

    /// What is seen.
    fn rgb(&self, colours: Shown<'_>) -> io::Result<Vec<f32>> {
        colours.rgb(self.width * self.height, self.pixels.as_chunks::<4>().0.iter().copied())
    }

    /// What a place is to be, should it be restored.
    fn saved(&self, dispose: Dispose) -> io::Result<Option<Vec<f32>>> {
        if dispose != Dispose::Restore {
            return Ok(None);
        }
        let mut copy = room(self.pixels.len())?;
        copy.extend_from_slice(&self.pixels);
        Ok(Some(copy))
    }

    fn dispose(&mut self, place: Place, dispose: Dispose, saved: Option<Vec<f32>>) {
        match (dispose, saved) {
            (Dispose::Clear, _) => self.clear(place),
            (Dispose::Restore, Some(saved)) => self.pixels = saved,
            _ => {}
        }
    }
}

const OUTSIDE: &str = "it is damaged: a frame of it lies outside of the picture";

fn gif_damaged(error: gif::DecodingError) -> Refused {
    format!("it is damaged or ends early ({error})")
}

fn gif_decoder(from: Buffered<'_>) -> Result<gif::Decoder<Buffered<'_>>, Refused> {
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(gif::ColorOutput::RGBA);
    let limit = std::num::NonZeroU64::new(MOST_MEMORY as u64);
    options.set_memory_limit(limit.map_or(gif::MemoryLimit::Unlimited, gif::MemoryLimit::Bytes));
    options.read_info(from).map_err(gif_damaged)
}

fn draw_gif(from: Buffered<'_>, colours: Shown<'_>, shown: &mut Give<'_>) -> Result<(), Refused> {
    let mut decoder = gif_decoder(from)?;
    let mut canvas = Canvas::new(decoder.width().into(), decoder.height().into()).map_err(early)?;
    while let Some(frame) = decoder.read_next_frame().map_err(gif_damaged)? {
        let place = [frame.left, frame.top, frame.width, frame.height].map(usize::from);
        if !canvas.holds(place) {
            return Err(OUTSIDE.to_owned());
        }
        let dispose = match frame.dispose {
            gif::DisposalMethod::Background => Dispose::Clear,
            gif::DisposalMethod::Previous => Dispose::Restore,
            gif::DisposalMethod::Any | gif::DisposalMethod::Keep => Dispose::Keep,
        };
        let saved = canvas.saved(dispose).map_err(early)?;
        let pixels = frame.buffer.chunks_exact(4);
        let unit = |byte: u8| f32::from(byte) / 255.0;
        canvas.draw(place, pixels.map(|p| [unit(p[0]), unit(p[1]), unit(p[2]), unit(p[3])]), true);
        if shown(&mut || canvas.rgb(colours))?.is_break() {
            return Ok(());
        }
        canvas.dispose(place, dispose, saved);
    }
    Err("it ends early".to_owned())
}

fn webp_damaged(error: image_webp::DecodingError) -> Refused {
    format!("it is damaged or ends early ({error})")
}

/// A chunk of a RIFF file.
fn riff(name: &[u8], data: &[u8]) -> Vec<u8> {
    let mut chunk = [name, &(data.len() as u32).to_le_bytes(), data].concat();
    chunk.resize(8 + data.len().next_multiple_of(2), 0);
    chunk
}

/// The picture of a frame of a width and height, out of its chunks (RFC 9649 §2.7.1.1): RGBA.
///
/// The decoder decodes it as a still. It would draw animations, too, but makes opaque pixels darker
/// where it blends them, and clears wrong places where a frame without alpha follows.
fn webp_frame(mut chunks: &[u8], [width, height]: [u32; 2]) -> Result<Vec<u8>, Refused> {
    let (mut parts, mut has_alpha) = (Vec::new(), false);
    while let Some((head, rest)) = chunks.split_first_chunk::<8>() {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let data = rest.get(..length).ok_or("it is damaged: a frame of it ends early")?;
        let name = &head[..4];
        if [b"ALPH", b"VP8 ", b"VP8L"].iter().any(|known| name == *known) {
            has_alpha |= name != b"VP8 ";
            parts.extend(riff(name, data));
        }
        chunks = rest.get(length.next_multiple_of(2)..).unwrap_or_default();
    }
    let [wide, high] = [width - 1, height - 1].map(u32::to_le_bytes);
    let about = [&[if has_alpha { 0x10 } else { 0 }, 0, 0, 0][..], &wide[..3], &high[..3]].concat();
    let still = riff(b"RIFF", &[b"WEBP".as_slice(), &riff(b"VP8X", &about), &parts].concat());
    let mut decoder = image_webp::WebPDecoder::new(io::Cursor::new(still)).map_err(webp_damaged)?;
    decoder.set_memory_limit(MOST_MEMORY);
    if decoder.dimensions() != (width, height) {
        return Err("it is damaged: a frame of it has another size than it says".to_owned());
    }
    let length = decoder.output_buffer_size().ok_or("its size cannot be")?;
    let mut bytes: Vec<u8> = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| early(io::ErrorKind::OutOfMemory.into()))?;
    bytes.resize(length, 0);
    decoder.read_image(&mut bytes).map_err(webp_damaged)?;
    if decoder.has_alpha() {
        return Ok(bytes);
    }
    let opaque = |pixel: &[u8; 3]| [pixel[0], pixel[1], pixel[2], 255];
    Ok(bytes.as_chunks::<3>().0.iter().flat_map(opaque).collect())
}

fn draw_webp(
    mut from: Buffered<'_>,
    colours: Shown<'_>,
    shown: &mut Give<'_>,
) -> Result<(), Refused> {
    let _: [u8; 12] = take(&mut from)?;
    let mut canvas = None;
    while !is_at_end(&mut from)? {
        let head: [u8; 8] = take(&mut from)?;
        let length = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
        let padded = length + length % 2;
        let three = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
        match (&head[..4], &mut canvas) {
            (b"VP8X", None) if length >= 10 => {
                let about: [u8; 10] = take(&mut from)?;
                let [width, height] = [4, 7].map(|at| three(&about[at..]) as usize + 1);
                if width.saturating_mul(height) > MAX_PIXELS {
                    return Err(OUTSIDE.to_owned());
                }
                canvas = Some(Canvas::new(width, height).map_err(early)?);
                skip(&mut from, padded - 10)?;
            }
            (b"ANMF", Some(canvas)) if length >= 16 => {
                let frame: [u8; 16] = take(&mut from)?;
                let [left, top] = [0, 3].map(|at| three(&frame[at..]) as usize * 2);
                let size = [6, 9].map(|at| three(&frame[at..]) + 1);
                let place = [left, top, size[0] as usize, size[1] as usize];
                if !canvas.holds(place) {
                    return Err(OUTSIDE.to_owned());
                }
                let mut chunks = Vec::new();
                let read = (&mut from).take(length - 16).read_to_end(&mut chunks);
                if read.map_err(early)? as u64 != length - 16 {
                    return Err("it ends early".to_owned());
                }
                skip(&mut from, length % 2)?;
                let pixels = webp_frame(&chunks, size)?;
                let unit = |pixel: &[u8; 4]| pixel.map(|byte| f32::from(byte) / 255.0);
                let pixels = pixels.as_chunks::<4>().0.iter().map(unit);
                canvas.draw(place, pixels, frame[15] & 2 == 0);
                if shown(&mut || canvas.rgb(colours))?.is_break() {
                    return Ok(());
                }
                if frame[15] & 1 != 0 {
                    canvas.clear(place);
                }
            }
            _ => skip(&mut from, padded)?,
        }
    }
    Err("it ends early".to_owned())
}

fn png_damaged(error: png::DecodingError) -> Refused {
    format!("it is damaged or ends early ({error})")
}

type PngDecoder<'f> = png::Decoder<PngSource<'f>>;

fn png_decoder(file: &mut InputFile) -> Result<(PngChunks, PngDecoder<'_>), Refused> {
    let chunks = PngChunks::of(file).map_err(early)?;
    let source = chunks.source(file).map_err(early)?;
    Ok((chunks, image::png_decoder(source, MOST_MEMORY)))
}

fn draw_png(
    decoder: PngDecoder<'_>,
    colours: Shown<'_>,
    shown: &mut Give<'_>,
) -> Result<(), Refused> {
    let mut reader = decoder.read_info().map_err(png_damaged)?;
    let (width, height) = reader.info().size();
    let mut canvas = Canvas::new(width as usize, height as usize).map_err(early)?;
    let length = reader.output_buffer_size().ok_or("its size cannot be")?;
    let mut bytes: Vec<u8> = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| early(io::ErrorKind::OutOfMemory.into()))?;
    bytes.resize(length, 0);
    let mut is_first = true;
    loop {
        let output = reader.next_frame(&mut bytes).map_err(png_damaged)?;
        // An image before the first control is for those who show no animations.
        let Some(control) = reader.info().frame_control else { continue };
        let place =
            [control.x_offset, control.y_offset, control.width, control.height].map(|n| n as usize);
        if !canvas.holds(place) || (output.width, output.height) != (control.width, control.height)
        {
            return Err(OUTSIDE.to_owned());
        }
        let dispose = match control.dispose_op {
            png::DisposeOp::None => Dispose::Keep,
            png::DisposeOp::Background => Dispose::Clear,
            png::DisposeOp::Previous if is_first => Dispose::Clear,
            png::DisposeOp::Previous => Dispose::Restore,
        };
        is_first = false;
        let saved = canvas.saved(dispose).map_err(early)?;
        let pixels =
            png_pixels(&bytes[..output.buffer_size()], output.color_type, output.bit_depth);
        canvas.draw(place, pixels, control.blend_op == png::BlendOp::Over);
        if shown(&mut || canvas.rgb(colours))?.is_break() {
            return Ok(());
        }
        canvas.dispose(place, dispose, saved);
    }
}

/// Decoded samples as RGBA.
fn png_pixels(
    bytes: &[u8],
    color: png::ColorType,
    depth: png::BitDepth,
) -> impl Iterator<Item = [f32; 4]> {
    let channels = color.samples();
    let wide = depth == png::BitDepth::Sixteen;
    let sample = move |pixel: &[u8], channel: usize| match wide {
        true => {
            f32::from(u16::from_be_bytes([pixel[2 * channel], pixel[2 * channel + 1]])) / 65535.0
        }
        false => f32::from(pixel[channel]) / 255.0,
    };
    bytes.chunks_exact(channels * if wide { 2 } else { 1 }).map(move |pixel| {
        let at = |channel: usize| sample(pixel, channel);
        match channels {
            1 => [at(0), at(0), at(0), 1.0],
            2 => [at(0), at(0), at(0), at(1)],
            3 => [at(0), at(1), at(2), 1.0],
            _ => [at(0), at(1), at(2), at(3)],
        }
    })
}
