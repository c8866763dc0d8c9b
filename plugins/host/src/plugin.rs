//! One build of a plugin as the engine uses it: its artifact with what it may do, and the instances
//! of its nodes that have state.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kino_contract::NodeSpec;
use kino_node::{Error, Node, Result, Value};
use kino_port::Read;

use crate::module::{CallCx, Files, Instance, Limits, Module};
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
    artifact: Arc<dyn Module>,
    /// Instances of nodes with state, by the step's name and the node's id.
    instances: Mutex<HashMap<(String, String), Slot>>,
    /// Those that are open, the one that ran last at the end.
    open: Mutex<Vec<(String, String)>>,
    /// Earlier builds with state that nobody has taken over, the newest first.
    before: Mutex<Vec<Arc<Plugin>>>,
}

/// Instances that are kept open; of those that ran longest ago, the state is saved instead.
const MOST_OPEN: usize = 64;

/// The instance of a step, or what it saved.
#[derive(Default)]
enum Kept {
    #[default]
    Nothing,
    Open(Box<dyn Instance>),
    Saved(Vec<u8>),
}

/// What is kept of a step, and what its plugin could read when it was loaded: state that was made
/// of other files is none.
#[derive(Default)]
struct Step {
    kept: Kept,
    reads: Vec<Read>,
}

