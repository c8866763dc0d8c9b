//! Both caches and the records of sinks, as a run sees them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kino_node::{Error, Lease, Ledger, Outputs, Result, Services, Value, is_storable};

use crate::disk::DiskCache;
use crate::entry::{Header, OutputStamp, Verified};
use crate::event::{CacheStatus, Cached, Event};
use crate::memory::SharedCache;
use crate::panic::catch;
use crate::sink;
use crate::waiting::Waiting;
use crate::wanted::{covers, has, holds};
use crate::wiring::Wiring;

/// As many large entries are kept open until their turn comes.
const MAX_OPEN: usize = 64;
/// So many bytes of small entries are read before their turn comes. What is not kept open and not
/// read is verified once more then: of the turns of a long loop there may be more than memory has
/// room for.
const READ_AHEAD: u64 = 16 << 20;

/// What a cache holds of a step.
pub(crate) enum Hit {
    /// The outputs.
    Here {
        outputs: Outputs,
        cached: Cached,
        /// Seconds that reading them took.
        seconds: f64,
        /// On what was read from the disk, until the run takes it.
        lease: Option<Lease>,
    },
    /// An entry that was verified and stays open until its turn comes.
    Open(Box<Verified>),
    /// An entry that was verified, and will be once more when its turn comes.
    Later(Box<Header>),
}

/// What verified entries take before their turn comes, all together.
#[derive(Default)]
pub(crate) struct Ahead {
    /// Large entries that were left open.
    open: AtomicUsize,
    /// Bytes of small ones that were read.
    read: AtomicU64,
}

impl Hit {
    /// As what the hit is announced.
    pub(crate) fn status(&self) -> CacheStatus {
        match self {
            Hit::Here { cached: Cached::Memory, .. } => CacheStatus::Memory,
            Hit::Here { .. } | Hit::Open(_) | Hit::Later(_) => CacheStatus::Disk,
        }
    }

    /// The same, with what waits long for its reader outside memory.
    pub(crate) fn set_aside(self, step: usize, waiting: &Waiting<'_>) -> Self {
        match self {
            Hit::Here { outputs, cached, seconds, lease } => {
                let outputs = waiting.set_aside(step, outputs);
                Hit::Here { outputs, cached, seconds, lease }
            }
            other => other,
        }
    }

    /// The outputs, where they were read.
    pub(crate) fn outputs(&self) -> Option<&Outputs> {
        match self {
            Hit::Here { outputs, .. } => Some(outputs),
            Hit::Open(_) | Hit::Later(_) => None,
        }
    }

    /// Whether all `wanted` outputs are among what it holds.
    pub(crate) fn covers(&self, wanted: &[bool]) -> bool {
        match self {
            Hit::Here { outputs, .. } => has(outputs, wanted),
            Hit::Open(found) => covers(&found.header.holds, wanted),
            Hit::Later(header) => covers(&header.holds, wanted),
        }
    }
}

/// What a cache says of a step before anything large is read.
pub(crate) enum Claim {
    /// It is in memory.
    Found(Hit),
    /// An entry on disk, or the record of a sink, says that it holds these outputs.
    Stored(Vec<bool>),
}

/// Where results are kept beyond a run.
pub(crate) struct Store {
    memory: Arc<SharedCache>,
    pub(crate) disk: Option<DiskCache>,
    /// What sinks wrote.
    sinks: Mutex<sink::Records>,
    /// Whether results stay in memory: there will be other runs.
    pub(crate) keeps: bool,
    /// How many bytes of them.
    pub(crate) memory_budget: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    pub(crate) fn new(memory_budget: u64, disk: Option<DiskCache>, ledger: &Arc<Ledger>) -> Self {
        let memory = SharedCache::new(memory_budget, ledger);
        Store { memory, disk, sinks: Mutex::default(), keeps: memory_budget > 0, memory_budget }
    }

    /// What will become of a step, going by what the caches claim to hold.
    pub(crate) fn status(
        &self,
        wiring: &Wiring<'_>,
        step: usize,
        wanted: &[bool],
    ) -> Option<CacheStatus> {
        let (key, traits) = (wiring.key(step), wiring.traits(step));
        if traits.sink {
            let record = self.sink_record(key, wanted)?;
            return sink::seem_unchanged(&record.files).then_some(CacheStatus::Disk);
        }
        if self.keeps && self.memory.lock().holds(key, wanted) {
            return Some(CacheStatus::Memory);
        }
        let disk = self.disk.as_ref().filter(|_| traits.expensive)?;
        covers(&disk.peek(key)?.holds, wanted).then_some(CacheStatus::Disk)
    }

