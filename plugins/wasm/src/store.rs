//! What belongs to one instance: its values, what it has used up, what it may.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{Device, Tensor};
use kino_host::{Item, Limits};
use kino_node::{Cancel, Error, Ledger, Result, Value};
use wasmtime::ResourceLimiter;
use wasmtime::component::Resource;

use crate::mail::Mail;
use crate::stop::Stop;
use crate::wasi::Wasi;

/// Values that an instance may hold at a time.
pub(crate) const MOST_HANDLES: usize = 1 << 16;
/// How deep lists and records may lie in each other.
const DEEPEST: u32 = 64;
/// The parts of parts that one value may have, counted as often as they occur.
const MOST_PARTS: u64 = 1 << 20;
/// What a part of a list costs, beside its contents.
const PART: u64 = 64;
/// Frames may take this many times the memory: they go to a file.
const FRAMES: u64 = 64;
/// What a chunk of frames costs, beside its pixels.
const CHUNK: u64 = 512;
/// Elements of one table.
const MOST_ELEMENTS: usize = 100_000;

/// The bytes that an instance uses: memory of its own, and of the host for what it made.
#[derive(Default)]
pub(crate) struct Usage {
    used: AtomicU64,
}

/// Bytes of the host that a value takes, free again when its last handle is gone.
pub(crate) struct Charge {
    usage: Arc<Usage>,
    bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.usage.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A bound on how large a value is as a tree.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    depth: u32,
    parts: u64,
}

impl Extent {
    /// A value without parts.
    pub(crate) const LEAF: Self = Extent { depth: 0, parts: 1 };

    /// Of an input; it stops looking where it is too large anyway.
    fn of(value: &Value, depth: u32) -> Self {
        let mut all = Extent { depth: 0, parts: 1 };
        if depth > DEEPEST {
            return all;
        }
        let mut add = |value: &Value| {
            if all.parts <= MOST_PARTS {
                let part = Extent::of(value, depth + 1);
                all.depth = all.depth.max(part.depth + 1);
                all.parts = all.parts.saturating_add(part.parts);
            }
        };
        match value {
            Value::List(items) => items.iter().for_each(|(_, item)| add(item)),
            Value::Custom(record) => record.fields.iter().for_each(|(_, field)| add(field)),
            _ => {}
        }
        all
    }

    /// Of something that has these parts.
    fn around(parts: impl IntoIterator<Item = Extent>) -> Result<Self> {
        let mut all = Extent::LEAF;
        for part in parts {
            all.depth = all.depth.max(part.depth + 1);
            all.parts = all.parts.saturating_add(part.parts);
        }
        match all.depth <= DEEPEST && all.parts <= MOST_PARTS {
            true => Ok(all),
            false => Err(Error::failed(format!(
                "this value has too many parts: at most {DEEPEST} deep and {MOST_PARTS} in all"
            ))),
        }
    }

    /// Of any part.
    fn within(self) -> Self {
        Extent { depth: self.depth.saturating_sub(1), parts: (self.parts - 1).max(1) }
    }
}

/// What a handle of the plugin leads to.
pub(crate) struct Entry {
    pub(crate) item: Item,
    /// The tensor in main memory without gaps, once it was read.
    pub(crate) plain: Option<Item>,
    charges: Vec<Arc<Charge>>,
    extent: Extent,
}

impl Entry {
    /// A value that nobody pays for.
    pub(crate) fn free(item: Item) -> Self {
        Entry { item, plain: None, charges: Vec::new(), extent: Extent::LEAF }
    }

    /// A part of this value.
    pub(crate) fn part(&self, item: Item) -> Self {
        let (charges, extent) = (self.charges.clone(), self.extent.within());
        Entry { item, plain: None, charges, extent }
    }

    /// The same value again.
    pub(crate) fn again(&self) -> Self {
        let (item, plain) = (self.item.clone(), self.plain.clone());
        Entry { item, plain, charges: self.charges.clone(), extent: self.extent }
    }

