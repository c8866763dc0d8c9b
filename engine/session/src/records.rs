//! Which graph wrote the files that stand in folders of outputs: records in the user's data folder,
//! one file a folder. By them no run replaces a file that its graph did not write, and the same run
//! finds the number again that its file has.
//!
//! A record is a line of JSON; of two for one name the later counts. It knows no plans.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use kino_graph::Key;
use kino_node::read_regular;
use kino_port::FileStamp;
use kino_world::hash_file;
use serde::{Deserialize, Serialize};

/// No file of records is longer; whatever is was not written by us.
const LONGEST: u64 = 256 << 20;
/// Beyond so many bytes, lines that no longer count are taken out.
const LONG: u64 = 256 << 10;

/// What is known of one file of a folder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Its name; the pattern of several that a number tells apart; or the name of a folder that a
    /// number counts.
    pub(crate) name: String,
    /// The graph that wrote it; of a pattern, nobody once all are written.
    pub(crate) graph: String,
    /// The key of the step that wrote it.
    pub(crate) key: String,
    /// What makes it but for the number in its name, where that has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) counted: String,
    /// The hash of its contents: nothing as long as it is being written.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) hash: String,
    /// Its length.
    #[serde(default)]
    pub(crate) bytes: u64,
    /// Its stamp.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) stamp: String,
    /// The process that was given the name, and may not have written it yet.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) given_to: String,
}

impl Record {
    /// Whether the file is as it was when this was written down.
    pub(crate) fn fits(&self, path: &Path, about: &Metadata) -> bool {
        let is_same = || hash_file(path).is_ok_and(|hash| hash == self.hash);
        about.is_file()
            && about.len() == self.bytes
            && !self.hash.is_empty()
            && (FileStamp::of(about).to_string() == self.stamp || is_same())
    }
}

/// The records of one folder: by name, each with its turn.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    by_name: HashMap<String, (usize, Record)>,
}

impl Recorded {
    fn of(text: &str) -> Self {
        let mut by_name = HashMap::new();
        for (turn, line) in text.lines().enumerate() {
            // A line that was cut off by a crash says nothing.
            let Ok(record) = serde_json::from_str::<Record>(line) else { continue };
            by_name.insert(record.name.clone(), (turn, record));
        }
        Recorded { by_name }
    }

    /// The record of a name.
    pub(crate) fn get(&self, name: &str) -> Option<&Record> {
        self.by_name.get(name).map(|(_, record)| record)
    }

    /// Whether the record of one name was written down after that of another.
    pub(crate) fn is_newer(&self, name: &str, than: &str) -> bool {
        let turn = |name| self.by_name.get(name).map(|(turn, _)| *turn);
        turn(name) > turn(than)
    }
}

/// The records of a user.
#[derive(Debug)]
pub(crate) struct OutputRecords {
    folder: PathBuf,
    /// The numbers that this process has given to files that may not be there yet: by folder and
    /// what stands before and behind the number.
    given: Mutex<HashMap<[String; 3], BTreeMap<u64, Key>>>,
    /// What tells other processes that this one lives, once a number was given.
    life: OnceLock<Option<Life>>,
}

/// A file that a process holds locked for as long as it lives.
#[derive(Debug)]
struct Life {
    name: String,
    path: PathBuf,
    _locked: File,
}

impl Life {
    fn begin(folder: &Path) -> io::Result<Life> {
        fs::create_dir_all(folder)?;
        // Others may have the number of this process, in containers of their own.
        for turn in 0..1000 {
            let name = format!("{}-{turn}.live", std::process::id());
            let path = folder.join(&name);
            let file = File::options().write(true).create(true).truncate(false).open(&path)?;
            if file.try_lock().is_ok() {
                return Ok(Life { name, path, _locked: file });
            }
        }
        Err(io::Error::other("there are too many processes of one number"))
    }

