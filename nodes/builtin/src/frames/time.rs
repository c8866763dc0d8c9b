//! `frames.trim`, `frames.concat` and `frames.reverse`: which frames, and in which order.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::Tensor;
use kino_node::{
    Cx, FrameRate, Frames, FramesBuilder, FramesFact, Inputs, NodeDef, Outputs, Result, Services,
    Value, ValueType,
};
use kino_port::{
    Fact, Facts, NodeTraits, PlanError, PortType, Signature, StepInfo, count, edge, int, list,
    ports,
};

use super::chunks::{CHUNK, frame_bytes, frames_in, gives};
use crate::infer::{InferCx, InferResult, known, named_facts, refuse, shown};

/// The most frames that a node is asked for.
const MOST_FRAMES: i128 = 1 << 20;

/// A part of a clip.
pub(crate) static TRIM: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("frames.trim"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(TRIM_ABOUT),
        inputs: ports![
            frames_in(),
            int("start", 0)
                .between(-MOST_FRAMES, MOST_FRAMES)
                .unit("frames")
                .about("How many frames are left out at the beginning; -5 takes the last five."),
            count("count", 1)
                .between(1, MOST_FRAMES)
                .or_none()
                .unit("frames")
                .about("How many frames are taken; if not given, all that follow."),
        ],
        outputs: ports![edge("frames", PortType::Frames).about("These frames, at the same rate.")],
        traits: NodeTraits::LIGHT,
    },
    infer: infer_trim,
    run: trim,
};

const TRIM_ABOUT: &str = "Takes a part of a clip: `count` frames from frame `start` on, counted \
from 0, or from the end where `start` is negative. A part that reaches past an end is an error. \
Shapes: `[f, h, w, 3]` to `[count, h, w, 3]`.\n\n\
Example:\n    \"opening\": (op: \"frames.trim\", in: {\"frames\": \"clip\"}, with: {\"start\": 0, \
\"count\": 17}),";

/// Clips one after another.
pub(crate) static CONCAT: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("frames.concat"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(CONCAT_ABOUT),
        inputs: ports![
            list("parts", PortType::Frames)
                .about("Clips or images of one size, in their order; a map's names say nothing.")
        ],
        outputs: ports![edge("frames", PortType::Frames).about("All frames, at the clips' rate.")],
        traits: NodeTraits::JOINS,
    },
    infer: infer_concat,
    run: concat,
};

const CONCAT_ABOUT: &str = "Puts clips one after another. All have one size, and those that have a \
rate the same; parts without one (such as images) take it over. Frames that two clips share are \
not found: trim one of them. Shapes: `[f, h, w, 3]` of each to `[sum of f, h, w, 3]`.\n\n\
Example:\n    \"whole\": (op: \"frames.concat\", in: {\"parts\": [\"opening\", \"rest\"]}),";

/// A clip backwards.
pub(crate) static REVERSE: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("frames.reverse"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(REVERSE_ABOUT),
        inputs: ports![frames_in()],
        outputs: ports![edge("frames", PortType::Frames).about("The same frames, the last first.")],
        traits: NodeTraits::LIGHT,
    },
    infer: infer_reverse,
    run: reverse,
};

const REVERSE_ABOUT: &str = "Turns a clip round in time: the last frame comes first. Shapes: `[f, \
h, w, 3]`, in and out.\n\n\
Example:\n    \"back\": (op: \"frames.reverse\", in: {\"frames\": \"clip\"}),";

/// The first frame taken of `of`, and how many are.
fn taken(of: usize, start: i128, count: Option<usize>) -> Result<(usize, usize), PlanError> {
    let refused = |port, wish: String, hint| {
        let has = match of {
            1 => "the clip has one frame".to_owned(),
            _ => format!("the clip has {of} frames, 0 to {}", of.saturating_sub(1)),
        };
        Err(PlanError::at(port, format!("{wish} cannot be had: {has}")).hint(hint))
    };
    let counted = if start < 0 { of as i128 + start } else { start };
    let Ok(first) = usize::try_from(counted) else {
        let wish = format!("the last {} frames", start.unsigned_abs());
        return refused("start", wish, "give a longer clip, or take fewer frames");
    };
    let hint = "take fewer frames, or begin earlier";
    match count {
        _ if first >= of => refused("start", format!("frame {first}"), hint),
        None => Ok((first, of - first)),
        Some(count) if count <= of - first => Ok((first, count)),
        Some(count) => refused("count", format!("{count} frames from frame {first} on"), hint),
    }
}

