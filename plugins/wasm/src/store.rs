//! What belongs to one store: its values, what it has used up, what it may.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use candle_core::{Device, Tensor};
use kino_host::{FramesDraft, Limits, PluginValue, TensorBuffer, storage_of};
use kino_node::{Cancel, Error, Frames, Ledger, Result, Value};
use wasmtime::ResourceLimiter;
use wasmtime::component::Resource;

use crate::queue::HostQueue;
use crate::stderr_tail::StderrTail;
use crate::stop::Stop;
use crate::wasi_state::WasiState;

/// Values that an instance may hold at a time.
pub(crate) const MAX_HANDLES: usize = 1 << 16;
/// How deep lists and records may lie in each other.
const DEEPEST: u32 = 64;
/// The parts of parts that one value may have, counted as often as they occur.
const MAX_PARTS: u64 = 1 << 20;
/// What a part of a list costs, beside its contents.
const PART: u64 = 64;
/// Frames may take this many times the memory: they go to a file.
const FRAMES: u64 = 64;
/// What a chunk of frames costs, beside its pixels.
const CHUNK: u64 = 512;
/// Elements of one table.
const MAX_ELEMENTS: usize = 100_000;

/// The bytes that an instance uses: memory of its own, and of the host for what it made.
#[derive(Default)]
pub(crate) struct MemoryMeter {
    used: AtomicU64,
}

/// Bytes of the host that a value takes, free again when its last handle is gone.
pub(crate) struct MemoryCharge {
    meter: Arc<MemoryMeter>,
    bytes: u64,
}

