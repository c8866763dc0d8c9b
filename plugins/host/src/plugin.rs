//! One build of a plugin as the engine uses it: its code with what it may do, and the state of its
//! nodes.

use std::sync::{Arc, OnceLock};

use kino_contract::{Descriptor, NodeSpec};
use kino_node::{Error, FilePolicy, GraphId, Result, Value};

use crate::module::{CallCx, FilesOfRun, Instance, Limits, Module, PluginFiles};
use crate::state::{Kept, NodeState, NodeStates, StateKey, StepState, saved};

/// One build of a plugin. A newer build is another one, which may inherit the state of this.
pub struct Plugin {
    /// The plugin's id.
    pub id: String,
    /// The sha256 of the artifact, in hexadecimal: it enters the keys of all its nodes.
    pub sha256: String,
    /// What it may use up in one call.
    pub limits: Limits,
    /// What it may read.
    pub files: Arc<dyn PluginFiles>,
    module: Arc<dyn Module>,
    lineage: OnceLock<Lineage>,
}

/// What the builds of a plugin that follow each other have in common.
#[derive(Default)]
struct Lineage {
    states: Arc<NodeStates>,
    /// How many builds came before.
    build: u64,
}

impl Plugin {
    /// A loaded build of plugin `id`.
    pub fn new(
        id: impl Into<String>,
        sha256: impl Into<String>,
        module: Arc<dyn Module>,
        files: Arc<dyn PluginFiles>,
        limits: Limits,
    ) -> Arc<Self> {
        let (id, sha256, lineage) = (id.into(), sha256.into(), OnceLock::new());
        Arc::new(Plugin { id, sha256, limits, files, module, lineage })
    }

    /// Lets the nodes of this build begin with the state of those of an earlier one. It must not
    /// have run yet.
    pub fn inherit(&self, before: &Arc<Plugin>) {
        let Lineage { states, build } = before.lineage();
        let lineage = Lineage { states: Arc::clone(states), build: build + 1 };
        if self.lineage.set(lineage).is_err() {
            tracing::debug!(plugin = self.id, "State is not inherited: this build ran before.");
        }
    }

    fn lineage(&self) -> &Lineage {
        self.lineage.get_or_init(Lineage::default)
    }

    /// Forgets the state of a graph's steps, of this build and of those before, but for those that
    /// `keep` names by step and node: the graph has no others any more, or nobody will run it.
    pub fn forget(&self, graph: &GraphId, keep: &dyn Fn(&str, &str) -> bool) {
        self.lineage().states.forget(graph, keep);
    }

    /// The files that it may read in a run with this policy.
    pub(crate) fn files_of_run<'a>(&'a self, policy: &'a FilePolicy) -> FilesOfRun<'a> {
        FilesOfRun { plugin: &self.id, files: &*self.files, policy }
    }

    /// What the plugin says of its nodes.
    pub fn descriptor(&self) -> &Descriptor {
        self.module.descriptor()
    }

    /// A fresh instance without earlier state.
    pub(crate) fn open(&self, node: &str, call: &CallCx<'_>) -> Result<Box<dyn Instance>> {
        self.module.open(node, None, call)
    }