/// Refuses more of the last frames than the last are, however many there are in all.
fn reaches_past_the_end(start: i128, count: Option<usize>) -> Result<(), PlanError> {
    match count {
        Some(count) if start < 0 && count as u128 > start.unsigned_abs() => {
            let last = start.unsigned_abs();
            let message = format!("{count} frames of the last {last} cannot be had");
            Err(PlanError::at("count", message).hint("take fewer frames, or begin earlier"))
        }
        _ => Ok(()),
    }
}

fn infer_trim(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let frames = review.partly::<Frames>("frames");
    let (start, wish) = (facts.int("start"), review.size("count"));
    let count = match (frames.count, start, facts.is_fed("count")) {
        (Some(of), Some(start), fed) if fed == wish.is_some() => {
            review.take(taken(of, start, wish)).map(|(_, count)| count)
        }
        // The last frames are as many as are asked for, however many there are in all.
        (None, Some(start), false) if start < 0 => usize::try_from(start.unsigned_abs()).ok(),
        (None, Some(start), _) => {
            review.take(reaches_past_the_end(start, wish));
            wish
        }
        // It cannot have more than there are.
        (Some(of), None, _) => {
            wish.and_then(|wish| review.take(taken(of, 0, Some(wish)))).map(|(_, count)| count)
        }
        _ => wish,
    };
    let work = frames.size().map(|(height, width)| frame_bytes(height, width));
    review.finish(gives(FramesFact { count, ..frames }, work))
}

fn trim(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let frames = inputs.value::<Frames>("frames")?;
    let wish = inputs.get("count").is_some().then(|| inputs.int("count")).transpose()?;
    let taken = taken(frames.count(), inputs.int("start")?, wish);
    let (start, count) = taken.map_err(refuse)?;
    if count == frames.count() {
        return Ok(vec![Some(Value::from(frames))]);
    }
    let mut part = FramesBuilder::new(&cx.services.ledger, frames.fps());
    let (mut first, end) = (0, start + count);
    for index in 0..frames.chunk_count() {
        let next = first + frames.chunk_len(index);
        let (from, to) = (start.max(first), end.min(next));
        if from < to {
            cx.check_cancel()?;
            part.push(&frames.chunk(index)?.narrow(0, from - first, to - from)?)?;
            cx.progress(to - start, count);
        }
        first = next;
    }
    Ok(vec![Some(Value::from(part.finish()?))])
}

/// What is known of clips, one after another.
fn joined(parts: &[FramesFact]) -> Result<FramesFact, PlanError> {
    if parts.is_empty() {
        return Err(PlanError::at("parts", "there is nothing to put together"));
    }
    let size = |part: &FramesFact| format!("{}×{}", shown(part.width), shown(part.height));
    for axis in [|part: &FramesFact| part.height, |part: &FramesFact| part.width] {
        let mut known = parts.iter().enumerate().filter(|(_, part)| axis(part).is_some());
        let Some((at, one)) = known.next() else { continue };
        if let Some((index, part)) = known.find(|(_, part)| axis(part) != axis(one)) {
            let which = if at == 0 { "the first".to_owned() } else { format!("part {}", at + 1) };
            let message = format!(
                "all parts have one size, but {which} is {} and part {} is {}",
                size(one),
                index + 1,
                size(part)
            );
            let error = PlanError::at("parts", message);
            return Err(error.hint("a `frames.fit` node brings frames to a size"));
        }
    }
    let mut rates = parts.iter().filter_map(|part| part.fps.fps());
    let rate = rates.next();
    if let (Some(fps), Some(other)) = (rate, rates.find(|other| Some(*other) != rate)) {
        let message = format!("all parts have one rate, but they have {fps} and {other} frames/s");
        return Err(PlanError::at("parts", message)
            .hint("bring them to one rate first: joined as they are, one would play too fast"));
    }
    let fps = match rate {
        None if parts.iter().any(|part| part.fps == FrameRate::Unknown) => FrameRate::Unknown,
        rate => FrameRate::of(rate),
    };
    let count = parts.iter().try_fold(0, |sum: usize, part| sum.checked_add(part.count?));
    let height = parts.iter().find_map(|part| part.height);
    let width = parts.iter().find_map(|part| part.width);
    Ok(FramesFact { count, height, width, fps })
}