    /// What the caches claim to hold of a step; headers are read, nothing is hashed.
    pub(crate) fn claim(&self, wiring: &Wiring<'_>, step: usize, wanted: &[bool]) -> Option<Claim> {
        let (key, traits) = (wiring.key(step), wiring.traits(step));
        if traits.sink {
            let record = self.sink_record(key, wanted)?;
            return sink::are_there(&record.files).then_some(Claim::Stored(record.holds));
        }
        if let Some(outputs) = self.in_memory(wiring, step, wanted) {
            let (cached, seconds) = (Cached::Memory, 0.0);
            return Some(Claim::Found(Hit::Here { outputs, cached, seconds, lease: None }));
        }
        let disk = self.disk.as_ref().filter(|_| traits.expensive)?;
        let holds = disk.peek(key)?.holds;
        covers(&holds, wanted).then_some(Claim::Stored(holds))
    }

    /// What is stored of a step, verified. `ahead` counts what such entries take. There is nothing
    /// where `stopped` says so before it was read.
    pub(crate) fn find(
        &self,
        wiring: &Wiring<'_>,
        step: usize,
        wanted: &[bool],
        services: &Services,
        ahead: &Ahead,
        stopped: &dyn Fn() -> bool,
    ) -> Option<Hit> {
        let (key, traits) = (wiring.key(step), wiring.traits(step));
        if traits.sink {
            return self.find_sink(key, wanted, services, stopped);
        }
        let disk = self.disk.as_ref().filter(|_| traits.expensive)?;
        let begun = Instant::now();
        let found = disk.find(key, wanted, stopped)?;
        let later = match found.in_memory() {
            None if ahead.open.fetch_add(1, Ordering::Relaxed) < MAX_OPEN => {
                return Some(Hit::Open(Box::new(found)));
            }
            None => true,
            Some(bytes) => ahead.read.fetch_add(bytes, Ordering::Relaxed) + bytes > READ_AHEAD,
        };
        if later {
            return Some(Hit::Later(Box::new(found.header)));
        }
        let read = self.read(key, found, services);
        let warn = |error: &Error| tracing::warn!("A cached result could not be read: {error}.");
        let outputs = read.inspect_err(warn).ok()?;
        let bytes = outputs.iter().flatten().map(Value::unleased).sum();
        let lease = (bytes > 0).then(|| services.ledger.charge(bytes));
        let seconds = begun.elapsed().as_secs_f64();
        Some(Hit::Here { outputs, cached: Cached::Disk, seconds, lease })
    }

    /// What the memory holds of a step that is no sink.
    pub(crate) fn in_memory(
        &self,
        wiring: &Wiring<'_>,
        step: usize,
        wanted: &[bool],
    ) -> Option<Outputs> {
        let looks = self.keeps && !wiring.traits(step).sink;
        looks.then(|| self.memory.lock().find(wiring.key(step), wanted)).flatten()
    }

    /// Reads a verified entry and keeps it in memory, too.
    ///
    /// # Errors
    /// When it cannot be read after all, or frames find no room. It stays where it is: its checksum
    /// fits, and what is computed instead takes its place.
    pub(crate) fn read(
        &self,
        key: &[u8; 32],
        found: Verified,
        services: &Services,
    ) -> Result<Outputs> {
        let header = found.header.clone();
        let outputs = catch(|| found.read(services)).unwrap_or_else(|message| {
            Err(Error::failed(format!("a type of its values panicked: {message}")))
        })?;
        if holds(&outputs) != header.holds {
            return Err(Error::failed("a cached result has other outputs than it says"));
        }
        self.keep_in_memory(key, &outputs, header.seconds);
        Ok(outputs)
    }

    /// Keeps what a step computed, beside what is kept of its other outputs. An entry on disk is
    /// complete when this returns.
    pub(crate) fn keep(
        &self,
        wiring: &Wiring<'_>,
        step: usize,
        outputs: &Outputs,
        seconds: f64,
        services: &Services,
    ) {
        let (key, traits) = (wiring.key(step), wiring.traits(step));
        if traits.sink {
            return self.keep_sink(key, outputs, seconds);
        }
        if self.keeps {
            let mut memory = self.memory.lock();
            match memory.beside(key, outputs) {
                Some(kept) => memory.store(key, &joined(outputs, Some(kept)), seconds),
                None => memory.store(key, outputs, seconds),
            }
        }
        if let Some(disk) = self.disk.as_ref().filter(|_| traits.expensive)
            && outputs.iter().flatten().all(is_storable)
        {
            let kept = on_disk(disk, key, outputs, services);
            let outputs = joined(outputs, kept);
            disk.store(key, &header(&outputs, seconds, Vec::new()), &outputs);
        }
    }

