//! Nodes with state, and guiders.

use kino_plugin::prelude::*;
use kino_plugin::testing;

/// Counts its runs.
struct Count {
    runs: u64,
    by: u64,
}

/// Counts how often it ran. A file says by how much.
#[node(id = "example.count", version = "1.0.0", output = "count")]
impl Count {
    fn load(cx: &mut Cx) -> Result<Self> {
        Ok(Count { runs: 0, by: cx.read_text("by.txt")?.trim().parse()? })
    }

    fn run(&mut self, #[param(default = 1, range = 1..)] times: u64) -> Result<u64> {
        ensure!(times < 100, "{times} is too much");
        self.runs += self.by * times;
        Ok(self.runs)
    }

    fn save(&self) -> Vec<u8> {
        self.runs.to_le_bytes().to_vec()
    }

    fn restore(cx: &mut Cx, saved: &[u8]) -> Result<Self> {
        Ok(Count { runs: u64::from_le_bytes(saved.try_into()?), ..Count::load(cx)? })
    }
}

/// Keeps the last text, and panics when it is asked to, or when it is dropped with "drop".
#[derive(Default)]
struct Fragile(String);

#[node(id = "example.fragile", version = "1.0.0")]
impl Fragile {
    /// Gives the text before.
    fn run(&mut self, _cx: &mut Cx, text: String) -> String {
        assert_ne!(text, "run", "asked to");
        std::mem::replace(&mut self.0, text)
    }

    fn save(&self) -> Result<Vec<u8>> {
        ensure!(self.0 != "save", "cannot be saved");
        Ok(self.0.clone().into_bytes())
    }

    fn restore(saved: &[u8]) -> Result<Self> {
        Ok(Fragile(String::from_utf8(saved.to_vec())?))
    }
}

/// Has state that nobody keeps.
#[derive(Default)]
struct Forgetful;

#[node(id = "example.forgetful", version = "1.0.0")]
impl Forgetful {
    fn run(&mut self, text: String) -> String {
        text
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        assert_ne!(self.0, "drop", "asked to");
    }
}

/// Keeps a running mean of what the text changes.
#[derive(Default)]
struct Momentum {
    before: Option<Tensor>,
}

/// Guides with momentum.
#[guider(id = "example.momentum", version = "1.0.0")]
impl Momentum {
    fn guide(
        &mut self,
        cx: &mut Cx,
        step: SamplingStep,
        with_text: Tensor,
        without_text: Tensor,
        #[param(default = 4.0, range = 1.0..=30.0)] scale: f64,
    ) -> Result<Tensor> {
        cx.check_cancel()?;
        let change = with_text.sub(&without_text)?;
        let change = match &self.before {
            Some(before) if step.index > 0 => change.add(before)?.mul(0.5)?,
            _ => change,
        };
        self.before = Some(change.clone());
        without_text.add(&change.mul(scale * step.sigma)?)
    }
}

/// Guides plainly.
#[guider(id = "example.plain", version = "1.0.0")]
fn plain(
    step: SamplingStep,
    with: &Tensor,
    without: &Tensor,
    scale: Option<f64>,
) -> Result<Tensor> {
    ensure!(step.index < step.count, "step {} of {}", step.index, step.count);
    without.add(&with.sub(without)?.mul(scale.unwrap_or(2.0))?)
}

#[test]
fn state_is_loaded_once_and_kept_over_runs() -> Result<()> {
    let mut node = testing::open::<Count>().file("by.txt", "3").done()?;
    assert_eq!(node.run().call()?.int("count")?, 3);
    assert_eq!(node.run().param("times", 2).call()?.int("count")?, 9);
    assert!(node.run().param("times", 100).call().is_err());
    assert_eq!(node.run().call()?.int("count")?, 12);
    Ok(())
}

#[test]
fn a_newer_build_takes_the_state_over() -> Result<()> {
    let mut node = testing::open::<Count>().file("by.txt", "3").done()?;
    node.run().call()?;
    let state = node.save()?.unwrap();
    drop(node);
    let mut node = testing::open::<Count>().file("by.txt", "10").saved(state).done()?;
    assert_eq!(node.run().call()?.int("count")?, 13);
    let broken = testing::open::<Count>().file("by.txt", "10").saved([1, 2]).done();
    assert_eq!(broken.err().unwrap().message(), "could not convert slice to array");
    let missing = testing::open::<Count>().done().err().unwrap();
    assert!(missing.message().contains("by.txt"), "{missing}");
    Ok(())
}

#[test]
fn panics_in_run_and_drop_and_failures_to_save_are_contained() -> Result<()> {
    let mut node = testing::open::<Fragile>().done()?;
    assert_eq!(node.run().input("text", "a").call()?.text("text")?, "");
    let error = node.run().input("text", "run").call().err().unwrap().to_string();
    assert!(error.contains("state.rs") && error.contains("asked to"), "{error}");
    assert_eq!(node.run().input("text", "save").call()?.text("text")?, "a");
    assert_eq!(node.save().err().unwrap().message(), "cannot be saved");
    node.run().input("text", "drop").call()?;
    drop(node);
    let refused = testing::open::<Forgetful>().saved("x").done().err().unwrap();
    assert_eq!(refused.message(), "this build restores no state");
    Ok(())
}

#[test]
fn a_guider_remembers_within_one_run() -> Result<()> {
    let tensor = |number: f32| Tensor::from_slice(&[number; 6], &[2, 3]);
    let mut node = testing::open::<Momentum>().done()?;
    let mut ask = |step: usize, with: f32, sigma: f64| -> Result<f32> {
        let run = node.run().sampling_step(SamplingStep { index: step, count: 3, sigma });
        let run = run.input("with_text", tensor(with)?).input("without_text", tensor(1.0)?);
        Ok(run.call()?.tensor("velocity")?.as_slice::<f32>()?[5])
    };
    assert_eq!(ask(0, 2.0, 1.0)?, 1.0 + 4.0);
    assert_eq!(ask(1, 4.0, 0.5)?, 1.0 + 2.0 * (3.0 + 1.0) / 2.0);
    let run =
        testing::run::<plain>().sampling_step(SamplingStep { index: 3, count: 3, sigma: 0.0 });
    let run = run.input("with_text", tensor(2.0)?).input("without_text", tensor(1.0)?);
    assert_eq!(run.call().err().unwrap().message(), "step 3 of 3");
    Ok(())
}

#[test]
fn descriptors_say_what_a_node_is() -> Result<()> {
    let count: serde_json::Value = serde_json::from_str(&testing::descriptor::<Count>()?)?;
    let node = &count["nodes"][0];
    assert_eq!(node["about"], "Counts how often it ran. A file says by how much.");
    assert_eq!((node["state"].as_bool(), node["guider"].as_bool()), (Some(true), None));
    assert_eq!(node["inputs"][0]["range"], serde_json::json!([1, null]));
    let guider: serde_json::Value = serde_json::from_str(&testing::descriptor::<Momentum>()?)?;
    let node = &guider["nodes"][0];
    assert_eq!((node["state"].as_bool(), node["guider"].as_bool()), (None, Some(true)));
    assert_eq!(node["outputs"], serde_json::json!([{"name": "guider", "type": "Guider"}]));
    let inputs = node["inputs"].as_array().unwrap();
    assert_eq!(inputs.len(), 1);
    assert_eq!(inputs[0]["default"], serde_json::json!(4.0));
    Ok(())
}
