//! Ways through frames and tensors.

use kino_plugin::prelude::*;
use kino_plugin::testing::{self, assert_close};
use kino_plugin::{Device, Value};

/// Shifts each frame by as many columns as its index says.
#[node(id = "example.shift", version = "1.0.0", like = "frames")]
fn shift(cx: &Cx, frames: &Frames) -> Result<Frames> {
    frames.map_frames(cx, |frame, out, index| {
        for (at, pixel) in out.chunks_exact_mut(3).enumerate() {
            let (row, column) = (at / frame.width, at % frame.width);
            pixel.copy_from_slice(&frame.pixel(row as isize, (column + index) as isize));
        }
        Ok(())
    })
}

/// Halves the size of frames.
#[node(id = "example.halve", version = "1.0.0")]
fn halve(cx: &Cx, frames: Frames) -> Result<Frames> {
    let (height, width) = (frames.height() / 2, frames.width() / 2);
    frames.map_chunks(cx, |chunk| {
        let planes = chunk.permute(&[0, 3, 1, 2])?; // [n, 3, h, w]
        planes.resize(height, width, Filter::Bilinear)?.permute(&[0, 2, 3, 1])?.contiguous()
    })
}

/// Blends every frame with the one before.
#[node(id = "example.trail", version = "1.0.0")]
fn trail(cx: &Cx, frames: Frames) -> Result<Frames> {
    frames.map_frames(cx, |frame, out, index| {
        let before = frames.frame(index.saturating_sub(1))?;
        for ((o, now), before) in out.iter_mut().zip(frame.rgb).zip(&before) {
            *o = 0.5 * (now + before);
        }
        Ok(())
    })
}

#[test]
fn frames_are_walked_one_by_one() -> Result<()> {
    let frames = Frames::random(3, [5, 2, 4, 3]);
    let out = testing::run::<shift>().input("frames", &frames).call()?;
    let found = out.frames("frames")?;
    for index in 0..5 {
        let (old, new) = (frames.frame(index)?, found.frame(index)?);
        for (at, pixel) in new.chunks_exact(3).enumerate() {
            let from = at / 4 * 4 + (at % 4 + index).min(3);
            assert_eq!(pixel, &old[3 * from..3 * from + 3], "frame {index}, pixel {at}");
        }
    }
    assert_eq!(out.progress(), [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]);
    let cancelled = testing::run::<shift>().input("frames", &frames).cancel_after(3).call();
    assert_eq!(cancelled.err(), Some(Error::Cancelled));
    Ok(())
}

#[test]
fn neighbours_can_be_read() -> Result<()> {
    let frames = Frames::random(4, [5, 2, 2, 3]);
    let found = testing::run::<trail>().input("frames", &frames).call()?.frames("frames")?;
    let all = frames.joined()?;
    let before = Tensor::concat(&[&all.slice(0, 0, 1)?, &all.slice(0, 0, 4)?], 0)?;
    assert_close(&found.joined()?, &all.add(&before)?.mul(0.5)?, 1e-6);
    // Backwards, too.
    for index in (0..5).rev() {
        let expected = all.slice(0, index, 1)?.to_vec::<f32>()?;
        assert_eq!(frames.frame(index)?, expected);
    }
    assert_eq!(frames.frame(5).unwrap_err().message(), "there is no frame 5, only 5");
    Ok(())
}

#[test]
fn chunks_may_change_their_size() -> Result<()> {
    let frames = Frames::random(5, [3, 4, 6, 3]);
    let found = testing::run::<halve>().input("frames", frames).call()?.frames("frames")?;
    assert_eq!((found.count(), found.height(), found.width()), (3, 2, 3));
    assert_eq!(found.chunks().map(|chunk| chunk.unwrap().dims()[0]).collect::<Vec<_>>(), [2, 1]);
    Ok(())
}

#[test]
fn a_tensor_can_be_frames_and_a_latent() -> Result<()> {
    let tensor = Tensor::random(6, &[2, 3, 4, 3]);
    let found = testing::run::<shift>().input("frames", &tensor).call()?.frames("frames")?;
    assert_eq!((found.count(), found.fps()), (2, None));
    let wrong = testing::run::<shift>().input("frames", Tensor::random(6, &[3, 4])).call();
    let message = "input `frames`: frames are [count, height, width, 3], found a tensor [3, 4]";
    assert_eq!(wrong.err().unwrap().message(), message);
    Ok(())
}