    /// Drops what is held of a step.
    pub(crate) fn forget(&self, key: &[u8; 32]) {
        self.memory.lock().remove(key);
        lock(&self.sinks).remove(key);
        if let Some(disk) = &self.disk {
            disk.forget(key);
        }
    }

    fn keep_in_memory(&self, key: &[u8; 32], outputs: &[Option<Value>], seconds: f64) {
        if self.keeps {
            self.memory.lock().store(key, outputs, seconds);
        }
    }

    fn sink_record(&self, key: &[u8; 32], wanted: &[bool]) -> Option<Header> {
        let remembered = lock(&self.sinks).get(key).map(|(header, _)| header);
        let header = remembered.or_else(|| self.disk.as_ref()?.peek(key))?;
        covers(&header.holds, wanted).then_some(header)
    }

    fn find_sink(
        &self,
        key: &[u8; 32],
        wanted: &[bool],
        services: &Services,
        stopped: &dyn Fn() -> bool,
    ) -> Option<Hit> {
        let begun = Instant::now();
        let remembered = lock(&self.sinks).get(key);
        let (header, outputs) = match remembered {
            Some(found) => found,
            None => {
                let found = self.disk.as_ref()?.find(key, wanted, stopped)?;
                let header = found.header.clone();
                (header, found.read(services).ok()?)
            }
        };
        if !covers(&header.holds, wanted) {
            return None;
        }
        match sink::check(&header.files, stopped) {
            sink::State::Untouched => {}
            sink::State::Same(files) => self.record(key, Header { files, ..header }, &outputs),
            sink::State::Changed => return None,
        }
        let seconds = begun.elapsed().as_secs_f64();
        Some(Hit::Here { outputs, cached: Cached::Disk, seconds, lease: None })
    }

    fn keep_sink(&self, key: &[u8; 32], outputs: &Outputs, seconds: f64) {
        let files = sink::record(&sink::files(outputs)).filter(|files| !files.is_empty());
        if let Some(files) = files
            && outputs.iter().flatten().all(is_storable)
        {
            self.record(key, header(outputs, seconds, files), outputs);
        }
    }

    fn record(&self, key: &[u8; 32], header: Header, outputs: &Outputs) {
        if let Some(disk) = &self.disk {
            disk.store(key, &header, outputs);
        }
        if self.keeps {
            lock(&self.sinks).insert(*key, header, outputs.clone());
        }
    }
}

/// The outputs of an entry on disk, where it holds some that are not among `outputs`.
fn on_disk(
    disk: &DiskCache,
    key: &[u8; 32],
    outputs: &[Option<Value>],
    services: &Services,
) -> Option<Outputs> {
    if covers(&holds(outputs), &disk.peek(key)?.holds) {
        return None;
    }
    disk.find(key, &vec![false; outputs.len()], &|| false)?.read(services).ok()
}

/// Outputs, with those that are missing taken from what was kept of the same key.
fn joined(outputs: &[Option<Value>], kept: Option<Outputs>) -> Outputs {
    let mut kept = kept.filter(|kept| kept.len() == outputs.len()).unwrap_or_default().into_iter();
    let one = |output: &Option<Value>| {
        let other = kept.next().flatten();
        output.clone().or(other)
    };
    outputs.iter().map(one).collect()
}

fn header(outputs: &[Option<Value>], seconds: f64, files: Vec<OutputStamp>) -> Header {
    let memory = outputs.iter().flatten().map(Value::unleased).sum();
    Header { holds: holds(outputs), seconds, files, memory }
}

/// The event that a step's result is there, without what its node says of the work.
pub(crate) fn finished(
    wiring: &Wiring<'_>,
    step: usize,
    outputs: &[Option<Value>],
    cached: Cached,
    seconds: f64,
) -> Event {
    Event::Finished {
        name: Arc::clone(wiring.name(step)),
        op: Arc::clone(wiring.op(step)),
        cached,
        seconds,
        bytes: outputs.iter().flatten().map(Value::bytes).sum(),
        files: if wiring.traits(step).sink { sink::files(outputs) } else { Vec::new() },
        notes: Vec::new(),
    }
}
