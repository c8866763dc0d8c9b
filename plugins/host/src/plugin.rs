//! One build of a plugin as the engine uses it: its artifact with what it may do, and the instances
//! of its nodes that have state.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kino_node::{Error, Node, Result, Value};

use crate::artifact::{Artifact, Call, Files, Instance, Limits};
use crate::descriptor::NodeSpec;
use crate::node::PluginNode;

/// One build of a plugin. A newer build is another one, which may inherit the state of this.
pub struct Plugin {
    /// The plugin's id.
    pub id: String,
    /// The sha256 of the artifact, in hexadecimal: it enters the keys of all its nodes.
    pub sha256: String,
    /// What it may use up in one call.
    pub limits: Limits,
    /// What it may read.
    pub files: Arc<dyn Files>,
    artifact: Arc<dyn Artifact>,
    /// Instances of nodes with state, by the step's name and the node's id.
    instances: Mutex<HashMap<(String, String), Slot>>,
    /// Earlier builds with state that nobody has taken over, the newest first.
    before: Mutex<Vec<Arc<Plugin>>>,
}

type Slot = Arc<Mutex<Option<Box<dyn Instance>>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Plugin {
    /// A loaded artifact of plugin `id`.
    pub fn new(
        id: impl Into<String>,
        sha256: impl Into<String>,
        artifact: Arc<dyn Artifact>,
        files: Arc<dyn Files>,
        limits: Limits,
    ) -> Arc<Self> {
        Arc::new(Plugin {
            id: id.into(),
            sha256: sha256.into(),
            limits,
            files,
            artifact,
            instances: Mutex::default(),
            before: Mutex::default(),
        })
    }

    /// Lets the instances of this build begin with the state of those of an earlier one.
    pub fn inherit(&self, before: &Arc<Plugin>) {
        let mut builds = vec![Arc::clone(before)];
        builds.extend(lock(&before.before).iter().cloned());
        builds.retain(|build| build.has_state());
        *lock(&self.before) = builds;
    }

    fn has_state(&self) -> bool {
        !lock(&self.instances).is_empty()
    }

    /// The nodes of this build.
    pub fn nodes(self: &Arc<Self>) -> Vec<Arc<dyn Node>> {
        let nodes = &self.artifact.descriptor().nodes;
        let node = |spec: &NodeSpec| -> Arc<dyn Node> {
            let mut spec = spec.clone();
            // Authors change code without changing the version; plans tell builds apart.
            if let Some(build) = self.sha256.get(..8) {
                let version = format!("{} build {build}", spec.signature.version);
                spec.signature.version = version.into();
            }
            Arc::new(PluginNode { plugin: Arc::clone(self), spec })
        };
        nodes.iter().map(node).collect()
    }

    /// What the plugin says of its nodes.
    pub fn descriptor(&self) -> &crate::Descriptor {
        self.artifact.descriptor()
    }

    /// A fresh instance without earlier state.
    pub(crate) fn open(&self, node: &str, call: &Call<'_>) -> Result<Box<dyn Instance>> {
        self.artifact.open(node, None, call)
    }

    /// Runs a node: a fresh instance, or the one of this step where the node has state.
    pub(crate) fn run(
        &self,
        spec: &NodeSpec,
        call: &Call<'_>,
        inputs: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        let node = &*spec.signature.name;
        if !spec.state {
            return self.open(node, call)?.run(call, inputs);
        }
        let key = (call.step.to_owned(), node.to_owned());
        let slot = Arc::clone(lock(&self.instances).entry(key).or_default());
        let mut slot = lock(&slot);
        let mut instance = match slot.take() {
            Some(instance) => instance,
            None => self.begin(node, call)?,
        };
        let outputs = instance.run(call, inputs);
        if !instance.is_broken() {
            *slot = Some(instance);
        }
        outputs
    }

    /// An instance that goes on where one of an earlier build stopped, or a fresh one.
    fn begin(&self, node: &str, call: &Call<'_>) -> Result<Box<dyn Instance>> {
        let before = lock(&self.before).clone();
        let saved = before.iter().find_map(|before| before.surrender(node, call)).flatten();
        // A build is told to shut down when nobody holds it any more.
        lock(&self.before).retain(|before| before.has_state());
        drop(before);
        if let Some(saved) = saved {
            match self.artifact.open(node, Some(&saved), call) {
                Ok(instance) => return Ok(instance),
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(error) => {
                    let (plugin, step) = (&self.id, call.step);
                    tracing::warn!(plugin, step, "State is not taken over: {error}");
                }
            }
        }
        self.open(node, call)
    }

    /// Gives up a step's instance, if it has one: its state, if that can be saved.
    fn surrender(&self, node: &str, call: &Call<'_>) -> Option<Option<Vec<u8>>> {
        let slot = lock(&self.instances).remove(&(call.step.to_owned(), node.to_owned()))?;
        let instance = lock(&slot).take();
        let saved = instance.map(|mut instance| instance.save(call)).transpose();
        saved.map(Option::flatten).map_or_else(
            |error| {
                tracing::warn!(plugin = self.id, "State is not saved: {error}");
                Some(None)
            },
            Some,
        )
    }
}
