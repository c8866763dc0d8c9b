//! What stands where a plan writes: folders that can be written, files that may be replaced, and
//! what became of each file.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kino_graph::{Access, Counted, Plan};
use kino_node::{Error, OutputFile, OutputGuard};
use kino_port::{FileStamp, NumberedFiles, PlanError, escape_line, path_to_text};
use kino_world::{Folders, check_folder};

use crate::core::Core;
use crate::records::{OutputRecords, Record, Recorded};

/// What a run did with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    /// There was none of this name.
    New,
    /// It stood there already, as this run would write it.
    UpToDate,
    /// It took the place of another one.
    Replaced,
}

impl FileState {
    /// As people and programs read it.
    pub fn name(self) -> &'static str {
        match self {
            FileState::New => "new",
            FileState::UpToDate => "up to date",
            FileState::Replaced => "replaced",
        }
    }
}

/// Where a path leads, links resolved as far as files and folders are there: one text for one file.
pub(crate) fn located(folders: &Folders, access: Access, path: &str) -> String {
    let path = match access {
        Access::Read => folders.graph.join(path),
        Access::Write => folders.out.join(path),
    };
    let path = std::path::absolute(&path).unwrap_or(path);
    let there = path.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
    let place = there.and_then(|(part, real)| Some(real.join(path.strip_prefix(part).ok()?)));
    path_to_text(&place.unwrap_or(path)).trim_end_matches('/').to_owned()
}

/// What a step writes: a file, or several that one name numbers.
struct Written {
    step: usize,
    /// As the graph writes it.
    path: String,
    /// Its folder, as people know it.
    above: PathBuf,
    /// Where that lies, links resolved.
    folder: String,
    /// Its name in there.
    name: String,
    /// The files, where they are several.
    numbered: Option<NumberedFiles>,
}

impl Written {
    /// The names of the files that stand there, with what the system says of them.
    fn standing(&self) -> Vec<(String, Metadata)> {
        let folder = Path::new(&self.folder);
        let look = |name: &str| fs::symlink_metadata(folder.join(name)).ok();
        let Some(numbered) = &self.numbered else {
            return look(&self.name).map(|about| (self.name.clone(), about)).into_iter().collect();
        };
        let there = fs::read_dir(folder).into_iter().flatten().flatten();
        let names = there.filter_map(|entry| entry.file_name().into_string().ok());
        let names = names.filter(|name| numbered.contains(name));
        names.filter_map(|name| Some((name.clone(), look(&name)?))).collect()
    }

    fn place(&self, name: &str) -> PathBuf {
        Path::new(&self.folder).join(name)
    }

    /// One of its files as the graph would name it.
    fn shown(&self, name: &str) -> String {
        match self.path.rsplit_once('/') {
            Some((above, _)) => format!("{above}/{name}"),
            None => name.to_owned(),
        }
    }
}

/// What to do about a file that is not the graph's.
const WAYS: &str = "replace it with `--overwrite`, move it away, or write to another path: `{n}` in \
                    one counts up";

/// All that a plan writes.
fn written<'p>(plan: &'p Plan, folders: &Folders) -> Vec<Written> {
    let mut known: HashMap<&str, String> = HashMap::new();
    let one = |file: kino_graph::PlannedWrite<'p>| {
        let (above, name) = file.path.rsplit_once('/').unwrap_or(("", file.path));
        let folder = known.entry(above).or_insert_with(|| located(folders, Access::Write, above));
        let (folder, name) = (folder.clone(), name.to_owned());
        let numbered = file.form.files(&name);
        // Joined to nothing, a path ends in a slash, by which a file is not found.
        let above =
            Path::new(above).components().fold(folders.out.clone(), |it, part| it.join(part));
        Written { step: file.step, path: file.path.to_owned(), above, folder, name, numbered }
    };
    plan.writes().map(one).collect()
}

/// Whether a file is as this step would leave it, by its record.
fn is_up_to_date(record: Option<&Record>, key: &str, path: &Path, about: &Metadata) -> bool {
    record.is_some_and(|record| record.key == key && record.fits(path, about))
}

/// Reads the records of each folder once.
struct ByFolder<'r> {
    records: &'r OutputRecords,
    read: HashMap<String, Recorded>,
}

impl<'r> ByFolder<'r> {
    fn new(records: &'r OutputRecords) -> Self {
        ByFolder { records, read: HashMap::new() }
    }

    fn of(&mut self, folder: &str) -> &Recorded {
        let records = self.records;
        self.read.entry(folder.to_owned()).or_insert_with(|| records.read(folder))
    }
}

