//! `switch`: one of two values; the other is not evaluated.

use std::borrow::Cow;

use kino_node::{Cx, Inputs, NodeDef, Outputs, Result, Services};
use kino_port::{Facts, NodeTraits, PortType, Signature, StepInfo, bool, edge, ports};

use crate::infer::InferResult;

/// One of two values, as a truth value says.
pub(crate) static SWITCH: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("switch"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(ABOUT),
        inputs: ports![
            bool("on", false).required().about("Which one: true takes `a`, false takes `b`."),
            edge("a", PortType::Any).lazy().about("The value where `on` is true."),
            edge("b", PortType::Any).lazy().about("The value where `on` is false."),
        ],
        outputs: ports![edge("value", PortType::Any).about("`a` or `b`, as it came.")],
        traits: NodeTraits::PORTABLE,
    },
    infer,
    run,
};

const ABOUT: &str = "Passes one of two values on. The other is not evaluated, nor is anything \
that only it needs. Both have one type, which may be any.\n\n\
Example:\n    // a large result only if asked for\n    \"large\": (op: \"upscale\", in: \
{\"frames\": \"frames\"}),\n    \"final\": (op: \"switch\", in: {\"on\": \"inputs.enlarge\", \
\"a\": \"large\", \"b\": \"frames\"}),";

fn side(on: bool) -> &'static str {
    if on { "a" } else { "b" }
}

fn infer(_: &Services, facts: &Facts) -> InferResult {
    let Some(on) = facts.bool("on") else { return Ok(StepInfo::default()) };
    let chosen = facts.get(side(on)).cloned().unwrap_or_default();
    Ok(StepInfo { outputs: vec![chosen], chosen: Some(side(on)), ..StepInfo::default() })
}

fn run(_: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let side = side(inputs.bool("on")?);
    match inputs.get(side) {
        Some(value) => Ok(vec![Some(value.clone())]),
        None => Err(kino_node::Error::input(side, "nothing feeds it")),
    }
}
