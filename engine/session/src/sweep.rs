//! Sweeps: values of inputs, combined each with each, and files that do not meet.

use std::collections::{BTreeMap, HashMap};

use kino_graph::{Diagnostic, Graph, Key, Plan, StepInput, ValueSource, WrittenFiles};
use kino_port::{Literal, Port, PortType};

use crate::error::{Error, Result};
use crate::inputs::Inputs;

/// More runs than this are taken for a slip.
const MAX_RUNS: usize = 10_000;
/// The longest name of a folder that is made of values, in characters and in bytes.
const LONGEST: usize = 100;
const LONGEST_BYTES: usize = 240;

/// The inputs of one run, the swept ones alone.
pub type SweepPoint = Vec<(String, Literal)>;

/// The points of all sweeps together, the last one changing fastest; one empty point without
/// sweeps.
///
/// # Errors
/// When a name is no input of the graph, or values do not fit it.
pub(crate) fn points(graph: &Graph, sweeps: &[(String, String)]) -> Result<Vec<SweepPoint>> {
    let mut axes: Vec<(String, Vec<Literal>)> = Vec::new();
    for (name, text) in sweeps {
        let port = graph.inputs().find(|port| port.name == *name);
        let raws = match port {
            Some(port) => values(name, text, port)?,
            None => vec![text.clone()],
        };
        let raws: Inputs = raws.into_iter().map(|raw| (name.clone(), raw)).collect();
        let read = raws.read_each(graph).map_err(one_of_each)?.into_iter().map(|(_, value)| value);
        match axes.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => values.extend(read),
            None => axes.push((name.clone(), read.collect())),
        }
    }
    let runs = axes.iter().try_fold(1usize, |n, (_, values)| n.checked_mul(values.len()));
    if runs.is_none_or(|runs| runs > MAX_RUNS) {
        return Err(Error::usage(format!("the sweeps make more than {MAX_RUNS} runs")));
    }
    let mut points: Vec<SweepPoint> = vec![Vec::new()];
    for (name, values) in axes {
        let longer = points.iter().flat_map(|point| {
            values.iter().map(|value| {
                let mut point = point.clone();
                point.push((name.clone(), value.clone()));
                point
            })
        });
        points = longer.collect();
    }
    Ok(points)
}

/// What begins the value that was found, in the error of a value that does not fit.
const FOUND: &str = ", found ";

/// The most values that are named which one thing is wrong with.
const MAX_NAMED: usize = 8;