    /// Runs a node: a fresh instance, or the one of this step of the graph where the node has
    /// state. A run that uses the state of a step has it alone; another one waits for it.
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
        let (step, node_id) = (call.step.to_owned(), node.to_owned());
        let key = StateKey { graph: call.graph.cloned(), step, node: node_id };
        let reads = self.files.fingerprint_grants(&|| call.cancel.is_cancelled())?;
        let Lineage { states, build } = self.lineage();
        let mut held = states.take(key, call.cancel)?;
        if held.step.build > *build {
            // A newer build has taken over while this run was under way; its state stays with it.
            drop(held);
            return self.open(node, call)?.run(call, inputs);
        }
        let before = std::mem::take(&mut held.step);
        let mut instance = if before.reads == reads {
            match self.take_state(before, call) {
                NodeState::Open(instance, _) => instance,
                NodeState::Saved(saved) => match self.resume(node, &saved, call) {
                    Ok(instance) => instance,
                    Err(error) => {
                        let state = NodeState::Saved(saved);
                        held.step = StepState { state, reads, build: *build };
                        return Err(error);
                    }
                },
                NodeState::Empty => self.open(node, call)?,
            }
        } else {
            drop(before);
            self.open(node, call)?
        };
        let outputs = instance.run(call, inputs);
        let outputs = outputs.and_then(|outputs| {
            instance.charge_retained(call)?;
            Ok(outputs)
        });
        if !instance.is_broken() {
            let state = NodeState::Open(instance, Kept::new());
            held.step = StepState { state, reads, build: *build };
        }
        drop(held);
        states.trim(&self.id, call);
        outputs
    }

    /// The state that this build goes on with: an instance of an earlier one gives up what it has.
    fn take_state(&self, before: StepState, call: &CallCx<'_>) -> NodeState {
        match before.state {
            NodeState::Open(instance, _) if before.build < self.lineage().build => {
                saved(instance, &self.id, call)
            }
            state => state,
        }
    }

    /// An instance with a state that was saved, or a fresh one if it cannot use that.
    fn resume(&self, node: &str, saved: &[u8], call: &CallCx<'_>) -> Result<Box<dyn Instance>> {
        match self.module.open(node, Some(saved), call) {
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(error) => {
                let (plugin, step) = (&self.id, call.step);
                tracing::warn!(plugin, step, "State is not kept across the reload: {error}");
                self.open(node, call)
            }
            opened => opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Barrier, Mutex, MutexGuard, PoisonError};

    use candle_core::{DType, Device, Tensor};
    use kino_node::{Cancel, Inputs, Ledger, Services};
    use kino_port::PlannedRead;

    use super::*;
    use crate::node::plugin_nodes;
    use crate::state::{MAX_OPEN, MAX_OPEN_OF_ALL};
    use crate::{Descriptor, NoFiles};

    fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

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

    /// Runs a counting node of a graph, and gives its count.
    fn count_in(plugin: &Plugin, graph: Option<&GraphId>, step: &str) -> i128 {
        let (ledger, cancel) = (Ledger::new(0), Cancel::default());
        let outside = CallCx::outside("a", &ledger, &cancel, &*plugin.files);
        let call = CallCx { graph, step, ..outside };
        let outputs = plugin.run(&plugin.descriptor().nodes[0], &call, &[]).unwrap();
        let [Some(Value::Int(count))] = outputs[..] else { panic!("a number") };
        count
    }

    fn count(plugin: &Plugin, step: &str) -> i128 {
        count_in(plugin, None, step)
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
                assert!(alive <= 2 * MAX_OPEN, "{alive}");
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

    /// However many plugins keep state, and folders of them: instances take places of the process.
    #[test]
    fn all_plugins_together_keep_few_instances_open() {
        let _alone = lock(&COUNTS);
        let counting = counting();
        let build = || Plugin::new("a", "", counting.clone(), Arc::new(NoFiles), Limits::default());
        let plugins: Vec<_> = (0..5).map(|_| build()).collect();
        for turn in 1..=2 {
            for plugin in &plugins {
                for step in 0..MAX_OPEN {
                    assert_eq!(count(plugin, &format!("step{step}")), turn, "step {step}");
                    let alive = ALIVE.load(Ordering::SeqCst);
                    assert!(alive <= MAX_OPEN_OF_ALL + 1, "{alive}");
                }
            }
        }
    }

    /// Steps of one name in two graphs have nothing in common, and what is closed is forgotten.
    #[test]
    fn state_belongs_to_a_graph() {
        let _alone = lock(&COUNTS);
        let counting = counting();
        let build = || Plugin::new("a", "", counting.clone(), Arc::new(NoFiles), Limits::default());
        let (one, two) = (GraphId("one".into()), GraphId("two".into()));
        let first = build();
        let run = |plugin: &Plugin, graph| count_in(plugin, Some(graph), "step");
        assert_eq!([run(&first, &one), run(&first, &one), run(&first, &two)], [1, 2, 1]);
        let second = build();
        second.inherit(&first);
        assert_eq!([run(&second, &two), run(&second, &one)], [2, 3]);
        second.forget(&one, &|_, _| false);
        assert_eq!(ALIVE.load(Ordering::SeqCst), 1);
        assert_eq!([run(&second, &one), run(&second, &two)], [1, 3]);
    }

    /// A run that goes on with an older build neither takes state away from the newer one, nor
    /// gives it state.
    #[test]
    fn a_build_that_was_replaced_leaves_state_alone() {
        let _alone = lock(&COUNTS);
        let counting = counting();
        let build = || Plugin::new("a", "", counting.clone(), Arc::new(NoFiles), Limits::default());
        let (older, newer) = (build(), build());
        assert_eq!([count(&older, "step"), count(&older, "step")], [1, 2]);
        newer.inherit(&older);
        assert_eq!(count(&newer, "step"), 3);
        assert_eq!([count(&older, "step"), count(&older, "step")], [1, 1]);
        assert_eq!(count(&newer, "step"), 4);
    }

    /// A node with state that does not end until it is told.
    struct Slow(Descriptor, Arc<[Barrier; 2]>);

    struct SlowRun(Arc<[Barrier; 2]>);

    impl Module for Slow {
        fn descriptor(&self) -> &Descriptor {
            &self.0
        }

        fn open(&self, _: &str, _: Option<&[u8]>, _: &CallCx<'_>) -> Result<Box<dyn Instance>> {
            Ok(Box::new(SlowRun(Arc::clone(&self.1))))
        }
    }

    impl Instance for SlowRun {
        fn run(&mut self, _: &CallCx<'_>, _: &[Option<Value>]) -> Result<Vec<Option<Value>>> {
            for barrier in self.0.iter() {
                barrier.wait();
            }
            Ok(vec![Some(Value::Int(1))])
        }

        fn save(&mut self, _: &CallCx<'_>) -> Result<Option<Vec<u8>>> {
            Ok(None)
        }

        fn is_broken(&self) -> bool {
            false
        }
    }

    /// Who waits for a step's state that another run has can be cancelled.
    #[test]
    fn who_waits_for_state_can_be_cancelled() {
        let barriers = Arc::new([Barrier::new(2), Barrier::new(2)]);
        let module = Arc::new(Slow(counting().0.clone(), Arc::clone(&barriers)));
        let plugin = Plugin::new("a", "", module, Arc::new(NoFiles), Limits::default());
        let node = plugin_nodes(&plugin).remove(0);
        let services = Services::new(Device::Cpu, Ledger::new(0));
        let services = services.with(Arc::new(GraphId("g".into())));
        let run = |cancel: &Cancel| {
            let mut cx = kino_node::Cx {
                name: "step",
                services: &services,
                cancel,
                record: "",
                reads: &[],
                wanted: &[true],
                report: &|_| {},
            };
            node.run(&mut cx, &Inputs::new(&[], &[]))
        };
        let run = &run;
        std::thread::scope(|scope| {
            let first = scope.spawn(|| run(&Cancel::default()));
            // The first one is within its run.
            barriers[0].wait();
            let cancel = Cancel::default();
            let waiting = scope.spawn({
                let cancel = cancel.clone();
                move || run(&cancel)
            });
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!waiting.is_finished(), "a step's state is used by one run at a time");
            cancel.cancel();
            assert!(matches!(waiting.join().unwrap(), Err(Error::Cancelled)));
            assert!(!first.is_finished());
            barriers[1].wait();
            assert!(first.join().unwrap().is_ok());
        });
    }

    /// Files that a test changes.
    struct Changing(AtomicUsize);

    impl PluginFiles for Changing {
        fn read(&self, path: &str) -> Result<Vec<u8>> {
            Err(Error::failed(path.to_owned()))
        }

        fn fingerprint_grants(&self, _: &dyn Fn() -> bool) -> Result<Vec<PlannedRead>> {
            let hash = self.0.load(Ordering::SeqCst).to_string();
            Ok(vec![PlannedRead { path: "a".into(), hash, ..PlannedRead::default() }])
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
        let node = plugin_nodes(&plugin).into_iter().next().unwrap();
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