#[node(id = "example.latent", version = "1.0.0")]
fn scale(
    latent: Latent,
    text: Conditioning,
    patches: Option<Patches>,
) -> Result<(Latent, Conditioning, Option<Patches>)> {
    let patches = patches.map(|patches| patches.with(patches.tokens.mul(2.0)?)).transpose()?;
    let text = Conditioning { positive: text.negative, negative: text.positive };
    Ok((latent.with(latent.tensor.mul(2.0)?), text, patches))
}

#[test]
fn engine_records_keep_what_a_plugin_does_not_see() -> Result<()> {
    let tensor = Tensor::random(8, &[2, 1, 2, 2]);
    let space = testing::opaque("Space").0;
    let clips = testing::opaque("Clips").0;
    let latent = Value::record("Latent", &[("tensor", tensor.value()), ("space", &space)])?;
    let sizes = [1, 2, 2].map(|size| Value::int(size).unwrap());
    let sizes: Vec<_> = sizes.iter().map(|size| ("", size)).collect();
    let patch = Value::list(&sizes)?;
    let tokens = Tensor::random(9, &[4, 8]);
    let note = Value::text("by hand")?;
    let fields =
        [("tensor", tokens.value()), ("clips", &clips), ("patch", &patch), ("note", &note)];
    let patches = Value::record("Patches", &fields)?;
    let text = Conditioning { positive: tokens.clone(), negative: tensor.clone() };
    let run = testing::run::<scale>().input("latent", Any(latent)).input("text", text);
    let out = run.input("patches", Any(patches)).call()?;
    let latent: Any = out.get("latent")?;
    assert_eq!(latent.0.field("space")?.unwrap().type_name(), "Space");
    assert_close(&out.get::<Latent>("latent")?.tensor, &tensor.mul(2.0)?, 0.0);
    assert_close(&out.get::<Conditioning>("conditioning")?.positive, &tensor, 0.0);
    let patches: Patches = out.get("patches")?;
    assert_eq!(patches.patch()?, [1, 2, 2]);
    let whole: Any = out.get("patches")?;
    assert_eq!(whole.0.field("note")?.unwrap().as_text()?, "by hand");
    assert_close(&patches.tokens, &tokens.mul(2.0)?, 0.0);
    assert!(patches.with(Tensor::random(9, &[4, 7])).is_err());
    Ok(())
}

#[test]
fn elements_are_seen_where_they_lie() -> Result<()> {
    let tensor = Tensor::try_new_with(&[2, 3], |out: &mut [i16]| {
        ensure!(out == [0; 6], "a new tensor is zeros, found {out:?}");
        out.copy_from_slice(&[1, 2, 3, 4, 5, 6]);
        Ok(())
    })?;
    let (slice, other) = (tensor.as_slice::<i16>()?, tensor.clone());
    assert_eq!(slice.as_ptr(), other.as_slice::<i16>()?.as_ptr());
    assert_eq!(slice, [1, 2, 3, 4, 5, 6]);
    assert_eq!((tensor.device(), tensor.rank()), (Device::Cpu, 2));
    assert_eq!(tensor.with_piece(2, 3, |piece: &[i16]| piece.to_vec())?, [3, 4, 5]);
    let mut piece = [0i16; 2];
    tensor.read_into(4, &mut piece)?;
    assert_eq!(piece, [5, 6]);
    assert!(tensor.read_into(5, &mut piece).is_err());
    assert!(tensor.with_piece(usize::MAX, 2, |_: &[i16]| ()).is_err());
    let [rows, columns] = tensor.shape()?;
    assert_eq!((rows, columns), (2, 3));
    assert!(tensor.shape::<3>().is_err());
    assert!(Tensor::from_slice(&[1.0f32], &[2]).is_err());
    assert!(Tensor::zeros::<f32>(&[usize::MAX, 2]).is_err());
    let none = Tensor::zeros::<f32>(&[0, 3])?;
    assert!(none.as_slice::<f32>()?.is_empty());
    Ok(())
}