    pub(crate) fn pay(&mut self, charge: Charge) {
        self.charges.push(Arc::new(charge));
    }

    /// What was paid for this value.
    pub(crate) fn charges(&self) -> &[Arc<Charge>] {
        &self.charges
    }

    /// Keeps what others were paid with: this value lies in their memory.
    pub(crate) fn share(&mut self, charges: &[Arc<Charge>]) {
        self.charges.extend_from_slice(charges);
    }
}

/// The values that the plugin has handles of.
#[derive(Default)]
pub(crate) struct Handles {
    slots: Vec<Option<Entry>>,
    unused: Vec<u32>,
}

impl Handles {
    fn push(&mut self, entry: Entry) -> Result<u32, Stop> {
        if let Some(at) = self.unused.pop() {
            self.slots[at as usize] = Some(entry);
            return Ok(at);
        }
        if self.slots.len() >= MOST_HANDLES {
            return Err(Stop::Handles(MOST_HANDLES));
        }
        self.slots.push(Some(entry));
        Ok((self.slots.len() - 1) as u32)
    }

    fn take(&mut self, at: u32) -> Option<Entry> {
        let entry = self.slots.get_mut(at as usize)?.take();
        if entry.is_some() {
            self.unused.push(at);
        }
        entry
    }
}

/// What an item takes as a value of its own: bytes become a tensor, lists are unfolded.
pub(crate) fn unfolded(item: &Item) -> u64 {
    match item {
        Item::Bytes(bytes) => bytes.len() as u64,
        Item::List(items) => items.iter().map(|(_, item)| PART + unfolded(item)).sum(),
        _ => 0,
    }
}

/// The bytes of a tensor's elements.
pub(crate) fn size(tensor: &Tensor) -> u64 {
    (tensor.elem_count() as u64).saturating_mul(tensor.dtype().size_in_bytes() as u64)
}

/// Everything that belongs to one instance.
pub(crate) struct Own {
    pub(crate) mail: Mail,
    pub(crate) handles: Handles,
    pub(crate) wasi: Wasi,
    pub(crate) device: Device,
    pub(crate) ledger: Option<Arc<Ledger>>,
    pub(crate) cancel: Cancel,
    pub(crate) wanted: Vec<bool>,
    pub(crate) limits: Limits,
    /// The last message of the level `error` in this call.
    pub(crate) said: Option<String>,
    /// Whether memory was refused in this call.
    pub(crate) starved: bool,
    usage: Arc<Usage>,
    /// Bytes of frames that it pushed in this call.
    pushed: u64,
}

impl Own {
    pub(crate) fn new(call: &kino_host::Call<'_>) -> Self {
        let mut own = Own {
            mail: Mail::default(),
            handles: Handles::default(),
            wasi: Wasi::default(),
            device: Device::Cpu,
            ledger: None,
            cancel: Cancel::default(),
            wanted: Vec::new(),
            limits: call.limits,
            said: None,
            starved: false,
            usage: Arc::default(),
            pushed: 0,
        };
        own.begin(call);
        own
    }

    /// Another call begins.
    pub(crate) fn begin(&mut self, call: &kino_host::Call<'_>) {
        self.device = call.device.clone();
        self.ledger = Some(Arc::clone(call.ledger));
        self.cancel = call.cancel.clone();
        self.wanted.clear();
        self.wanted.extend_from_slice(call.wanted);
        self.limits = call.limits;
        (self.said, self.starved, self.pushed) = (None, false, 0);
    }

    /// Bytes that are left of the memory limit.
    pub(crate) fn left(&self) -> u64 {
        self.limits.memory.saturating_sub(self.usage.used.load(Ordering::Relaxed))
    }

    /// Takes bytes of the memory limit.
    ///
    /// # Errors
    /// When fewer are left.
    pub(crate) fn charge(&self, bytes: u64) -> Result<Charge> {
        let left = self.left();
        if bytes > left {
            return Err(Error::advised(
                format!("{bytes} bytes are more than the {left} that are left of its memory"),
                "drop values that are not needed any more, or work piece by piece",
            ));
        }
        self.usage.used.fetch_add(bytes, Ordering::Relaxed);
        Ok(Charge { usage: Arc::clone(&self.usage), bytes })
    }

