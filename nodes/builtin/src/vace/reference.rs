//! A picture of what a clip shows, at the size of the clip.

use candle_core::{DType, Device, Tensor};
use kino_kernels::{Filter, resize_levels};
use kino_node::{Error, Result};

/// The size of a picture in whole latent pixels of `spatial` pixels, to which it is brought first
/// (diffusers' `VaeImageProcessor.preprocess`); one that is smaller than that stays as it is.
fn whole(picture: [usize; 2], spatial: usize) -> [usize; 2] {
    picture.map(|side| if side < spatial { side } else { side - side % spatial })
}

/// The size that a picture has within a clip: as large as fits, in the shape that it has in whole
/// latent pixels (`preprocess_conditions` of diffusers' pipeline_wan_vace.py, which cuts off
/// fractions).
///
/// Heights before widths. The error says what is wrong with the picture.
pub(super) fn fitted(
    picture: [usize; 2],
    clip: [usize; 2],
    spatial: usize,
) -> Result<[usize; 2], String> {
    let [height, width] = whole(picture, spatial).map(|side| side as f64);
    let scale = (clip[0] as f64 / height).min(clip[1] as f64 / width);
    let size = [(height * scale) as usize, (width * scale) as usize];
    match size.contains(&0) {
        true => Err(format!(
            "a picture of {}×{} is no pixel wide or high in a clip of {}×{}",
            picture[1], picture[0], clip[1], clip[0]
        )),
        false => Ok([size[0].min(clip[0]), size[1].min(clip[1])]),
    }
}

/// A picture in whole latent pixels, by Pillow's Lanczos filter: `[1, h, w, 3]`.
fn in_whole_pixels(picture: &Tensor, spatial: usize) -> Result<Tensor> {
    let (height, width, _) = picture.dims3()?;
    let picture = picture.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.unsqueeze(0)?;
    match whole([height, width], spatial) {
        same if same == [height, width] => Ok(picture.contiguous()?),
        [tall, wide] => Ok(resize_levels(&picture, tall, wide, Filter::Lanczos)?),
    }
}

/// A picture on white in the middle of a frame of the clip. Shapes: `[h, w, 3]` in 0…1 to
/// `[1, H, W, 3]`.
pub(super) fn on_white(picture: &Tensor, clip: [usize; 2], spatial: usize) -> Result<Tensor> {
    let (height, width, _) = picture.dims3()?;
    let [tall, wide] = fitted([height, width], clip, spatial).map_err(Error::failed)?;
    let picture = in_whole_pixels(picture, spatial)?;
    let (_, height, width, _) = picture.dims4()?;
    let values: Vec<f32> = picture.flatten_all()?.to_vec1()?;
    let rows: Vec<Tap> = (0..tall).map(|row| Tap::of(row, height, tall)).collect();
    let columns: Vec<Tap> = (0..wide).map(|column| Tap::of(column, width, wide)).collect();
    let (top, left) = ((clip[0] - tall) / 2, (clip[1] - wide) / 2);
    let mut frame = vec![1f32; clip[0] * clip[1] * 3];
    for (y, row) in rows.iter().enumerate() {
        for (x, column) in columns.iter().enumerate() {
            let at = ((top + y) * clip[1] + left + x) * 3;
            for channel in 0..3 {
                let value = |y: usize, x: usize| values[(y * width + x) * 3 + channel];
                let line = |y: usize| column.mix(value(y, column.first), value(y, column.second));
                frame[at + channel] = row.mix(line(row.first), line(row.second));
            }
        }
    }
    Ok(Tensor::from_vec(frame, (1, clip[0], clip[1], 3), &Device::Cpu)?)
}

/// Two neighbouring pixels that one is mixed of, by bilinear interpolation between pixel centres
/// (torch's `interpolate` with `align_corners=False`), which does not widen when it shrinks.
struct Tap {
    first: usize,
    second: usize,
    /// The part of the second.
    part: f32,
}

impl Tap {
    /// Of pixel `at` of `to`, along a line of `from` pixels.
    fn of(at: usize, from: usize, to: usize) -> Self {
        let place = ((at as f32 + 0.5) * (from as f32 / to as f32) - 0.5).max(0.0);
        let first = (place as usize).min(from - 1);
        Tap { first, second: (first + 1).min(from - 1), part: place - first as f32 }
    }

    fn mix(&self, first: f32, second: f32) -> f32 {
        first * (1.0 - self.part) + second * self.part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_keeps_its_shape_and_fits() {
        let check = |picture, clip, expected: Result<[usize; 2], &str>| {
            assert_eq!(fitted(picture, clip, 8), expected.map_err(str::to_owned));
        };
        check([64, 96], [64, 96], Ok([64, 96]));
        check([23, 41], [32, 48], Ok([19, 48])); // 16×40 in whole pixels, 19.2 rows
        check([61, 30], [32, 48], Ok([32, 13])); // 56×24, 13.7 columns
        check([480, 832], [64, 96], Ok([55, 96]));
        check([7, 5], [32, 48], Ok([32, 22])); // smaller than a latent pixel
        check([1, 1], [64, 96], Ok([64, 64]));
        let thin = "a picture of 20000×1 is no pixel wide or high in a clip of 96×64";
        check([1, 20_000], [64, 96], Err(thin));
    }

    #[test]
    fn a_picture_stands_in_the_middle_of_white() {
        // Two pixels, black and grey, in a frame of four by two: one is two wide, its neighbours a
        // quarter nearer to each other.
        let picture =
            Tensor::from_vec(vec![0f32, 0.0, 0.0, 0.5, 0.5, 0.5], (1, 2, 3), &Device::Cpu);
        let frame = on_white(&picture.unwrap(), [4, 4], 8).unwrap();
        let red = frame.narrow(3, 0, 1).unwrap().reshape((4, 4)).unwrap();
        let expected = [[1.0; 4], [0.0, 0.125, 0.375, 0.5], [0.0, 0.125, 0.375, 0.5], [1.0; 4]];
        assert_eq!(red.to_vec2::<f32>().unwrap(), expected);
    }
}
