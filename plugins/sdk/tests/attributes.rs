//! What authors may write around attributes: names that the macros use themselves, constants,
//! `macro_rules!`.

use kino_plugin::prelude::*;
use kino_plugin::testing;

const MOST: i64 = 9;
const SIZES: std::ops::RangeInclusive<i64> = 16..=64;

#[node(id = "example.ends", version = "1.0.0", output = "sum")]
fn ends(
    #[param(default = 1, range = 1..=MOST)] a: i64,
    #[param(default = 16, range = SIZES, step = 16)] b: i64,
    #[param(default = -MOST, range = -MOST..)] c: i64,
    #[param(default = 1, range = 0..=1)] d: f64,
) -> f64 {
    (a + b + c) as f64 + d
}

#[test]
fn ranges_take_constants() {
    let run = || testing::run::<ends>();
    assert_eq!(run().call().unwrap().real("sum").unwrap(), 9.0);
    let why = |name, value: i64| run().param(name, value).call().err().unwrap().to_string();
    assert_eq!(why("a", 10), "input `a`: expected a whole number from 1 to 9, found 10");
    assert!(why("b", 17).contains("from 16 to 64 in steps of 16"), "{}", why("b", 17));
    assert!(why("c", -10).contains("at least -9"), "{}", why("c", -10));
}

/// Functions and types may be called as what the macros make.
#[node(id = "example.cx", version = "1.0.0", output = "text")]
fn cx(inputs: String, made: String, saved: String) -> String {
    format!("{inputs}{made}{saved}")
}

#[node(id = "example.inputs", version = "1.0.0", output = "text")]
fn inputs(cx: &mut Cx, text: String) -> Result<String> {
    cx.progress(1, 1);
    Ok(text)
}

#[derive(Choice, Clone, Copy, Default)]
enum Held {
    #[default]
    Fine,
    Coarse,
}

#[derive(Default)]
struct Run;

#[node(id = "example.run", version = "1.0.0", output = "text")]
impl Run {
    fn run(&mut self, #[param(default = Held::Coarse)] held: Held) -> &'static str {
        held.name()
    }
}

#[guider(id = "example.step", version = "1.0.0")]
fn step(now: SamplingStep, with: Tensor, without: Tensor) -> Result<Tensor> {
    let weight = if now.index == 0 { 1.0 } else { 0.5 };
    with.sub(&without)?.mul(weight)
}

#[test]
fn names_of_the_macros_are_free() {
    let texts = testing::run::<cx>().input("inputs", "a").input("made", "b").input("saved", "c");
    assert_eq!(texts.call().unwrap().text("text").unwrap(), "abc");
    let text = testing::run::<inputs>().input("text", "x").call().unwrap();
    assert_eq!(text.text("text").unwrap(), "x");
    assert_eq!(testing::run::<Run>().call().unwrap().text("text").unwrap(), "coarse");
    let one = Tensor::from_slice(&[1f32], &[1, 1]).unwrap();
    let zero = Tensor::zeros::<f32>(&[1, 1]).unwrap();
    let guided = testing::run::<step>()
        .sampling_step(SamplingStep { index: 1, count: 2, sigma: 0.5 })
        .input("with_text", &one)
        .input("without_text", &zero);
    let guided = guided.call().unwrap().tensor("velocity").unwrap();
    assert_eq!(guided.to_scalar::<f32>().unwrap(), 0.5);
}

macro_rules! shift {
    ($name:ident, $id:literal, $ty:ty, $range:expr, $default:expr) => {
        #[node(id = $id, version = "1.0.0", output = "shifted")]
        fn $name(#[param(default = $default, range = $range)] by: $ty, to: Option<&$ty>) -> $ty {
            by + to.copied().unwrap_or_default()
        }
    };
}

shift!(shift_int, "example.shift_int", i64, 0..=4, 2);
shift!(shift_real, "example.shift_real", f64, 0.0..=4.0, 2.0);

#[test]
fn attributes_may_come_from_macro_rules() {
    let out = testing::run::<shift_int>().input("to", 3i64).call().unwrap();
    assert_eq!(out.int("shifted").unwrap(), 5);
    assert!(testing::run::<shift_real>().param("by", 4.5).call().is_err());
}

/// A tree, which holds itself.
#[port_type("example.tree")]
struct Tree {
    /// What hangs on it.
    label: Option<String>,
    branches: Vec<Tree>,
}

#[node(id = "example.prune", version = "1.0.0")]
fn prune(tree: Tree) -> Tree {
    Tree { label: tree.label, branches: tree.branches.into_iter().take(1).collect() }
}