type Slot = Arc<Mutex<Step>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Plugin {
    /// A loaded artifact of plugin `id`.
    pub fn new(
        id: impl Into<String>,
        sha256: impl Into<String>,
        artifact: Arc<dyn Module>,
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
            open: Mutex::default(),
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
    pub(crate) fn open(&self, node: &str, call: &CallCx<'_>) -> Result<Box<dyn Instance>> {
        self.artifact.open(node, None, call)
    }

    /// Runs a node: a fresh instance, or the one of this step where the node has state.
    pub(crate) fn run(
        &self,
        spec: &NodeSpec,
        call: &CallCx<'_>,
        inputs: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        let node = &*spec.signature.name;
        if !spec.state {
            return self.open(node, call)?.run(call, inputs);
        }
        let key = (call.step.to_owned(), node.to_owned());
        let reads = self.files.fingerprint_grants()?;
        let slot = Arc::clone(lock(&self.instances).entry(key.clone()).or_default());
        let mut slot = lock(&slot);
        let step = std::mem::take(&mut *slot);
        let mut instance = match step.kept {
            Kept::Open(instance) if step.reads == reads => instance,
            Kept::Saved(saved) if step.reads == reads => self.resume(node, &saved, call)?,
            _ => self.begin(node, &reads, call)?,
        };
        let outputs = instance.run(call, inputs);
        if !instance.is_broken() {
            *slot = Step { kept: Kept::Open(instance), reads };
            drop(slot);
            self.make_room(key, call);
        }
        outputs
    }

    /// Notes that an instance is open, and closes the one that ran longest ago where there are many.
    fn make_room(&self, key: (String, String), call: &CallCx<'_>) {
        let idle = {
            let mut open = lock(&self.open);
            open.retain(|other| *other != key);
            open.push(key);
            (open.len() > MOST_OPEN).then(|| open.remove(0))
        };
        let Some(idle) = idle else { return };
        let Some(slot) = lock(&self.instances).get(&idle).cloned() else { return };
        // One that runs just now stays, and is noted again.
        if let Ok(mut slot) = slot.try_lock()
            && let Some(saved) = self.close(std::mem::take(&mut slot.kept), call)
        {
            slot.kept = Kept::Saved(saved);
        }
    }

    /// An instance that goes on where one of an earlier build stopped, or a fresh one.
    fn begin(&self, node: &str, reads: &[Read], call: &CallCx<'_>) -> Result<Box<dyn Instance>> {
        let before = lock(&self.before).clone();
        let saved = before.iter().find_map(|before| before.surrender(node, reads, call));
        // A build is told to shut down when nobody holds it any more.
        lock(&self.before).retain(|before| before.has_state());
        drop(before);
        match saved {
            Some(saved) => self.resume(node, &saved, call),
            None => self.open(node, call),
        }
    }

    /// An instance with a state that was saved, or a fresh one if it cannot use that.
    fn resume(&self, node: &str, saved: &[u8], call: &CallCx<'_>) -> Result<Box<dyn Instance>> {
        match self.artifact.open(node, Some(saved), call) {
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(error) => {
                let (plugin, step) = (&self.id, call.step);
                tracing::warn!(plugin, step, "State is not taken over: {error}");
                self.open(node, call)
            }
            opened => opened,
        }
    }

    /// Gives up a step's instance, if it has one: its state, if that can be saved and was made of
    /// files as they stand.
    fn surrender(&self, node: &str, reads: &[Read], call: &CallCx<'_>) -> Option<Vec<u8>> {
        let slot = lock(&self.instances).remove(&(call.step.to_owned(), node.to_owned()))?;
        let step = std::mem::take(&mut *lock(&slot));
        if step.reads == reads { self.close(step.kept, call) } else { None }
    }

    /// The state of what is closed.
    fn close(&self, kept: Kept, call: &CallCx<'_>) -> Option<Vec<u8>> {
        match kept {
            Kept::Nothing => None,
            Kept::Saved(saved) => Some(saved),
            Kept::Open(mut instance) => instance.save(call).unwrap_or_else(|error| {
                tracing::warn!(plugin = self.id, "State is not saved: {error}");
                None
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use candle_core::{DType, Device, Tensor};
    use kino_node::{Cancel, Inputs, Ledger, Services};

    use super::*;
    use crate::{Descriptor, NoFiles};

    static ALIVE: AtomicUsize = AtomicUsize::new(0);
    /// Held by whoever counts those that are alive.
    static COUNTS: Mutex<()> = Mutex::new(());

    /// A node that counts its runs.
    struct Counting(Descriptor);

    struct Count(u8);

    impl Drop for Count {
        fn drop(&mut self) {
            ALIVE.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl Module for Counting {
        fn descriptor(&self) -> &Descriptor {
            &self.0
        }

        fn open(&self, _: &str, saved: Option<&[u8]>, _: &CallCx<'_>) -> Result<Box<dyn Instance>> {
            ALIVE.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(Count(saved.map_or(0, |saved| saved[0]))))
        }
    }

    impl Instance for Count {
        fn run(&mut self, _: &CallCx<'_>, _: &[Option<Value>]) -> Result<Vec<Option<Value>>> {
            self.0 += 1;
            Ok(vec![Some(Value::Int(self.0.into()))])
        }

        fn save(&mut self, _: &CallCx<'_>) -> Result<Option<Vec<u8>>> {
            Ok(Some(vec![self.0]))
        }

        fn is_broken(&self) -> bool {
            false
        }
    }

    /// Runs a counting node with one output, and gives its count.
    fn count(plugin: &Plugin, step: &str) -> i128 {
        let call = CallCx {
            plugin: "a",
            step,
            device: &Device::Cpu,
            ledger: &Ledger::new(0),
            cancel: &Cancel::default(),
            wanted: &[true],
            report: &|_| {},
            files: &*plugin.files,
            limits: Limits::default(),
            log_sink: None,
        };
        let outputs = plugin.run(&plugin.descriptor().nodes[0], &call, &[]).unwrap();
        let [Some(Value::Int(count))] = outputs[..] else { panic!("a number") };
        count
    }

    fn counting() -> Arc<Counting> {
        let descriptor = r#"{"nodes": [{"id": "a.count", "version": "1", "state": true,
            "outputs": [{"name": "n", "type": "Int"}]}]}"#;
        Arc::new(Counting(Descriptor::read(descriptor).unwrap()))
    }

    #[test]
    fn many_steps_with_state_keep_it_and_few_stay_open() {
        let _alone = lock(&COUNTS);
        let counting = counting();
        let build = || Plugin::new("a", "", counting.clone(), Arc::new(NoFiles), Limits::default());
        let mut plugin = build();
        for turn in 1..=6 {
            for step in 0..300 {
                assert_eq!(count(&plugin, &format!("step{step}")), turn, "step {step}");
                let alive = ALIVE.load(Ordering::SeqCst);
                assert!(alive <= 2 * MOST_OPEN, "{alive}");
            }
            if turn % 2 == 0 {
                let newer = build();
                newer.inherit(&plugin);
                plugin = newer;
            }
        }
        drop(plugin);
        assert_eq!(ALIVE.load(Ordering::SeqCst), 0);
    }

    /// Files that a test changes.
    struct Changing(AtomicUsize);

    impl Files for Changing {
        fn read(&self, path: &str) -> Result<Vec<u8>> {
            Err(Error::failed(path.to_owned()))
        }

        fn fingerprint_grants(&self) -> Result<Vec<Read>> {
            let hash = self.0.load(Ordering::SeqCst).to_string();
            Ok(vec![Read { path: "a".into(), hash, ..Read::default() }])
        }
    }

    /// What a node loaded of a file is not kept when the file changes, nor handed to a newer build.
    #[test]
    fn state_ends_with_the_files_that_it_was_made_of() {
        let _alone = lock(&COUNTS);
        let (counting, files) = (counting(), Arc::new(Changing(AtomicUsize::new(0))));
        let build = || Plugin::new("a", "", counting.clone(), files.clone(), Limits::default());
        let run = |plugin: &Plugin| count(plugin, "step");
        let first = build();
        assert_eq!([run(&first), run(&first)], [1, 2]);
        files.0.store(1, Ordering::SeqCst);
        assert_eq!([run(&first), run(&first)], [1, 2], "loaded anew");
        let second = build();
        second.inherit(&first);
        assert_eq!(run(&second), 3, "the same files: state is handed on");
        files.0.store(2, Ordering::SeqCst);
        let third = build();
        third.inherit(&second);
        assert_eq!(run(&third), 1, "other files: loaded anew");
    }

    /// A node that gives what it gets as `n` frames more.
    struct Longer(Descriptor);

    struct Extend;

    impl Module for Longer {
        fn descriptor(&self) -> &Descriptor {
            &self.0
        }

        fn open(&self, _: &str, _: Option<&[u8]>, _: &CallCx<'_>) -> Result<Box<dyn Instance>> {
            Ok(Box::new(Extend))
        }
    }

    impl Instance for Extend {
        fn run(&mut self, _: &CallCx<'_>, inputs: &[Option<Value>]) -> Result<Vec<Option<Value>>> {
            let (Some(frames), Some(Value::Int(more))) = (&inputs[0], &inputs[1]) else {
                panic!("both are fed")
            };
            let [count, height, width, _] = frames.tensor()?.dims().try_into().unwrap();
            let shape = [count + *more as usize, height, width, 3];
            let tensor = Tensor::zeros(&shape, DType::F32, &Device::Cpu)?;
            Ok(vec![Some(Value::Tensor(tensor))])
        }

        fn save(&mut self, _: &CallCx<'_>) -> Result<Option<Vec<u8>>> {
            Ok(None)
        }

        fn is_broken(&self) -> bool {
            false
        }
    }

    /// Ranges hold for values that only a run knows, and `like` is a promise.
    #[test]
    fn ports_hold_what_they_say() {
        let descriptor = r#"{"nodes": [{"id": "a.longer", "version": "1",
            "inputs": [{"name": "frames", "type": "Frames"},
            {"name": "n", "type": "Int", "range": [0, 8]}],
            "outputs": [{"name": "frames", "type": "Frames", "like": "frames"}]}]}"#;
        let artifact = Arc::new(Longer(Descriptor::read(descriptor).unwrap()));
        let plugin = Plugin::new("a", "", artifact, Arc::new(NoFiles), Limits::default());
        let node = plugin.nodes().into_iter().next().unwrap();
        let services = Services::new(Device::Cpu, Ledger::new(1 << 20));
        let run = |more: i128| {
            let frames = Tensor::zeros((2, 4, 4, 3), DType::F32, &Device::Cpu).unwrap();
            let values = [Some(Value::Tensor(frames)), Some(Value::Int(more))];
            let mut cx = kino_node::Cx {
                name: "step",
                services: &services,
                cancel: &Cancel::default(),
                record: "",
                reads: &[],
                wanted: &[true],
                report: &|_| {},
            };
            let inputs = Inputs::new(&node.signature().inputs, &values);
            node.run(&mut cx, &inputs).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(run(0), Ok(()));
        assert_eq!(run(9).unwrap_err(), "input `n`: expected a whole number from 0 to 8, found 9");
        let lie = run(1).unwrap_err();
        let expected = "output `frames`: 3 frames of 4x4 is not like `frames`, 2 frames of 4x4";
        assert!(lie.ends_with(expected), "{lie}");
    }
}
