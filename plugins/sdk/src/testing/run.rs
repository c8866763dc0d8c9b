//! Opening and running nodes through the same C shim that the engine calls.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::ptr::{null, null_mut};

use kino_abi::{KinoInstance, KinoPlugin};

use super::call::{CallState, Logged, Said};
use super::ports::{Ports, fed};
use crate::host::strings::{bytes, lend, lend_bytes};
use crate::node::{self, NodeDef, Plugin};
use crate::port::{Input, Output};
use crate::shim::{Table, make_table, watch_panics};
use crate::{Error, Frames, Result, Tensor, Value};

/// A plugin of one node.
struct Only<N>(PhantomData<N>);

impl<N: node::Node> Plugin for Only<N> {
    const NODES: &'static [NodeDef] = &[NodeDef::of::<N>()];
}

/// Runs a node once: `testing::run::<gain>().input("frames", frames).param("gain", 2.0).call()?`.
pub fn run<N: node::Node>() -> Run<'static> {
    Run::new(Target::Own(open::<N>()))
}

/// Opens a node: `testing::open::<Grain>().file("a.cube", bytes).done()?`.
pub fn open<N: node::Node>() -> Opening {
    crate::log::install();
    watch_panics();
    Opening { table: make_table::<Only<N>>, id: N::ID, files: BTreeMap::new(), saved: None }
}

/// The descriptor of a node, as the engine gets it (JSON).
///
/// # Errors
/// When ports have one name.
pub fn descriptor<N: node::Node>() -> Result<String> {
    node::descriptor(Only::<N>::NODES)
}

/// A node that is about to be opened.
pub struct Opening {
    table: fn() -> Result<Table>,
    id: &'static str,
    files: BTreeMap<PathBuf, Vec<u8>>,
    saved: Option<Vec<u8>>,
}

impl Opening {
    /// Grants a file with these contents to the node.
    ///
    /// # Panics
    /// When no file can be granted by this path: it is relative to the graph, without `..`.
    #[must_use]
    #[track_caller]
    pub fn file(mut self, path: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.files.insert(granted(path), contents.into());
        self
    }

    /// Opens it with the state of an earlier instance.
    #[must_use]
    pub fn saved(mut self, state: impl Into<Vec<u8>>) -> Self {
        self.saved = Some(state.into());
        self
    }

    /// Opens it.
    ///
    /// # Errors
    /// What the node's own code says.
    pub fn done(self) -> Result<Opened> {
        let Table(table) = (self.table)()?;
        // SAFETY: the table leaks its descriptor.
        let descriptor = String::from_utf8_lossy(unsafe { bytes(table.descriptor) });
        let ports = Ports::read(&descriptor, self.id)?;
        let mut instance = null_mut();
        let state = CallState::new(self.files.clone(), Vec::new(), None);
        let saved = self.saved.as_deref().map_or(lend_bytes_of_none(), lend_bytes);
        // SAFETY: the call lasts, strings are lent, the place is valid.
        let (ended, said) =
            unsafe { state.during(|call| (table.open)(call, lend(self.id), saved, &mut instance)) };
        ended?;
        Ok(Opened { id: self.id, table, instance, ports, files: self.files, logs: said.logs })
    }
}

fn lend_bytes_of_none() -> kino_abi::KinoStr {
    kino_abi::KinoStr { data: std::ptr::null(), len: 0 }
}

/// An instance of a node. It closes when it is dropped.
pub struct Opened {
    pub(super) id: &'static str,
    table: KinoPlugin,
    instance: *mut KinoInstance,
    ports: Ports,
    files: BTreeMap<PathBuf, Vec<u8>>,
    logs: Vec<Logged>,
}

impl Opened {
    /// Runs it once.
    pub fn run(&mut self) -> Run<'_> {
        Run::new(Target::Lent(self))
    }

    /// The state that a newer build may restore.
    ///
    /// # Errors
    /// What the node's own code says.
    pub fn save(&mut self) -> Result<Option<Vec<u8>>> {
        let mut state = null_mut();
        let call = CallState::new(self.files.clone(), Vec::new(), None);
        // SAFETY: the call lasts, the instance is open, the place is valid.
        let (ended, _) =
            unsafe { call.during(|call| (self.table.save)(call, self.instance, &mut state)) };
        ended?;
        // SAFETY: the state belongs to whoever asked for it.
        let state = unsafe { Value::from_raw(state) };
        state.map(|state| state.to_bytes()).transpose()
    }

    /// What it logged while it was opened.
    pub fn logs(&self) -> &[Logged] {
        &self.logs
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: `open` made the instance; nothing uses it afterwards.
        unsafe { (self.table.close)(self.instance) }
    }
}

/// A granted path as it is looked up.
#[track_caller]
fn granted(path: &str) -> PathBuf {
    match kino_contract::path::clean(path) {
        Ok(clean) if clean.as_os_str().is_empty() => panic!("`{path}` names no file"),
        Ok(clean) => clean,
        Err(why) => panic!("`{path}` cannot be granted: {why}"),
    }
}

enum Target<'a> {
    Own(Opening),
    Lent(&'a mut Opened),
}

/// A run that is about to happen.
pub struct Run<'a> {
    target: Target<'a>,
    inputs: Vec<(String, Result<Option<Value>>)>,
    unwanted: Vec<String>,
    lasts: Option<u64>,
}

impl<'a> Run<'a> {
    fn new(target: Target<'a>) -> Self {
        Run { target, inputs: Vec::new(), unwanted: Vec::new(), lasts: None }
    }

    /// Feeds an input: frames, a tensor, a number, a text, an own type, a list of them.
    #[must_use]
    pub fn input(mut self, name: &str, value: impl Output) -> Self {
        self.inputs.push((name.into(), value.give()));
        self
    }