#[test]
fn types_tell_their_fields() {
    let told = testing::descriptor::<prune>().unwrap();
    let told: kino_plugin::json::Value = kino_plugin::json::from_str(&told).unwrap();
    let expected = r#"[{"about":"A tree, which holds itself.","fields":[
        {"about":"What hangs on it.","arity":"optional","name":"label","type":"Text"},
        {"arity":"list","name":"branches","type":"example.tree"}],"name":"example.tree"}]"#;
    assert_eq!(
        told["types"],
        kino_plugin::json::from_str::<kino_plugin::json::Value>(expected).unwrap()
    );
    let leaf = |label: &str| Tree { label: Some(label.into()), branches: Vec::new() };
    let tree = Tree { label: None, branches: vec![leaf("a"), leaf("b")] };
    let pruned: Tree =
        testing::run::<prune>().input("tree", tree).call().unwrap().get("tree").unwrap();
    assert_eq!(pruned.branches.len(), 1);
}

#[node(id = "example.perhaps", version = "1.0.0", outputs("parts", "named"))]
fn perhaps(wanted: bool) -> (Option<Vec<String>>, Option<Vec<(String, f64)>>) {
    (wanted.then(|| vec!["a".into()]), wanted.then(|| vec![("x".into(), 1.0)]))
}

#[node(id = "example.named", version = "1.0.0", outputs("a", "b"))]
fn named(a: f64) -> f64 {
    a
}

#[derive(Outputs)]
struct Both {
    least: f64,
    most: f64,
}

#[node(id = "example.fields", version = "1.0.0", outputs("low", "high"))]
fn fields(a: f64) -> Both {
    Both { least: a, most: a }
}

#[test]
fn outputs_may_be_lists_that_are_not_there() {
    let told = testing::descriptor::<perhaps>().unwrap();
    assert!(told.contains("List(Text)") && told.contains("List(Real)"), "{told}");
    let out = testing::run::<perhaps>().param("wanted", true).call().unwrap();
    assert_eq!(out.get::<Vec<String>>("parts").unwrap(), ["a"]);
    assert_eq!(out.get::<Vec<(String, f64)>>("named").unwrap(), [("x".to_owned(), 1.0)]);
    let left = |run: testing::Run<'static>| run.without("parts").without("named").call();
    assert!(!left(testing::run::<perhaps>().param("wanted", false)).unwrap().has("parts"));
}

#[test]
fn names_of_outputs_that_do_not_exist_are_refused() {
    assert_eq!(
        testing::descriptor::<named>().unwrap_err().to_string(),
        "`example.named` names the outputs a, b, and gives a (name as many as there are, or fields \
         of a struct)"
    );
    let fields = testing::descriptor::<fields>().unwrap_err();
    assert!(fields.message().ends_with("names the outputs low, high, and gives least, most"));
}

/// Guiders as they were written before `Moment` was called `SamplingStep`: they are built, with a
/// warning.
#[allow(deprecated)]
mod earlier {
    use kino_plugin::prelude::*;
    use kino_plugin::testing;

    #[guider(id = "example.earlier", version = "1.0.0")]
    fn earlier(now: Moment, with: Tensor, without: Tensor) -> Result<Tensor> {
        let Moment { step, of, sigma } = now;
        with.sub(&without)?.mul(step as f64 / of as f64 + sigma)
    }

    #[derive(Default)]
    struct Last(Option<Moment>);

    #[guider(id = "example.last", version = "1.0.0")]
    impl Last {
        fn guide(&mut self, now: kino_plugin::Moment, with: Tensor, _w: Tensor) -> Result<Tensor> {
            let before = self.0.replace(now).map_or(0.0, |before| before.sigma);
            with.mul(before)
        }
    }

    #[test]
    fn guiders_that_take_a_moment_are_built_as_before() -> Result<()> {
        let (one, zero) = (Tensor::from_slice(&[1f32], &[1, 1])?, Tensor::zeros::<f32>(&[1, 1])?);
        let moment = Moment { step: 1, of: 2, sigma: 0.25 };
        let run = testing::run::<earlier>().moment(moment);
        let done = run.input("with_text", &one).input("without_text", &zero).call()?;
        assert_eq!(done.tensor("velocity")?.to_scalar::<f32>()?, 0.75);
        let mut last = testing::open::<Last>().done()?;
        for expected in [0.0, 0.25] {
            let run = last.run().moment(moment).input("with_text", &one);
            let done = run.input("without_text", &zero).call()?;
            assert_eq!(done.tensor("velocity")?.to_scalar::<f32>()?, expected);
        }
        Ok(())
    }
}
