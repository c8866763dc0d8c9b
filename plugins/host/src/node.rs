//! A plugin's node as the engine sees it, and guiders that plugins make.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use kino_contract::{NodeSpec, Pictures, advice_on};
use kino_node::{
    Cancel, Cx, Error, FilePolicy, Frames, FramesFact, GraphId, Guider, GuiderHandle, GuiderState,
    Inputs, Ledger, Mask, MaskFact, Node, Outputs, Result, SamplingStep, Services, Value,
};
use kino_port::{Fact, Facts, PlanError, PlannedRead, Port, Signature, StepInfo};

use crate::module::{CallCx, Instance, PluginFiles};
use crate::plugin::Plugin;

/// The nodes of a build of a plugin.
pub fn plugin_nodes(plugin: &Arc<Plugin>) -> Vec<Arc<dyn Node>> {
    let node = |spec: &NodeSpec| -> Arc<dyn Node> {
        let mut spec = spec.clone();
        // Authors change code without changing the version; plans tell builds apart.
        if let Some(build) = plugin.sha256.get(..8) {
            let version = format!("{} build {build}", spec.signature.version);
            spec.signature.version = version.into();
        }
        Arc::new(PluginNode { plugin: Arc::clone(plugin), spec })
    };
    plugin.descriptor().nodes.iter().map(node).collect()
}

/// A node of a plugin.
struct PluginNode {
    plugin: Arc<Plugin>,
    spec: NodeSpec,
}

impl Node for PluginNode {
    fn signature(&self) -> &Signature {
        &self.spec.signature
    }

    /// The key holds the build and the files that it may read. An output that is like an input is
    /// known as far as that is.
    fn infer(&self, services: &Services, facts: &Facts) -> Result<StepInfo, Vec<PlanError>> {
        let reads = match services.only_checks() {
            true => Vec::new(),
            false => self.granted(services)?,
        };
        let mut key = self.plugin.sha256.clone().into_bytes();
        for read in &reads {
            key.extend((read.path.len() as u64).to_le_bytes());
            key.extend(read.path.bytes());
            key.extend(read.hash.bytes());
        }
        let inputs = &self.spec.signature.inputs;
        let fact = |like: &Option<usize>| {
            let port = like.and_then(|index| inputs.get(index));
            port.and_then(|port| facts.get(&port.name)).cloned().unwrap_or(Fact::Unknown)
        };
        let outputs = self.spec.like.iter().map(fact).collect();
        let errors = self.disagreements(|index| {
            let items = facts.items(&inputs[index].name).into_iter();
            items.filter_map(known_pictures).collect()
        });
        let errors: Vec<_> = errors
            .into_iter()
            .map(|(input, message, hint)| PlanError::at(&input, message).hint(hint))
            .collect();
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(StepInfo { outputs, key, reads, ..StepInfo::default() })
    }

    fn run(&self, cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
        let values = inputs.fitted()?;
        if self.spec.guider {
            let guider = PluginGuider {
                plugin: Arc::clone(&self.plugin),
                spec: self.spec.clone(),
                step: cx.name.to_owned(),
                parameters: values,
                device: cx.services.device.clone(),
                ledger: Arc::clone(&cx.services.ledger),
                policy: policy(cx.services),
            };
            return Ok(vec![Some(Value::from(GuiderHandle(Arc::new(guider))))]);
        }
        let mut errors = self.disagreements(|index| match &values[index] {
            Some(Value::List(items)) => items.iter().filter_map(|(_, item)| held(item)).collect(),
            value => value.iter().filter_map(held).collect(),
        });
        if !errors.is_empty() {
            let (_, message, hint) = errors.swap_remove(0);
            return Err(Error::advised(message, hint));
        }
        let graph = cx.services.find::<GraphId>();
        let policy = policy(cx.services);
        let files = self.plugin.files_of_run(&policy);
        files.check()?;
        let call = CallCx {
            graph: graph.as_deref(),
            plugin: &self.plugin.id,
            step: cx.name,
            device: &cx.services.device,
            ledger: &cx.services.ledger,
            cancel: cx.cancel,
            wanted: cx.wanted,
            report: cx.report,
            files: &files,
            limits: self.plugin.limits,
            log_sink: None,
        };
        let outputs = self.plugin.run(&self.spec, &call, &values)?;
        self.fit(outputs, &values, cx.device())
    }
}

/// Count, height and width of pictures, and whether they are a mask, as far as they are known.
type Known = ([Option<usize>; 3], bool);

fn known_pictures(fact: &Fact) -> Option<Known> {
    if let Some(frames) = fact.get::<FramesFact>() {
        return Some(([frames.count, frames.height, frames.width], false));
    }
    fact.get::<MaskFact>().map(|mask| (mask.shape, true))
}

/// The same of a value.
fn held(value: &Value) -> Option<Known> {
    if let Some(frames) = value.get::<Frames>() {
        return Some(([frames.count(), frames.height(), frames.width()].map(Some), false));
    }
    let (count, height, width) = value.get::<Mask>()?.tensor.dims3().ok()?;
    Some(([count, height, width].map(Some), true))
}

/// What the run may read.
fn policy(services: &Services) -> Arc<FilePolicy> {
    services.find().unwrap_or_default()
}

impl PluginNode {
    /// Which inputs do not agree that must: the input, what does not hold, and what to do.
    fn disagreements(
        &self,
        known: impl Fn(usize) -> Vec<Known>,
    ) -> Vec<(String, String, &'static str)> {
        let signature = &self.spec.signature;
        let pictures = |index: &usize| {
            let port = &signature.inputs[*index];
            let known = known(*index).into_iter();
            known.map(|([count, height, width], is_mask)| Pictures {
                input: port.name.to_string(),
                count,
                height,
                width,
                is_mask,
            })
        };
        let checked = self.spec.agree.iter().filter_map(|agreement| {
            let pictures: Vec<_> = agreement.inputs.iter().flat_map(pictures).collect();
            let error = agreement.check(&signature.name, &pictures).err()?;
            Some((error.input, error.message, advice_on(agreement.what)))
        });
        checked.collect()
    }