#[test]
fn views_do_not_outlive_their_turn() -> Result<()> {
    // What a function failed to fill is not left half-open.
    let failed = Tensor::try_new_with(&[2], |_: &mut [f32]| bail!("no"));
    assert_eq!(failed.unwrap_err().message(), "no");
    // Miri interprets each instruction.
    let size = if cfg!(miri) { 4 } else { 64 };
    let threads: Vec<_> = (0..4)
        .map(|seed| {
            std::thread::spawn(move || {
                let tensor = Tensor::random(seed, &[size, size]);
                tensor.matmul(&tensor).unwrap().sum(&[]).unwrap().to_scalar::<f32>().unwrap()
            })
        })
        .collect();
    for (seed, thread) in threads.into_iter().enumerate() {
        let tensor = Tensor::random(seed as u64, &[size, size]);
        let alone = tensor.matmul(&tensor)?.sum(&[])?.to_scalar::<f32>()?;
        assert_eq!(thread.join().unwrap(), alone);
    }
    Ok(())
}

#[node(id = "example.open", version = "1.0.0", outputs("text", "mask", "frames", "given"))]
fn open(
    cx: &mut Cx,
    text: Conditioning,
    mask: Mask,
    frames: Frames,
    given: Given,
) -> Result<(Conditioning, Mask, Frames, Given)> {
    ensure!(text.positive_embedding("pooled")?.is_some(), "no pooled embedding");
    let text = text.with_positive(text.positive.mul(2.0)?)?;
    let mask = mask.with(mask.mul(0.5)?)?;
    ensure!(given.frames()? == 5 && given.strength()? == 0.5, "another given");
    let given = given.with("strength", 1.0)?;
    Ok((text, mask, frames.map_each(cx, |x| 1.0 - x)?, given))
}

/// A node that changes a part of what it got gives on all the rest, whatever that is.
#[test]
fn fields_that_no_type_knows_stay() -> Result<()> {
    let note = Value::text("by hand")?;
    let rows = Tensor::random(1, &[4, 8]);
    let pooled = Tensor::random(2, &[8]);
    let embeddings = [("tensor", rows.value()), ("pooled", pooled.value())];
    let positive = Value::record("Embeddings", &embeddings)?;
    let fields = [("positive", &positive), ("negative", rows.value()), ("note", &note)];
    let text = Value::record("Conditioning", &fields)?;
    let grey = Tensor::random(3, &[2, 4, 6]);
    let mask = Value::record("Mask", &[("tensor", grey.value()), ("note", &note)])?;
    let frames = Frames::random(4, [2, 4, 6, 3]);
    let (chunk, whole) = (frames.joined()?, Value::int(5)?);
    let chunks = Value::list(&[("", chunk.value())])?;
    let sizes = [2, 4, 6].map(|size| Value::int(size).unwrap());
    let frames = Value::record(
        "Frames",
        &[
            ("chunks", &chunks),
            ("count", &sizes[0]),
            ("height", &sizes[1]),
            ("width", &sizes[2]),
            ("note", &note),
        ],
    )?;
    let latent = Latent::new(Tensor::random(5, &[2, 2, 4, 6]));
    let given = Given::new(&latent, &Mask(grey.clone()), 5)?.with("strength", 0.5)?;
    assert_eq!(given.frames()? as i128, whole.as_int()?);
    let given = given.with("note", Any(note.clone()))?;
    let run = testing::run::<open>().input("text", Any(text)).input("mask", Any(mask));
    let out = run.input("frames", Any(frames)).input("given", given).call()?;
    for name in ["text", "mask", "frames", "given"] {
        let value: Any = out.get(name)?;
        let note = value.0.field("note")?;
        assert_eq!(
            note.map(|note| note.as_text()).transpose()?.as_deref(),
            Some("by hand"),
            "{name}"
        );
    }
    let text: Conditioning = out.get("text")?;
    assert_close(&text.positive, &rows.mul(2.0)?, 0.0);
    assert_close(&text.positive_embedding("pooled")?.unwrap(), &pooled, 0.0);
    assert_close(&out.get::<Mask>("mask")?.0, &grey.mul(0.5)?, 0.0);
    assert_close(&out.get::<Frames>("frames")?.joined()?, &chunk.mul(-1.0)?.add(1.0)?, 1e-6);
    assert_eq!(out.get::<Given>("given")?.strength()?, 1.0);
    assert_close(&out.get::<Given>("given")?.mask()?, &grey, 0.0);
    Ok(())
}