/// Of several values that one thing is wrong with, one error that names them.
fn one_of_each(error: Error) -> Error {
    let Error::Graph(mut problems) = error else { return error };
    let mut reasons: Vec<(Diagnostic, Vec<String>)> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for problem in problems.list {
        let (expected, found) = problem.message.split_once(FOUND).unwrap_or((&problem.message, ""));
        let (expected, found) = (expected.to_owned(), found.to_owned());
        match known.get(&expected) {
            Some(at) => reasons[*at].1.push(found),
            None => {
                known.insert(expected, reasons.len());
                reasons.push((problem, vec![found]));
            }
        }
    }
    let told = reasons.into_iter().map(|(mut problem, found)| {
        if found.len() > 1 {
            let expected = problem.message.split_once(FOUND).map_or("", |(expected, _)| expected);
            let named = found.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
            let more = match found.len().saturating_sub(MAX_NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            problem.message = format!("{expected}{FOUND}{named}{more}");
            // What is near one of them is not near all.
            problem.hint = None;
        }
        problem
    });
    problems.list = told.collect();
    Error::Graph(problems)
}

/// The values of one `--sweep`, each as text: a whole text, a range, or a list with commas.
fn values(name: &str, text: &str, port: &Port) -> Result<Vec<String>> {
    let is_free = matches!(port.ty, PortType::Text | PortType::Path) && port.choices.is_empty();
    if is_free || port.is_list() {
        return Ok(vec![text.to_owned()]);
    }
    let mut values = Vec::new();
    for part in text.split(',').map(str::trim) {
        match part.split_once("..") {
            Some((from, to)) if port.ty == PortType::Int => {
                values.extend(whole_numbers(name, from, to)?);
            }
            Some((from, to)) if port.ty == PortType::Real => {
                values.extend(numbers(name, from, to)?);
            }
            _ => values.push(part.to_owned()),
        }
    }
    Ok(values)
}

fn bad_range(name: &str, from: &str, to: &str) -> Error {
    Error::usage(format!("--sweep {name}={from}..{to}: this is no range"))
        .advising("write FIRST..LAST or FIRST..LAST:STEP, such as 1..8 or 0.5..2.0:0.5")
}

fn whole_numbers(name: &str, from: &str, to: &str) -> Result<Vec<String>> {
    let (last, step) = to.split_once(':').unwrap_or((to, "1"));
    let read = |text: &str| text.trim().parse::<i128>().ok();
    match (read(from), read(last), read(step)) {
        (Some(first), Some(last), Some(step)) if first <= last && step > 0 => {
            let step = usize::try_from(step).unwrap_or(usize::MAX);
            Ok((first..=last).step_by(step).take(MAX_RUNS + 1).map(|n| n.to_string()).collect())
        }
        _ => Err(bad_range(name, from, to)),
    }
}

fn numbers(name: &str, from: &str, to: &str) -> Result<Vec<String>> {
    let (last, step) = to.split_once(':').unwrap_or((to, "1"));
    let read = |text: &str| text.trim().parse::<f64>().ok().filter(|value| value.is_finite());
    match (read(from), read(last), read(step)) {
        (Some(first), Some(last), Some(step)) if first <= last && step > 0.0 => {
            // Counted, not summed up, and rounded so that 0.1..0.3:0.1 reads 0.1, 0.2, 0.3.
            let count = ((last - first) / step + 1e-9).floor().min(MAX_RUNS as f64) as usize;
            let round = |value: f64| (value * 1e9).round() / 1e9;
            Ok((0..=count).map(|n| round(first + n as f64 * step).to_string()).collect())
        }
        _ => Err(bad_range(name, from, to)),
    }
}

/// A run's swept values as text: `seed=3, guidance=2.5`.
pub fn describe_point(point: &SweepPoint) -> String {
    let parts: Vec<_> =
        point.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
    parts.join(", ")
}

fn plain(value: &Literal) -> String {
    match value {
        Literal::Text(text) => text.to_string(),
        other => other.to_string(),
    }
}

/// Gives the runs of a sweep files of their own: where two of them would write one file with
/// different contents, every run gets a folder named by its values. `locate` says where a path
/// leads, so that one file has one name.
pub(crate) fn separate(plans: &mut [Plan], points: &[SweepPoint], locate: &dyn Fn(&str) -> String) {
    let mut writers: WrittenFiles<Key> = WrittenFiles::default();
    let meet = plans.iter().any(|plan| {
        plan.writes().any(|file| {
            let key = plan.steps[file.step].key;
            let other = writers.insert(locate(file.path), file.form, key);
            other.is_some_and(|other| other != key)
        })
    });
    if !meet {
        return;
    }
    for (plan, folder) in plans.iter_mut().zip(folders(points)) {
        let mut moved = vec![false; plan.steps.len()];
        for (step, moved) in plan.steps.iter_mut().zip(&mut moved) {
            for index in step.writes.clone() {
                if let Some(input) = step.inputs.get_mut(index as usize) {
                    move_into(&folder, input);
                    step.key = derived(step.key, [folder.as_bytes()]);
                    *moved = true;
                }
            }
        }
        // Whoever reads a file that lies elsewhere now has other results.
        for at in 0..plan.steps.len() {
            let sources = plan.steps[at].inputs.iter().flat_map(StepInput::sources);
            let before: Vec<Key> = sources
                .filter(|source| moved[source.step as usize])
                .map(|source| plan.steps[source.step as usize].key)
                .collect();
            if !before.is_empty() {
                plan.steps[at].key =
                    derived(plan.steps[at].key, before.iter().map(|key| &key.0[..]));
                moved[at] = true;
            }
        }
    }
}

fn derived<'a>(key: Key, by: impl IntoIterator<Item = &'a [u8]>) -> Key {
    let mut hasher = blake3::Hasher::new_keyed(&key.0);
    for bytes in by {
        hasher.update(bytes);
    }
    Key(hasher.finalize().into())
}

/// Puts the paths that an input names into a folder.
fn move_into(folder: &str, input: &mut StepInput) {
    fn put(folder: &str, literal: &mut Literal) {
        match literal {
            Literal::Text(path) => *path = format!("{folder}/{path}").into(),
            Literal::List(items) => items.iter_mut().for_each(|item| put(folder, item)),
            _ => {}
        }
    }
    match input {
        StepInput::Literal(literal) => put(folder, literal),
        StepInput::List(items) => items.iter_mut().for_each(|(_, item)| {
            if let ValueSource::Literal(literal) = item {
                put(folder, literal);
            }
        }),
        StepInput::Absent | StepInput::Edge(_) => {}
    }
}

/// One folder a point, all different.
fn folders(points: &[SweepPoint]) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let name = |point: &SweepPoint| {
        let safe = |c: char| match c {
            c if c.is_control() || "/\\:*?\"<>|".contains(c) => '_',
            ' ' => '_',
            c => c,
        };
        let text: String =
            describe_point(point).replace(", ", ",").chars().take(LONGEST).map(safe).collect();
        let text = &text[..text.floor_char_boundary(LONGEST_BYTES)];
        text.trim_matches(['.', '_']).to_owned()
    };
    let unique = |point: &SweepPoint| {
        let name = name(point);
        let times = seen.entry(name.clone()).or_default();
        *times += 1;
        if *times == 1 { name } else { format!("{name}-{times}") }
    };
    points.iter().map(unique).collect()
}

#[cfg(test)]
mod tests {
    use kino_graph::{Step, StepOutput};
    use kino_port::{NodeTraits, PathForm};

    use super::*;