    /// The same, for what is a parameter.
    #[must_use]
    pub fn param(self, name: &str, value: impl Output) -> Self {
        self.input(name, value)
    }

    /// Feeds the first three inputs of a guider.
    #[must_use]
    pub fn sampling_step(self, now: crate::SamplingStep) -> Self {
        self.input("step", now.index).input("of", now.count).input("sigma", now.sigma)
    }

    /// What [`Run::sampling_step`] was called.
    #[deprecated(note = "it is called `sampling_step`")]
    #[must_use]
    pub fn moment(self, moment: impl Into<crate::SamplingStep>) -> Self {
        self.sampling_step(moment.into())
    }

    /// Grants a file with these contents to the node.
    ///
    /// # Panics
    /// As [`Opening::file`].
    #[must_use]
    #[track_caller]
    pub fn file(mut self, path: &str, contents: impl Into<Vec<u8>>) -> Self {
        let files = match &mut self.target {
            Target::Own(opening) => &mut opening.files,
            Target::Lent(opened) => &mut opened.files,
        };
        files.insert(granted(path), contents.into());
        self
    }

    /// Leaves an output unread.
    #[must_use]
    pub fn without(mut self, output: &str) -> Self {
        self.unwanted.push(output.into());
        self
    }

    /// Cancels the run once the node has asked this many times.
    #[must_use]
    pub fn cancel_after(mut self, asked: u64) -> Self {
        self.lasts = Some(asked);
        self
    }

    /// Runs it.
    ///
    /// # Errors
    /// What the node says; also where an input is unknown, missing, or out of its range.
    pub fn call(self) -> Result<Done> {
        let Run { target, inputs, unwanted, lasts } = self;
        match target {
            Target::Own(opening) => {
                let mut opened = opening.done()?;
                let mut done = opened.call(inputs, &unwanted, lasts)?;
                // What it logged while it was opened comes first.
                done.said.logs.splice(0..0, std::mem::take(&mut opened.logs));
                Ok(done)
            }
            Target::Lent(opened) => opened.call(inputs, &unwanted, lasts),
        }
    }
}

impl Opened {
    fn call(
        &mut self,
        given: Vec<(String, Result<Option<Value>>)>,
        unwanted: &[String],
        lasts: Option<u64>,
    ) -> Result<Done> {
        let mut values: Vec<Option<Value>> = vec![None; self.ports.inputs.len()];
        for (name, value) in given {
            values[self.ports.input(&name)?] = value?;
        }
        let ports = self.ports.inputs.iter().zip(values);
        let inputs = ports.map(|(port, value)| fed(port, value)).collect::<Result<Vec<_>>>()?;
        self.ports.agree(&inputs)?;
        let raw: Vec<_> =
            inputs.iter().map(|input| input.as_ref().map_or(null(), Value::raw)).collect();
        let unwanted: Vec<_> =
            unwanted.iter().map(|name| self.ports.output(name)).collect::<Result<_>>()?;
        let mut outputs = vec![null_mut(); self.ports.outputs.len()];
        let state = CallState::new(self.files.clone(), unwanted.clone(), lasts);
        // SAFETY: the call lasts; inputs and places for outputs are lent with their numbers.
        let (ended, said) = unsafe {
            state.during(|call| {
                let (to, count) = (outputs.as_mut_ptr(), outputs.len());
                (self.table.run)(call, self.instance, raw.as_ptr(), raw.len(), to, count)
            })
        };
        // SAFETY: outputs belong to whoever called, after a failure as well.
        let outputs: Vec<_> =
            outputs.into_iter().map(|output| unsafe { Value::from_raw(output) }).collect();
        ended?;
        let outputs = self.ports.given(outputs, &inputs, &unwanted)?;
        let names = self.ports.outputs.iter().map(|port| port.name.to_string()).collect();
        Ok(Done { names, outputs, said })
    }
}

/// What a run gave.
pub struct Done {
    pub(super) names: Vec<String>,
    pub(super) outputs: Vec<Option<Value>>,
    said: Said,
}

impl Done {
    /// An output, as what it is: `get::<Depth>("depth")`, `get::<Vec<String>>("titles")`, or
    /// `get::<Option<f64>>("mean")` of one that may be left out.
    ///
    /// # Errors
    /// When there is none of this name, or it is something else.
    pub fn get<T: Input>(&self, name: &str) -> Result<T> {
        let at = self.names.iter().position(|output| output == name).ok_or_else(|| {
            Error::new(format!("there is no output `{name}`, only {}", self.names.join(", ")))
        })?;
        match &self.outputs[at] {
            None if !T::ARITY.starts_with("optional") => {
                Err(Error::new(format!("the node left output `{name}` out")))
            }
            value => T::take(value.clone()),
        }
    }

    /// Whether the node gave an output.
    pub fn has(&self, name: &str) -> bool {
        let at = self.names.iter().position(|output| output == name);
        at.is_some_and(|at| self.outputs[at].is_some())
    }

    /// Frames.
    ///
    /// # Errors
    /// As [`Done::get`]; so for all that follow.
    pub fn frames(&self, name: &str) -> Result<Frames> {
        self.get(name)
    }

    /// A tensor.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        self.get(name)
    }

    /// A text.
    pub fn text(&self, name: &str) -> Result<String> {
        self.get(name)
    }

    /// A real number.
    pub fn real(&self, name: &str) -> Result<f64> {
        self.get(name)
    }

    /// A whole number.
    pub fn int(&self, name: &str) -> Result<i128> {
        self.get(name)
    }

    /// What the node reported: pieces done, of how many.
    pub fn progress(&self) -> &[(u64, u64)] {
        &self.said.progress
    }

    /// What the node logged.
    pub fn logs(&self) -> &[Logged] {
        &self.said.logs
    }
}