    /// Gives the plugin a handle.
    pub(crate) fn give(&mut self, entry: Entry) -> Result<Resource<Entry>, Stop> {
        self.handles.push(entry).map(Resource::new_own)
    }

    /// An input as the plugin gets it.
    pub(crate) fn give_input(&mut self, value: Value) -> Result<Resource<Entry>> {
        let extent = Extent::around([Extent::of(&value, 0)])?.within();
        let entry = Entry { extent, ..Entry::free(Item::Value(value)) };
        self.give(entry).map_err(|stop| Error::failed(format!("the inputs: {stop}")))
    }

    /// What a handle leads to.
    pub(crate) fn entry(&self, handle: &Resource<Entry>) -> Result<&Entry, Stop> {
        let slot = self.handles.slots.get(handle.rep() as usize);
        slot.and_then(Option::as_ref).ok_or(Stop::Stray)
    }

    pub(crate) fn entry_mut(&mut self, handle: &Resource<Entry>) -> Result<&mut Entry, Stop> {
        let slot = self.handles.slots.get_mut(handle.rep() as usize);
        slot.and_then(Option::as_mut).ok_or(Stop::Stray)
    }

    /// Takes a handle back.
    pub(crate) fn take(&mut self, handle: u32) -> Result<Entry, Stop> {
        self.handles.take(handle).ok_or(Stop::Stray)
    }

    /// A value that is made of others, with their names; `more` says what it takes beside them.
    ///
    /// # Errors
    /// When it is too large, or memory is used up.
    pub(crate) fn combine(
        &mut self,
        parts: Vec<(String, Resource<Entry>)>,
        more: impl Fn(&Item) -> u64,
        make: impl FnOnce(Vec<(Arc<str>, Item)>) -> Result<Item>,
    ) -> Result<Result<Entry>, Stop> {
        let names: u64 = parts.iter().map(|(name, _)| name.len() as u64 + PART).sum();
        let mut items = Vec::with_capacity(parts.len());
        let mut extents = Vec::with_capacity(parts.len());
        let mut charges: Vec<Arc<Charge>> = Vec::new();
        for (name, handle) in parts {
            let entry = self.entry(&handle)?;
            items.push((Arc::from(name), entry.item.clone()));
            extents.push(entry.extent);
            charges.extend(entry.charges.iter().cloned());
        }
        charges.sort_by_key(Arc::as_ptr);
        charges.dedup_by_key(|charge| Arc::as_ptr(charge));
        let combined = Extent::around(extents).and_then(|extent| {
            let more: u64 = items.iter().map(|(_, item)| more(item)).sum();
            charges.push(Arc::new(self.charge(names + more)?));
            Ok(Entry { item: make(items)?, plain: None, charges, extent })
        });
        Ok(combined)
    }

    /// Counts frames that the plugin pushed; the charge is for the chunk itself.
    ///
    /// # Errors
    /// When they are more than it may make.
    pub(crate) fn count_frames(&mut self, chunk: &Tensor) -> Result<Charge> {
        let bytes = (chunk.elem_count() as u64).saturating_mul(4);
        let most = self.limits.memory.saturating_mul(FRAMES);
        self.pushed = self.pushed.saturating_add(bytes);
        match self.pushed <= most {
            true => self.charge(CHUNK),
            false => Err(Error::failed(format!(
                "{} bytes of frames are more than the {most} that a call may make",
                self.pushed
            ))),
        }
    }
}

impl ResourceLimiter for Own {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        if more > self.left() {
            self.starved = true;
            return Ok(false);
        }
        self.usage.used.fetch_add(more, Ordering::Relaxed);
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= MOST_ELEMENTS)
    }

    fn instances(&self) -> usize {
        64
    }

    fn tables(&self) -> usize {
        64
    }

    fn memories(&self) -> usize {
        16
    }
}