    fn read(text: &str, port: &Port) -> Vec<String> {
        values("x", text, port).unwrap()
    }

    #[test]
    fn values_are_lists_ranges_or_whole_texts() {
        let int = kino_port::int("x", 0);
        assert_eq!(read("1,2, 5", &int), ["1", "2", "5"]);
        assert_eq!(read("1..4", &int), ["1", "2", "3", "4"]);
        assert_eq!(read("1..9:4,20", &int), ["1", "5", "9", "20"]);
        let real = kino_port::real("x", 0.0);
        assert_eq!(read("0.1..0.3:0.1", &real), ["0.1", "0.2", "0.3"]);
        assert_eq!(read("-1..1", &real), ["-1", "0", "1"]);
        assert_eq!(read("a, b..c", &kino_port::text("x", "")), ["a, b..c"]);
    }

    #[test]
    fn a_range_that_is_none_is_refused() {
        let int = kino_port::int("x", 0);
        for text in ["4..1", "1..x", "1..5:0", "1..5:-1", ".."] {
            assert!(values("x", text, &int).is_err(), "{text}");
        }
    }

    #[test]
    fn folders_are_safe_and_differ() {
        let point = |text: &'static str| vec![("prompt".to_owned(), Literal::text(text))];
        let names = folders(&[point("../a b"), point("..:a b"), point("x")]);
        assert_eq!(names, ["prompt=.._a_b", "prompt=.._a_b-2", "prompt=x"]);
        let long: &'static str = Box::leak("长".repeat(100).into_boxed_str());
        let names = folders(&[point(long), point(long)]);
        assert!(names.iter().all(|name| name.len() <= 255), "names are counted in bytes");
    }

    /// A plan that writes `out.png` and reads that file again, in two steps, beside another step.
    fn writing(seed: u8) -> Plan {
        let key = |number: u8| Key([number; 32]);
        let step = |name: &str, key, inputs, traits| Step::new(name, name, key, inputs, traits);
        let of = |step: u32| StepInput::Edge(StepOutput { step, output: 0 });
        let path = StepInput::Literal(Literal::text("out.png"));
        let mut write = step("write", key(seed), vec![StepInput::Absent, path], NodeTraits::SINK);
        write.writes = vec![1];
        let mut plan = Plan::default();
        plan.steps = vec![
            write,
            step("reads", key(seed + 1), vec![of(0)], NodeTraits::LIGHT),
            step("behind", key(seed + 2), vec![StepInput::Absent, of(1)], NodeTraits::LIGHT),
            step("beside", key(seed + 3), Vec::new(), NodeTraits::LIGHT),
        ];
        plan
    }

    #[test]
    fn every_step_behind_a_file_that_moved_has_another_key() {
        let locate = |path: &str| path.trim_start_matches("./").to_owned();
        let point = |seed: i128| vec![("seed".to_owned(), Literal::Int(seed))];
        let points = [point(1), point(2)];
        let before = [writing(10), writing(20)];
        let mut plans = before.clone();
        separate(&mut plans, &points, &locate);
        let mut keys = std::collections::HashSet::new();
        for (plan, before) in plans.iter().zip(&before) {
            let moved = plan.steps.iter().zip(&before.steps).map(|(a, b)| a.key != b.key);
            assert_eq!(moved.collect::<Vec<_>>(), [true, true, true, false]);
            keys.extend(plan.steps.iter().map(|step| step.key));
        }
        assert_eq!(keys.len(), 8, "no two steps share a key");
        let paths: Vec<_> = plans.iter().flat_map(Plan::writes).map(|file| file.path).collect();
        assert_eq!(paths, ["seed=1/out.png", "seed=2/out.png"]);
        // One file of a numbered sequence is enough to meet.
        let mut numbered = [writing(10), writing(20)];
        numbered[0].steps[0].path_form = PathForm::Numbered { count: Some(3) };
        numbered[0].steps[0].inputs[1] = StepInput::Literal(Literal::text("f%d.png"));
        for (name, meets) in [("f2.png", true), ("f3.png", false)] {
            let mut plans = numbered.clone();
            plans[1].steps[0].inputs[1] = StepInput::Literal(Literal::text(name));
            separate(&mut plans, &points, &locate);
            let paths: Vec<_> = plans.iter().flat_map(Plan::writes).map(|file| file.path).collect();
            assert_eq!(paths[1].starts_with("seed=2/"), meets, "{paths:?}");
        }
        // Runs that write the same do not meet, and keep their keys.
        let mut same = [writing(10), writing(10)];
        separate(&mut same, &points, &locate);
        assert_eq!(same[0].steps[2].key, before[0].steps[2].key);
        // One file by two texts is one file.
        let mut other = [writing(10), writing(20)];
        other[1].steps[0].inputs[1] = StepInput::Literal(Literal::text("./out.png"));
        separate(&mut other, &points, &locate);
        let paths: Vec<_> = other.iter().flat_map(Plan::writes).map(|file| file.path).collect();
        assert_eq!(paths, ["seed=1/out.png", "seed=2/./out.png"]);
    }
}