impl Drop for MemoryCharge {
    fn drop(&mut self) {
        self.meter.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A bound on how large a value is as a tree.
#[derive(Clone, Copy)]
pub(crate) struct TreeSize {
    depth: u32,
    parts: u64,
}

impl TreeSize {
    /// A value without parts.
    pub(crate) const LEAF: Self = TreeSize { depth: 0, parts: 1 };

    /// Of an input; it stops looking where it is too large anyway.
    fn of(value: &Value, depth: u32) -> Self {
        let mut all = TreeSize { depth: 0, parts: 1 };
        if depth > DEEPEST {
            return all;
        }
        let mut add = |value: &Value| {
            if all.parts <= MAX_PARTS {
                let part = TreeSize::of(value, depth + 1);
                all.depth = all.depth.max(part.depth + 1);
                all.parts = all.parts.saturating_add(part.parts);
            }
        };
        match value {
            Value::List(items) => items.iter().for_each(|(_, item)| add(item)),
            Value::Custom(record) => record.fields.iter().for_each(|(_, field)| add(field)),
            Value::Typed(typed) => typed.more().iter().for_each(|(_, field)| add(field)),
            _ => {}
        }
        all
    }

    /// Of something that has these parts.
    fn around(parts: impl IntoIterator<Item = TreeSize>) -> Result<Self> {
        let mut all = TreeSize::LEAF;
        for part in parts {
            all.depth = all.depth.max(part.depth + 1);
            all.parts = all.parts.saturating_add(part.parts);
        }
        match all.depth <= DEEPEST && all.parts <= MAX_PARTS {
            true => Ok(all),
            false => Err(Error::failed(format!(
                "this value has too many parts: at most {DEEPEST} deep and {MAX_PARTS} in all"
            ))),
        }
    }

    /// Of any part.
    fn within(self) -> Self {
        TreeSize { depth: self.depth.saturating_sub(1), parts: (self.parts - 1).max(1) }
    }
}

/// What a handle of the plugin leads to.
pub(crate) struct ResourceEntry {
    pub(crate) item: PluginValue,
    /// The tensor in main memory without gaps, once it was read.
    pub(crate) plain: Option<PluginValue>,
    charges: Vec<Arc<MemoryCharge>>,
    extent: TreeSize,
    /// What of the call's inputs it consists of: nobody pays for that while the call lasts.
    lent: Vec<PluginValue>,
}

impl ResourceEntry {
    /// A value that nobody pays for.
    pub(crate) fn free(item: PluginValue) -> Self {
        let (charges, lent) = (Vec::new(), Vec::new());
        ResourceEntry { item, plain: None, charges, extent: TreeSize::LEAF, lent }
    }

    /// A part of this value.
    pub(crate) fn part(&self, item: PluginValue) -> Self {
        let (charges, extent) = (self.charges.clone(), self.extent.within());
        let lent = if self.lent.is_empty() { Vec::new() } else { vec![item.clone()] };
        ResourceEntry { item, plain: None, charges, extent, lent }
    }

    /// The same value again.
    pub(crate) fn again(&self) -> Self {
        let (item, plain) = (self.item.clone(), self.plain.clone());
        let (charges, lent) = (self.charges.clone(), self.lent.clone());
        ResourceEntry { item, plain, charges, extent: self.extent, lent }
    }

    pub(crate) fn pay(&mut self, charge: MemoryCharge) {
        self.charges.push(Arc::new(charge));
    }

    /// What pays for the memory that this value lies in.
    pub(crate) fn backing(&self) -> Backing {
        Backing { charges: self.charges.clone(), lent: self.lent.clone() }
    }

    /// This value lies in the memory of another one.
    pub(crate) fn share(&mut self, backing: Backing) {
        self.charges.extend(backing.charges);
        self.lent.extend(backing.lent);
    }
}

/// What pays for the memory that a value lies in.
#[derive(Clone, Default)]
pub(crate) struct Backing {
    charges: Vec<Arc<MemoryCharge>>,
    lent: Vec<PluginValue>,
}

/// The memory of the engine that a value keeps: where it is, and its bytes.
pub(crate) fn held_by(item: &PluginValue, add: &mut dyn FnMut(usize, u64)) {
    let mut tensor = |tensor: &Tensor| {
        let (place, bytes) = storage_of(tensor);
        add(place, bytes);
    };
    match item {
        PluginValue::Value(Value::Tensor(held)) => tensor(held),
        PluginValue::Value(Value::Typed(typed)) => {
            match typed.shared::<Frames>() {
                Some(frames) => held_by(&PluginValue::Chunks(frames), add),
                None => typed.tensors().flatten().for_each(|held| tensor(&held)),
            }
            let more = typed.more().iter();
            more.for_each(|(_, field)| held_by(&PluginValue::Value(field.clone()), add));
        }
        PluginValue::Chunks(frames) => {
            let pixels = frames.count() * frames.height() * frames.width();
            add(Arc::as_ptr(frames).addr(), 12 * pixels as u64);
        }
        PluginValue::Value(Value::Text(text)) => add(text.as_ptr().addr(), text.len() as u64),
        PluginValue::Value(Value::List(items)) => {
            items.iter().for_each(|(_, item)| held_by(&PluginValue::Value(item.clone()), add));
        }
        PluginValue::Value(Value::Custom(record)) => {
            let fields = record.fields.iter();
            fields.for_each(|(_, field)| held_by(&PluginValue::Value(field.clone()), add));
        }
        PluginValue::List(items) => items.iter().for_each(|(_, item)| held_by(item, add)),
        _ => {}
    }
}

/// What the plugin has handles of: values, or what is being made.
pub(crate) struct HandleTable<T> {
    slots: Vec<Option<T>>,
    unused: Vec<u32>,
}

impl<T> Default for HandleTable<T> {
    fn default() -> Self {
        HandleTable { slots: Vec::new(), unused: Vec::new() }
    }
}

impl<T> HandleTable<T> {
    pub(crate) fn push(&mut self, entry: T) -> Result<u32, Stop> {
        if let Some(at) = self.unused.pop() {
            self.slots[at as usize] = Some(entry);
            return Ok(at);
        }
        if self.slots.len() >= MAX_HANDLES {
            return Err(Stop::Handles(MAX_HANDLES));
        }
        self.slots.push(Some(entry));
        Ok((self.slots.len() - 1) as u32)
    }

    pub(crate) fn get(&self, at: u32) -> Result<&T, Stop> {
        self.slots.get(at as usize).and_then(Option::as_ref).ok_or(Stop::Stray)
    }

    pub(crate) fn get_mut(&mut self, at: u32) -> Result<&mut T, Stop> {
        self.slots.get_mut(at as usize).and_then(Option::as_mut).ok_or(Stop::Stray)
    }

    pub(crate) fn take(&mut self, at: u32) -> Result<T, Stop> {
        let entry = self.slots.get_mut(at as usize).and_then(Option::take).ok_or(Stop::Stray)?;
        self.unused.push(at);
        Ok(entry)
    }
}

/// A value that the plugin is making, and what pays for it.
pub(crate) struct Draft<T> {
    pub(crate) making: T,
    charges: Vec<Arc<MemoryCharge>>,
}

impl<T> Draft<T> {
    /// Nothing was made yet.
    pub(crate) fn new(making: T) -> Self {
        Draft { making, charges: Vec::new() }
    }

    pub(crate) fn pay(&mut self, charge: MemoryCharge) {
        self.charges.push(Arc::new(charge));
    }

    /// The value that it has become; what paid for the draft pays for it.
    ///
    /// # Errors
    /// What `finish` says.
    pub(crate) fn finish(
        self,
        finish: impl FnOnce(T) -> Result<PluginValue>,
    ) -> Result<ResourceEntry> {
        let item = finish(self.making)?;
        Ok(ResourceEntry { charges: self.charges, ..ResourceEntry::free(item) })
    }
}

/// What an item takes as a value of its own: bytes become a tensor, lists are unfolded.
pub(crate) fn unfolded(item: &PluginValue) -> u64 {
    match item {
        PluginValue::Bytes(bytes) => bytes.len() as u64,
        PluginValue::List(items) => items.iter().map(|(_, item)| PART + unfolded(item)).sum(),
        _ => 0,
    }
}

/// The bytes of a tensor's elements.
pub(crate) fn size(tensor: &Tensor) -> u64 {
    (tensor.elem_count() as u64).saturating_mul(tensor.dtype().size_in_bytes() as u64)
}

/// Everything that belongs to one instance.
pub(crate) struct StoreState {
    pub(crate) queue: HostQueue,
    /// The values that the plugin has handles of.
    pub(crate) handles: HandleTable<ResourceEntry>,
    pub(crate) tensors: HandleTable<Draft<TensorBuffer>>,
    pub(crate) frames: HandleTable<Draft<FramesDraft>>,
    pub(crate) wasi: WasiState,
    pub(crate) device: Device,
    pub(crate) ledger: Option<Arc<Ledger>>,
    pub(crate) cancel: Cancel,
    pub(crate) wanted: Vec<bool>,
    pub(crate) limits: Limits,
    /// What it said of errors in this call.
    pub(crate) said: StderrTail,
    /// Whether memory was refused in this call.
    pub(crate) memory_refused: bool,
    meter: Arc<MemoryMeter>,
    /// What was charged for inputs of earlier calls that it holds, by where these lie.
    retained: HashMap<usize, Weak<MemoryCharge>>,
    /// Bytes of frames that it pushed in this call.
    pushed: u64,
}

impl StoreState {
    pub(crate) fn new(call: &kino_host::CallCx<'_>) -> Self {
        let mut state = StoreState {
            queue: HostQueue::default(),
            handles: HandleTable::default(),
            tensors: HandleTable::default(),
            frames: HandleTable::default(),
            wasi: WasiState::default(),
            device: Device::Cpu,
            ledger: None,
            cancel: Cancel::default(),
            wanted: Vec::new(),
            limits: call.limits,
            said: StderrTail::default(),
            memory_refused: false,
            meter: Arc::default(),
            retained: HashMap::new(),
            pushed: 0,
        };
        state.begin(call);
        state
    }

    /// Another call begins.
    pub(crate) fn begin(&mut self, call: &kino_host::CallCx<'_>) {
        self.device = call.device.clone();
        self.ledger = Some(Arc::clone(call.ledger));
        self.cancel = call.cancel.clone();
        self.wanted.clear();
        self.wanted.extend_from_slice(call.wanted);
        self.limits = call.limits;
        (self.memory_refused, self.pushed) = (false, 0);
        self.said.clear();
        self.wasi.begin();
    }

    /// Bytes of the memory limit that are in use.
    pub(crate) fn used(&self) -> u64 {
        self.meter.used.load(Ordering::Relaxed)
    }

    /// Bytes that are left of the memory limit.
    pub(crate) fn left(&self) -> u64 {
        self.limits.memory.saturating_sub(self.used())
    }

    /// Takes bytes of the memory limit.
    ///
    /// # Errors
    /// When fewer are left.
    pub(crate) fn charge(&self, bytes: u64) -> Result<MemoryCharge> {
        let left = self.left();
        if bytes > left {
            return Err(Error::advised(
                format!("{bytes} bytes are more than the {left} that are left of its memory"),
                "drop values that are not needed any more, or work piece by piece",
            ));
        }
        self.meter.used.fetch_add(bytes, Ordering::Relaxed);
        Ok(MemoryCharge { meter: Arc::clone(&self.meter), bytes })
    }

    /// Gives the plugin a handle.
    pub(crate) fn give(&mut self, entry: ResourceEntry) -> Result<Resource<ResourceEntry>, Stop> {
        self.handles.push(entry).map(Resource::new_own)
    }

    /// An input as the plugin gets it.
    pub(crate) fn give_input(&mut self, value: Value) -> Result<Resource<ResourceEntry>> {
        let mut entry = self.entry_of(PluginValue::Value(value))?;
        entry.lent = vec![entry.item.clone()];
        self.give(entry).map_err(|stop| Error::failed(format!("the inputs: {stop}")))
    }

    /// A value that comes from the engine and that nobody pays for.
    ///
    /// # Errors
    /// When it has too many parts.
    pub(crate) fn entry_of(&self, item: PluginValue) -> Result<ResourceEntry> {
        let size = match &item {
            PluginValue::Value(value) => TreeSize::of(value, 0),
            _ => TreeSize::LEAF,
        };
        let extent = TreeSize::around([size])?.within();
        Ok(ResourceEntry { extent, ..ResourceEntry::free(item) })
    }

    /// What a handle leads to.
    pub(crate) fn entry(&self, handle: u32) -> Result<&ResourceEntry, Stop> {
        self.handles.get(handle)
    }

    pub(crate) fn entry_mut(&mut self, handle: u32) -> Result<&mut ResourceEntry, Stop> {
        self.handles.get_mut(handle)
    }

    /// Takes a handle back.
    pub(crate) fn take(&mut self, handle: u32) -> Result<ResourceEntry, Stop> {
        self.handles.take(handle)
    }

    /// A value that is made of others, with their names; `more` says what it takes beside them.
    ///
    /// # Errors
    /// When it is too large, or memory is used up.
    pub(crate) fn combine(
        &mut self,
        parts: Vec<(String, Resource<ResourceEntry>)>,
        more: impl Fn(&PluginValue) -> u64,
        make: impl FnOnce(Vec<(Arc<str>, PluginValue)>) -> Result<PluginValue>,
    ) -> Result<Result<ResourceEntry>, Stop> {
        let names: u64 = parts.iter().map(|(name, _)| name.len() as u64 + PART).sum();
        let mut items = Vec::with_capacity(parts.len());
        let mut extents = Vec::with_capacity(parts.len());
        let mut charges: Vec<Arc<MemoryCharge>> = Vec::new();
        let mut lent = Vec::new();
        for (name, handle) in parts {
            let entry = self.entry(handle.rep())?;
            items.push((Arc::from(name), entry.item.clone()));
            extents.push(entry.extent);
            charges.extend(entry.charges.iter().cloned());
            lent.extend(entry.lent.iter().cloned());
        }
        charges.sort_by_key(Arc::as_ptr);
        charges.dedup_by_key(|charge| Arc::as_ptr(charge));
        let combined = TreeSize::around(extents).and_then(|extent| {
            let more: u64 = items.iter().map(|(_, item)| more(item)).sum();
            charges.push(Arc::new(self.charge(names + more)?));
            Ok(ResourceEntry { item: make(items)?, plain: None, charges, extent, lent })
        });
        Ok(combined)
    }

    /// Charges what the plugin goes on holding of its inputs, now that the call is over: while it
    /// has a handle, the engine's memory is not free.
    ///
    /// # Errors
    /// When that is more than is left of its memory.
    pub(crate) fn charge_retained(&mut self) -> Result<()> {
        let mut retained = std::mem::take(&mut self.retained);
        retained.retain(|_, charge| charge.strong_count() > 0);
        let mut slots = std::mem::take(&mut self.handles.slots);
        let mut outcome = Ok(());
        for entry in slots.iter_mut().flatten() {
            for item in std::mem::take(&mut entry.lent) {
                held_by(&item, &mut |place, bytes| {
                    let paid = retained.get(&place).and_then(Weak::upgrade);
                    match paid.map_or_else(|| self.charge(bytes).map(Arc::new), Ok) {
                        Ok(charge) => {
                            retained.insert(place, Arc::downgrade(&charge));
                            entry.charges.push(charge);
                        }
                        Err(error) => outcome = Err(error),
                    }
                });
            }
        }
        (self.handles.slots, self.retained) = (slots, retained);
        outcome
    }

    /// Counts frames that the plugin pushed; the charge is for the chunk itself.
    ///
    /// # Errors
    /// When they are more than it may make.
    pub(crate) fn count_frames(&mut self, chunk: &Tensor) -> Result<MemoryCharge> {
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

impl ResourceLimiter for StoreState {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        if more > self.left() {
            self.memory_refused = true;
            return Ok(false);
        }
        self.meter.used.fetch_add(more, Ordering::Relaxed);
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_ELEMENTS)
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
