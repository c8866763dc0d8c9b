//! `repeat`: listed and explained like all nodes. The graph language lays its turns out before
//! anything runs, so that no step is one.

use kino_node::{Cx, Error, Inputs, NodeDef, Outputs, Result, Services};
use kino_port::{Facts, PlanError, REPEAT as SIGNATURE};

use crate::infer::InferResult;

/// A graph, a number of times.
pub(crate) static REPEAT: NodeDef = NodeDef { signature: SIGNATURE, infer, run };

const LAID_OUT: &str = "the turns of a loop are laid out by the graph that holds it";

fn infer(_: &Services, _: &Facts) -> InferResult {
    Err(vec![PlanError::new(LAID_OUT)])
}

fn run(_: &mut Cx<'_>, _: &Inputs<'_>) -> Result<Outputs> {
    Err(Error::failed(LAID_OUT))
}