/// Tries the folders that a plan writes to, and says which files it must not replace, each with the
/// step that would. `graph` is who writes.
pub(crate) fn check(
    plan: &Plan,
    folders: &Folders,
    records: &OutputRecords,
    graph: &str,
    overwrites: bool,
) -> Vec<(usize, PlanError)> {
    let mut errors = Vec::new();
    let mut tried: HashMap<String, Option<PlanError>> = HashMap::new();
    let mut by_folder = ByFolder::new(records);
    for file in written(plan, folders) {
        let key = plan.steps[file.step].key.to_string();
        let standing = file.standing();
        let recorded = match standing.is_empty() {
            true => None,
            false => Some(by_folder.of(&file.folder)),
        };
        let is_good = |(name, about): &(String, Metadata)| {
            let record = recorded.and_then(|known| known.get(name));
            is_up_to_date(record, &key, &file.place(name), about)
        };
        // Nothing is written there.
        if !standing.is_empty() && standing.iter().all(is_good) {
            continue;
        }
        let folder = tried.entry(file.folder.clone());
        if let Some(error) = folder.or_insert_with(|| try_folder(&file.above)) {
            errors.push((file.step, error.clone()));
            continue;
        }
        let foreign = standing
            .iter()
            .filter(|_| !overwrites)
            .find_map(|(name, about)| foreign(&file, recorded?, graph, name, about));
        errors.extend(foreign.map(|error| (file.step, error)));
    }
    errors
}

fn try_folder(folder: &Path) -> Option<PlanError> {
    let error = check_folder(folder).err()?;
    let hint = error.hint().map(str::to_owned);
    Some(PlanError { hint, ..PlanError::new(error.to_string()) })
}

/// What stands against replacing a file.
fn foreign(
    file: &Written,
    recorded: &Recorded,
    graph: &str,
    name: &str,
    about: &Metadata,
) -> Option<PlanError> {
    let shown = file.shown(name);
    let shown = escape_line(&shown);
    if about.is_dir() {
        return Some(PlanError::new(format!("`{shown}` is a folder")));
    }
    let record = recorded.get(name).filter(|record| record.graph == graph);
    // It was being written when that run ended, or still is.
    let begun = |name: &str| {
        recorded.get(name).is_some_and(|record| record.graph == graph && record.hash.is_empty())
    };
    if begun(name) || (begun(&file.name) && recorded.is_newer(&file.name, name)) {
        return None;
    }
    let message = match record {
        Some(record) if record.fits(&file.place(name), about) => return None,
        Some(_) => format!("`{shown}` has changed since this graph wrote it"),
        None => format!("`{shown}` stands there already, and this graph did not write it"),
    };
    Some(PlanError::new(message).hint(WAYS))
}

/// What stands against writing a file once a run is under way: one that is there since it began,
/// and that this graph did not write.
pub(crate) fn guard(
    core: &Arc<Core>,
    plan: &Plan,
    folders: &Folders,
    graph: &str,
    before: HashSet<PathBuf>,
) -> OutputGuard {
    let (core, graph) = (Arc::clone(core), graph.to_owned());
    let files = written(plan, folders).into_iter();
    let files: HashMap<_, _> = files.map(|file| (folders.out.join(&file.path), file)).collect();
    OutputGuard(Box::new(move |place| {
        let Some(file) = files.get(place) else { return Ok(()) };
        for (name, about) in file.standing() {
            let there = file.place(&name);
            if before.contains(&there) {
                continue;
            }
            // Unless another run of the graph has written it meanwhile.
            let recorded = core.outputs.read(&file.folder);
            let own = recorded.get(&name).filter(|record| record.graph == graph);
            if !own.is_some_and(|record| record.fits(&there, &about)) {
                let message = format!(
                    "`{}` came to stand there while this ran, and this graph did not write it",
                    escape_line(&file.shown(&name))
                );
                return Err(Error::advised(message, WAYS));
            }
        }
        Ok(())
    }))
}

/// That the folder of outputs is a link, and where that leads.
pub(crate) fn tell_link(folders: &Folders) -> Option<String> {
    let is_link = fs::symlink_metadata(&folders.out).is_ok_and(|about| about.is_symlink());
    let leads_to = is_link.then(|| fs::canonicalize(&folders.out).ok()).flatten()?;
    let (out, leads_to) = (folders.out.display().to_string(), leads_to.display().to_string());
    Some(format!("{} is a link: files go to {}", escape_line(&out), escape_line(&leads_to)))
}

/// The number for the `{n}` between two parts of a path; kept from other processes where a run
/// follows.
pub(crate) fn number(
    records: &OutputRecords,
    folders: &Folders,
    (before, behind): (&str, &str),
    key: kino_graph::Key,
    keeps: bool,
) -> u64 {
    let (above, before) = before.rsplit_once('/').unwrap_or(("", before));
    let behind = behind.split('/').next().unwrap_or_default();
    records.number(&located(folders, Access::Write, above), (before, behind), key, keeps)
}

/// What stood where a run writes when it began.
pub(crate) struct OutputWatch<'r> {
    records: &'r OutputRecords,
    graph: &'r str,
    /// By the name of the step.
    steps: HashMap<&'r str, Begun>,
    pub(crate) before: HashSet<PathBuf>,
    /// Files that were recorded as up to date.
    good: HashSet<PathBuf>,
}

