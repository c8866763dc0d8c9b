//! The registry as the graph's catalog, and what else enters every key.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use kino_graph::Catalog;
use kino_node::{Node, Registry, Services};
use kino_port::{Facts, PlanError, Signature, StepInfo};

use crate::panic::panic_message;

/// The version of the engine's numbers. It enters every key: raise it when results change although
/// no node's own version does.
pub const NUMERICS: u32 = 5;

/// The versions of the libraries that compute. They enter every key: another one may round
/// otherwise.
pub const LIBRARIES: &str = "candle-core 0.11.1, gemm 0.19.0";

/// The nodes of a registry, inferred with services: what a graph is checked and planned against.
/// It stays what it is when the runtime gets other nodes.
#[derive(Clone)]
pub struct NodeCatalog<'a> {
    /// The nodes.
    pub registry: Arc<Registry>,
    /// What they may reach while they are inferred.
    pub services: &'a Services,
}

impl Catalog for NodeCatalog<'_> {
    fn signature(&self, op: &str) -> Option<&Signature> {
        self.registry.get(op).map(|node| node.signature())
    }

    fn names(&self) -> Vec<&str> {
        self.registry.nodes().map(|node| &*node.signature().name).collect()
    }

    fn infer(&self, op: &str, facts: &Facts) -> Result<StepInfo, Vec<PlanError>> {
        self.infer_node(self.node(op)?, facts)
    }
}

impl NodeCatalog<'_> {
    /// The node of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&self, op: &str) -> Result<&dyn Node, Vec<PlanError>> {
        let node = self.registry.get(op).map(|node| &**node);
        node.ok_or_else(|| vec![PlanError::new(format!("there is no node `{op}`"))])
    }

    /// What a node says of itself: an error where it panics, and where its step could never have
    /// the memory that it needs.
    ///
    /// # Errors
    /// Every reason why it cannot run with what it is given.
    pub fn infer_node(&self, node: &dyn Node, facts: &Facts) -> Result<StepInfo, Vec<PlanError>> {
        // Whoever wrote the node, and whatever files it looks into: planning goes on.
        guard(|| node.infer(self.services, facts)).unwrap_or_else(|panic| {
            let error = PlanError::new(format!("the node panicked while planning: {panic}"));
            Err(vec![error.hint("this is a bug of the node; please report it")])
        })
    }
}

/// Calls what a node does, and gives the message of a panic as an error.
fn guard<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| panic_message(panic.as_ref()).to_owned())
}

/// The versions of the engine and of the libraries that compute. They enter every key of a plan.
pub fn versions() -> Vec<u8> {
    let mut bytes = NUMERICS.to_le_bytes().to_vec();
    bytes.extend(texts([env!("CARGO_PKG_VERSION"), LIBRARIES]));
    bytes
}

/// What of the machine changes numbers: the device's kind (`cpu`, `cuda`), what the kernels depend
/// on (such as `avx512` and the sizes of its caches), and the threads, where results depend on
/// them. It enters the keys of all nodes but portable ones.
///
/// So the same bytes are promised for one version on machines of one kind with one number of
/// threads, and a cache that several share never mixes theirs.
pub fn machine(device: &str, kernels: &str, threads: usize) -> Vec<u8> {
    let mut bytes = texts([device, kernels]);
    bytes.extend((threads as u64).to_le_bytes());
    bytes
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in texts {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_of_the_libraries_are_those_that_are_built_in() {
        let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock");
        let lock = std::fs::read_to_string(lock).expect("the workspace's lock file");
        for library in LIBRARIES.split(", ") {
            let (name, version) = library.split_once(' ').unwrap();
            let entry = format!("name = \"{name}\"\nversion = \"{version}\"\n");
            assert!(lock.contains(&entry), "LIBRARIES says {library}, Cargo.lock does not");
        }
    }

    #[test]
    fn every_part_of_the_machine_counts() {
        let base = machine("cpu", "avx512 1/1", 2);
        for other in [
            machine("cuda", "avx512 1/1", 2),
            machine("cpu", "avx512 1/2", 2),
            machine("cpu", "avx512 1/1", 3),
        ] {
            assert_ne!(base, other);
        }
    }
}
