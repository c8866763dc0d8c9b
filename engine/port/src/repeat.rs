//! `repeat`, the loop of the graph language. It is unrolled before anything runs, so it is a node
//! only as graphs write it; its signature stands here, as the language reads its ports and the list
//! of nodes shows them.

use std::borrow::Cow;

use crate::{NodeTraits, Signature, int, path, ports};

/// The most turns of a loop.
pub const MAX_TURNS: i128 = 100_000;

/// The loop.
pub const REPEAT: Signature = Signature {
    name: Cow::Borrowed("repeat"),
    version: Cow::Borrowed("1"),
    about: Cow::Borrowed(ABOUT),
    inputs: ports![
        path("graph").about("The body: the path of another graph, as in `op`; written in `with`."),
        int("times", 1)
            .between(1, MAX_TURNS)
            .required()
            .unit("turns")
            .about("How often the body runs: a number, an input, or what is computed from them."),
    ],
    outputs: ports![],
    traits: NodeTraits::LIGHT,
};

const ABOUT: &str = "Runs another graph a number of times, each turn with what the one before it \
gave. Beside `graph` and `times` it takes the body's own inputs, and it gives the body's outputs.\n\n\
An output whose name is also an input of the body is carried: the next turn takes it, and what the \
last turn gave is the result. Any other output is collected: Frames are joined in time, of other \
types the result is a list. A body that declares an input `index` of type Int gets the number of the \
turn there, from 0.\n\n\
The turns are nodes like all others, called `NAME/TURN/…`: each has keys of its own, so that a run \
that was killed goes on with the first turn that is missing, and one with more turns takes those of \
a shorter one from the cache. Joined frames wait in temporary files, not in memory. A body holds no \
`repeat` of its own.\n\n\
Example:\n    // extend.ron has the inputs `last` and `index`, and the outputs `last` and `frames`\n    \
\"film\": (op: \"repeat\", in: {\"last\": \"opening\"}, with: {\"graph\": \"./extend.ron\", \"times\": \
30}),\n    \"file\": (op: \"video.write\", in: {\"frames\": \"film.frames\"}, with: {\"path\": \
\"{graph}.mp4\"}),";