/// A step that may write.
struct Begun {
    key: String,
    counted: Option<Counted>,
    /// Folders and patterns of numbered files that it began.
    patterns: Vec<(String, String)>,
}

impl<'r> OutputWatch<'r> {
    /// Looks at what stands there, and writes down what the run is about to write: if it is killed
    /// before it can say what it wrote, the file is known for the graph's all the same.
    pub(crate) fn begin(
        plan: &'r Plan,
        folders: &Folders,
        records: &'r OutputRecords,
        graph: &'r str,
    ) -> Self {
        let mut watch = OutputWatch {
            records,
            graph,
            steps: HashMap::new(),
            before: HashSet::new(),
            good: HashSet::new(),
        };
        let mut by_folder = ByFolder::new(records);
        let mut begun: BTreeMap<String, Vec<Record>> = BTreeMap::new();
        for file in written(plan, folders) {
            let step = &plan.steps[file.step];
            let key = step.key.to_string();
            let standing = file.standing();
            let mut all_good = !standing.is_empty();
            for (name, about) in &standing {
                let place = file.place(name);
                match is_up_to_date(by_folder.of(&file.folder).get(name), &key, &place, about) {
                    true => drop(watch.good.insert(place.clone())),
                    false => all_good = false,
                }
                watch.before.insert(place);
            }
            let known = watch.steps.entry(&*step.name);
            let known = known.or_insert_with(|| Begun {
                key: key.clone(),
                counted: step.counted.as_deref().copied(),
                patterns: Vec::new(),
            });
            if all_good {
                continue;
            }
            if file.numbered.is_some() {
                known.patterns.push((file.folder.clone(), file.name.clone()));
            }
            let counted = counted(known.counted.filter(|counted| counted.behind == 0));
            let record =
                Record { name: file.name, graph: graph.to_owned(), key, counted, ..<_>::default() };
            begun.entry(file.folder).or_default().push(record);
        }
        begun.iter().for_each(|(folder, begun)| records.add(folder, begun));
        watch
    }

    /// What became of the files that a step wrote, or found up to date.
    pub(crate) fn finished(
        &self,
        step: &str,
        files: &[OutputFile],
        is_cached: bool,
    ) -> Vec<FileState> {
        let mut news: BTreeMap<String, Vec<Record>> = BTreeMap::new();
        let mut states = Vec::with_capacity(files.len());
        let begun = self.steps.get(step);
        let mut counted_folders = BTreeSet::new();
        for file in files {
            let place = canonical(&file.path);
            states.push(match is_cached {
                true => FileState::UpToDate,
                false if self.before.contains(&place) => FileState::Replaced,
                false => FileState::New,
            });
            let Some(begun) = begun.filter(|_| !is_cached || !self.good.contains(&place)) else {
                continue;
            };
            let behind = begun.counted.map_or(0, |counted| counted.behind);
            counted_folders.extend(
                (behind > 0).then(|| place.ancestors().nth(behind)).flatten().map(Path::to_owned),
            );
            let Some((folder, record)) = self.record(begun, file, &place) else { continue };
            news.entry(folder).or_default().push(record);
        }
        for (folder, pattern) in begun.iter().flat_map(|begun| &begun.patterns) {
            // What stands there from now on is what was written, each by its own record.
            let closed = Record { name: pattern.clone(), ..Record::default() };
            news.entry(folder.clone()).or_default().push(closed);
        }
        for place in counted_folders {
            if let (Some(begun), Some((folder, name))) = (begun, split(&place)) {
                let counted = counted(begun.counted);
                let record = Record { name, counted, ..Record::default() };
                news.entry(folder).or_default().push(record);
            }
        }
        news.iter().for_each(|(folder, news)| self.records.add(folder, news));
        states
    }

    fn record(&self, begun: &Begun, file: &OutputFile, place: &Path) -> Option<(String, Record)> {
        let about = fs::metadata(place).ok()?;
        let (folder, name) = split(place)?;
        let record = Record {
            name,
            graph: self.graph.to_owned(),
            key: begun.key.clone(),
            counted: counted(begun.counted.filter(|counted| counted.behind == 0)),
            hash: file.hash.clone(),
            bytes: file.bytes,
            stamp: FileStamp::of(&about).to_string(),
            ..Record::default()
        };
        Some((folder, record))
    }
}

fn counted(counted: Option<Counted>) -> String {
    counted.map(|counted| counted.key.to_string()).unwrap_or_default()
}

/// Where a file lies, with the links of its folder resolved.
fn canonical(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).canonicalize();
    folder.map_or_else(|_| path.to_owned(), |it| it.join(path.file_name().unwrap_or_default()))
}

/// The folder of a file as records name it, and the file's name.
fn split(place: &Path) -> Option<(String, String)> {
    let folder = path_to_text(place.parent()?).trim_end_matches('/').to_owned();
    Some((folder, place.file_name()?.to_str()?.to_owned()))
}