    /// What it may read, hashed.
    fn granted(&self, services: &Services) -> Result<Vec<PlannedRead>, Vec<PlanError>> {
        let cancel = services.find::<Cancel>();
        let stopped = || cancel.as_ref().is_some_and(|cancel| cancel.is_cancelled());
        let policy = policy(services);
        let reads = self.plugin.files_of_run(&policy).fingerprint_grants(&stopped);
        reads.map_err(|error| {
            let hint = error.hint().map(str::to_owned);
            vec![PlanError { hint, ..PlanError::new(error.to_string()) }]
        })
    }

    /// Holds outputs against what the plugin promised of its ports.
    fn fit(
        &self,
        outputs: Vec<Option<Value>>,
        inputs: &[Option<Value>],
        device: &Device,
    ) -> Result<Outputs> {
        let ports = &self.spec.signature.outputs;
        if outputs.len() != ports.len() {
            let (expected, found) = (ports.len(), outputs.len());
            return Err(
                self.contract_error(format!("it gave {found} outputs instead of {expected}"))
            );
        }
        let fit = |((port, value), like): ((&Port, Option<Value>), &Option<usize>)| {
            let Some(value) = value else { return Ok(None) };
            let contract_error =
                |what: String| self.contract_error(format!("output `{}`: {what}", port.name));
            let value = value.fit(&port.ty).map_err(|what| contract_error(what.to_string()))?;
            if let Some((index, Some(input))) = like.map(|index| (index, &inputs[index])) {
                let name = &self.spec.signature.inputs[index].name;
                let (found, promised) = (value.extent(), input.extent());
                if found != promised {
                    return Err(contract_error(format!(
                        "{found} is not like `{name}`, {promised}"
                    )));
                }
            }
            value.to_device(device).map(Some)
        };
        ports.iter().zip(outputs).zip(&self.spec.like).map(fit).collect()
    }

    fn contract_error(&self, what: String) -> Error {
        Error::broken(
            format!("the plugin `{}` breaks its promise: {what}", self.plugin.id),
            "this is a bug of the plugin; please report it to its author",
        )
    }
}

/// A guider of a plugin: parameters, and the node to run once a step.
#[derive(Clone)]
struct PluginGuider {
    plugin: Arc<Plugin>,
    spec: NodeSpec,
    step: String,
    parameters: Vec<Option<Value>>,
    device: Device,
    ledger: Arc<Ledger>,
    policy: Arc<FilePolicy>,
}

impl Guider for PluginGuider {
    fn begin(&self, cancel: &Cancel) -> Box<dyn GuiderState> {
        let (guider, cancel) = (self.clone(), cancel.clone());
        Box::new(PluginGuidance { guider, cancel, instance: None })
    }
}

impl PluginGuider {
    fn parameter(&self, name: &str) -> Option<f64> {
        let (index, _) = self.spec.signature.input(name)?;
        match self.parameters.get(index)?.as_ref()? {
            Value::Real(value) => Some(*value),
            Value::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    fn wrong(&self, found: String) -> Error {
        Error::broken(
            format!(
                "the guider `{}` of `{}` gave {found} instead of a velocity",
                self.spec.signature.name, self.plugin.id
            ),
            "it has the shape of `with_text`; please report this to the plugin's author",
        )
    }
}

/// A guider of a plugin within one sampling run of one clip: an instance of its own.
struct PluginGuidance {
    guider: PluginGuider,
    cancel: Cancel,
    instance: Option<Box<dyn Instance>>,
}

impl GuiderState for PluginGuidance {
    fn guides(&self, step: SamplingStep) -> bool {
        let at = step.index as f64 / step.count.max(1) as f64;
        let end = |name, open| self.guider.parameter(name).unwrap_or(open);
        at >= end("from", 0.0) && at < end("to", 1.0)
    }

    fn guide(&mut self, now: SamplingStep, with_text: &Tensor, without: &Tensor) -> Result<Tensor> {
        let PluginGuider { plugin, spec, step, parameters, device, ledger, policy } = &self.guider;
        let files = plugin.files_of_run(policy);
        let call = CallCx {
            graph: None,
            plugin: &plugin.id,
            step,
            device,
            ledger,
            cancel: &self.cancel,
            wanted: &[true],
            report: &|_| {},
            files: &files,
            limits: plugin.limits,
            log_sink: None,
        };
        let mut inputs = vec![
            Some(Value::Int(now.index as i128)),
            Some(Value::Int(now.count as i128)),
            Some(Value::Real(now.sigma.0)),
            Some(Value::Tensor(with_text.clone())),
            Some(Value::Tensor(without.clone())),
        ];
        inputs.extend(parameters.iter().cloned());
        let instance = match &mut self.instance {
            Some(instance) => instance,
            none => none.insert(plugin.open(&spec.signature.name, &call)?),
        };
        let velocity = instance.run(&call, &inputs)?.into_iter().next().flatten();
        instance.charge_retained(&call)?;
        let Some(Value::Tensor(velocity)) = velocity else {
            return Err(self.guider.wrong("no tensor".to_owned()));
        };
        if velocity.dims() != with_text.dims() {
            return Err(self.guider.wrong(format!("a tensor {:?}", velocity.dims())));
        }
        Ok(velocity.to_device(with_text.device())?.to_dtype(with_text.dtype())?)
    }
}