    /// Whether the process of this name lives.
    fn is_of(folder: &Path, name: &str) -> bool {
        let is_name = name.ends_with(".live") && !name.contains(['/', '\\']);
        is_name && File::open(folder.join(name)).is_ok_and(|file| file.try_lock_shared().is_err())
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl OutputRecords {
    /// Those in the user's data folder.
    pub(crate) fn in_data(data: &Path) -> Self {
        OutputRecords {
            folder: data.join("outputs"),
            given: Mutex::default(),
            life: OnceLock::new(),
        }
    }

    fn file(&self, folder: &str) -> PathBuf {
        let name = blake3::hash(folder.as_bytes()).to_hex();
        self.folder.join(format!("{}.jsonl", &name[..32]))
    }

    /// What is known of the files of a folder, which is named by where it lies.
    pub(crate) fn read(&self, folder: &str) -> Recorded {
        let bytes = read_regular(&self.file(folder), LONGEST).unwrap_or_default();
        Recorded::of(&String::from_utf8_lossy(&bytes))
    }

    /// Adds records to those of a folder. Where they cannot be kept, the log says so: the next run
    /// of the graph will then ask before it replaces its file.
    pub(crate) fn add(&self, folder: &str, records: &[Record]) {
        if let Err(error) = self.try_add(folder, records) {
            let place = self.folder.display();
            tracing::warn!("What was written could not be recorded in {place}: {error}.");
        }
    }

    /// The records of a folder, which nobody else reads or writes meanwhile.
    fn locked(&self, folder: &str) -> io::Result<File> {
        fs::create_dir_all(&self.folder)?;
        let path = self.file(folder);
        let file = File::options().read(true).append(true).create(true).open(path)?;
        file.lock()?;
        Ok(file)
    }

    fn try_add(&self, folder: &str, records: &[Record]) -> io::Result<()> {
        Self::append(&self.locked(folder)?, records)
    }

    fn append(mut file: &File, records: &[Record]) -> io::Result<()> {
        let mut lines = String::new();
        if file.metadata()?.len() > LONG {
            let mut text = Vec::new();
            file.take(LONGEST).read_to_end(&mut text)?;
            let text = String::from_utf8_lossy(&text).into_owned();
            let known = Recorded::of(&text).by_name;
            if text.lines().count() > 2 * known.len() {
                let mut known: Vec<_> = known.into_values().collect();
                known.sort_by_key(|(turn, _)| *turn);
                known.iter().for_each(|(_, record)| push(&mut lines, record));
                file.set_len(0)?;
                file.rewind()?;
            }
        }
        records.iter().for_each(|record| push(&mut lines, record));
        file.write_all(lines.as_bytes())
    }

    /// The number for a name in a folder, between what stands before and behind it: the one that
    /// the file of this key was given before, or the next that nobody has: no file, and no process
    /// that lives.
    /// The number is kept from other processes if `keeps` says so.
    pub(crate) fn number(
        &self,
        folder: &str,
        (before, behind): (&str, &str),
        key: Key,
        keeps: bool,
    ) -> u64 {
        let number = |name: &str| {
            let digits = name.strip_prefix(before)?.strip_suffix(behind)?;
            let digits = Some(digits).filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
            digits.parse::<u64>().ok()
        };
        let of = key.to_string();
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        // Held until the number is written down. Where nothing can be, others cannot be seen.
        let locked = keeps.then(|| self.locked(folder).ok()).flatten();
        let there: BTreeMap<u64, String> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter_map(|name| Some((number(&name)?, name)))
            .collect();
        let recorded = self.read(folder);
        // A file that somebody has changed since is no longer this one.
        let is_own = |name: &String| {
            let known = recorded.get(name).filter(|known| known.counted == of);
            let place = Path::new(folder).join(name);
            let fits =
                |known: &Record| fs::metadata(&place).is_ok_and(|it| known.fits(&place, &it));
            known.is_some_and(|known| known.hash.is_empty() || fits(known))
        };
        let place = [folder, before, behind].map(str::to_owned);
        let given = given.entry(place).or_default();
        let own = there.iter().rev().find(|(_, name)| is_own(name)).map(|(number, _)| *number);
        let waits = || {
            let mut waiting = given.iter().rev().filter(|(number, _)| !there.contains_key(number));
            waiting.find(|(_, other)| **other == key).map(|(number, _)| *number)
        };
        if let Some(known) = own.or_else(waits) {
            return known;
        }
        let last = there.last_key_value().map(|(number, _)| *number);
        let last = last.max(given.last_key_value().map(|(number, _)| *number));
        let last = last.max(self.given_to_others(&recorded, number));
        let next = last.unwrap_or(0).saturating_add(1);
        given.insert(next, key);
        if let Some(locked) = &locked
            && let Some(life) = self.life.get_or_init(|| Life::begin(&self.folder).ok())
        {
            let name = format!("{before}{next}{behind}");
            let given_to = life.name.clone();
            let record = Record { name, counted: of, given_to, ..Record::default() };
            let _ = Self::append(locked, &[record]);
        }
        next
    }

    /// The last number that another process was given, and has not used yet.
    fn given_to_others(
        &self,
        recorded: &Recorded,
        number: impl Fn(&str) -> Option<u64>,
    ) -> Option<u64> {
        let own = self.life.get().and_then(|life| Some(&*life.as_ref()?.name)).unwrap_or_default();
        let of_others = recorded.by_name.values().map(|(_, record)| record);
        let of_others = of_others.filter(|it| !it.given_to.is_empty() && it.given_to != own);
        let of_others = of_others.filter_map(|record| Some((number(&record.name)?, record)));
        let living = of_others.filter(|(_, record)| Life::is_of(&self.folder, &record.given_to));
        living.map(|(number, _)| number).max()
    }
}

fn push(lines: &mut String, record: &Record) {
    if let Ok(line) = serde_json::to_string(record) {
        lines.push_str(&line);
        lines.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, counted: &str) -> Record {
        let (name, counted) = (name.to_owned(), counted.to_owned());
        Record { name, counted, graph: "g".to_owned(), ..Record::default() }
    }

    #[test]
    fn the_last_record_of_a_name_counts() {
        let data = tempfile::tempdir().unwrap();
        let records = OutputRecords::in_data(data.path());
        assert!(records.read("/out").get("a").is_none());
        records.add("/out", &[record("a", "1"), record("b", "2")]);
        records.add("/out", &[record("a", "3")]);
        records.add("/other", &[record("b", "4")]);
        let found = records.read("/out");
        assert_eq!(found.get("a").unwrap().counted, "3");
        assert_eq!(found.get("b").unwrap().counted, "2");
        assert!(found.is_newer("a", "b") && !found.is_newer("b", "a") && found.is_newer("a", "c"));
        fs::write(records.file("/out"), "{\"name\": \"a\", \n\0\n").unwrap();
        assert!(records.read("/out").by_name.is_empty(), "a broken file is no record");
    }

    #[test]
    fn a_long_file_is_shortened() {
        let data = tempfile::tempdir().unwrap();
        let records = OutputRecords::in_data(data.path());
        for turn in 0..12 {
            let many: Vec<_> = (0..1000).map(|n| record(&format!("{n}.png"), "x")).collect();
            records.add("/out", &many);
            assert_eq!(records.read("/out").by_name.len(), 1000, "{turn}");
        }
        let length = fs::metadata(records.file("/out")).unwrap().len();
        assert!(length < 3 * LONG, "{length}");
    }

    #[test]
    fn numbers_count_up_and_are_found_again() {
        let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let records = OutputRecords::in_data(data.path());
        let folder = out.path().to_str().unwrap();
        let key = |n: u8| Key([n; 32]);
        let number = |n: u8| records.number(folder, ("a-", ".png"), key(n), true);
        assert_eq!([number(1), number(2), number(1)], [1, 2, 1], "also before they are there");
        for name in ["a-007.png", "a-x.png", "a-9.webp", "b-20.png"] {
            fs::write(out.path().join(name), "").unwrap();
        }
        assert_eq!(number(3), 8);
        records.add(folder, &[record("a-007.png", &key(4).to_string())]);
        assert_eq!(number(4), 7);
        let others = OutputRecords::in_data(data.path());
        assert_eq!(
            others.number(folder, ("a-", ".png"), key(4), false),
            7,
            "also in another process"
        );
        assert_eq!(
            others.number(folder, ("a-", ".png"), key(1), false),
            9,
            "8 is given to one that lives"
        );
        assert_eq!(number(5), 9, "a plan keeps none");
        drop(records);
        let later = OutputRecords::in_data(data.path());
        assert_eq!(later.number(folder, ("a-", ".png"), key(6), true), 8, "nobody wrote it");
    }

    #[test]
    fn processes_that_plan_at_once_have_numbers_of_their_own() {
        let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = out.path().to_str().unwrap();
        let all: Vec<_> = (0..8).map(|_| OutputRecords::in_data(data.path())).collect();
        let numbers = std::thread::scope(|scope| {
            let one = |(n, records): (usize, &OutputRecords)| {
                records.number(folder, ("", ".mp4"), Key([n as u8; 32]), true)
            };
            let all = all.iter().enumerate().map(|it| scope.spawn(move || one(it)));
            let all: Vec<_> = all.collect();
            all.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
        });
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (1..=8).collect::<Vec<u64>>(), "{numbers:?}");
    }
}