fn infer_concat(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let items = named_facts(facts, "parts");
    let part = |(_, fact): &(_, &Fact)| review.take(known::<Frames>("parts", fact)).flatten();
    let parts: Vec<Option<FramesFact>> = items.iter().map(part).collect();
    let all_known = parts.iter().all(Option::is_some);
    let parts: Vec<FramesFact> = parts.into_iter().map(Option::unwrap_or_default).collect();
    let Some(whole) = review.take(joined(&parts)) else {
        return review.finish(StepInfo::default());
    };
    let size = whole.size().filter(|_| all_known);
    let work = size.map(|(height, width)| CHUNK as u64 * frame_bytes(height, width));
    review.finish(gives(whole, work))
}

fn concat(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let parts: Vec<Arc<Frames>> =
        inputs.list::<Frames>("parts")?.into_iter().map(|(_, part)| part).collect();
    let facts: Vec<FramesFact> = parts.iter().map(|part| part.fact()).collect();
    let fact = joined(&facts).map_err(refuse)?;
    let mut whole = FramesBuilder::new(&cx.services.ledger, fact.fps.fps());
    let (mut done, of) = (0, parts.iter().map(|part| part.count()).sum());
    for part in &parts {
        cx.check_cancel()?;
        whole.append(part)?;
        done += part.count();
        cx.progress(done, of);
    }
    Ok(vec![Some(Value::from(whole.finish()?))])
}

fn infer_reverse(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let frames = review.partly::<Frames>("frames");
    let size = frames.size();
    let work = size.map(|(height, width)| 2 * CHUNK as u64 * frame_bytes(height, width));
    review.finish(gives(frames, work))
}

fn reverse(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let frames = inputs.value::<Frames>("frames")?;
    let mut turned = FramesBuilder::new(&cx.services.ledger, frames.fps());
    let mut done = 0;
    for index in (0..frames.chunk_count()).rev() {
        let chunk = frames.chunk(index)?;
        let count = chunk.dim(0)?;
        for end in (1..=count).rev().step_by(CHUNK) {
            cx.check_cancel()?;
            let few = CHUNK.min(end);
            let order: Vec<u32> = (end - few..end).rev().map(|frame| frame as u32).collect();
            let order = Tensor::new(order, chunk.device())?;
            turned.push(&chunk.index_select(&order, 0)?)?;
            done += few;
            cx.progress(done, frames.count());
        }
    }
    Ok(vec![Some(Value::from(turned.finish()?))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_lies_within_the_clip() {
        assert_eq!(taken(5, 0, None), Ok((0, 5)));
        assert_eq!(taken(5, 4, None), Ok((4, 1)));
        assert_eq!(taken(5, 2, Some(3)), Ok((2, 3)));
        assert_eq!(taken(5, -2, None), Ok((3, 2)));
        assert_eq!(taken(5, -5, Some(1)), Ok((0, 1)));
        let error = taken(1, -5, None).unwrap_err();
        assert_eq!(error.message, "the last 5 frames cannot be had: the clip has one frame");
        for (start, count) in [(5, None), (5, Some(1)), (2, Some(4)), (0, Some(usize::MAX))] {
            let error = taken(5, start, count).unwrap_err().message;
            assert!(error.ends_with("cannot be had: the clip has 5 frames, 0 to 4"), "{error}");
        }
    }
}
