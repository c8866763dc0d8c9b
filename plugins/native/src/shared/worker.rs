//! The worker's side: makes tensors in files, maps the engine's.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use candle_core::DType;
use kino_host::{PluginValue, SharedTensor, TensorBuffer};
use kino_node::{Error, Ledger, Result};
use memmap2::{MmapOptions, MmapRaw};

use super::codec::{DecodeValue, EncodeValue, decode, encode};
use super::places::{OutgoingFiles, SharedFolders, name_of};
use crate::allocator::{SharedMemory, TensorAllocator, TensorDraft};
use crate::wire::WireValue;

/// Where the files lie that this worker made, by the address of their memory.
type Table = Arc<Mutex<HashMap<usize, PathBuf>>>;

/// Memory of a shared file. The file is removed with it unless it was sent.
struct Mapped {
    map: MmapRaw,
    table: Table,
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the mapping is as long as it says, and lives as long as this. Nobody reads what is
        // still being written (`TensorDraft`), and the engine truncates no file.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr(), self.map.len()) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = table.remove(&(self.map.as_ptr() as usize)) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Where a tensor's memory begins.
fn address(item: &PluginValue) -> Option<usize> {
    let PluginValue::SharedTensor(shared) = item else { return None };
    Some((*shared.memory).as_ref().as_ptr() as usize)
}

/// Makes tensors in files that the engine's process sees, too.
#[derive(Clone)]
pub(crate) struct SharedAllocator {
    places: SharedFolders,
    made: Table,
    /// Values of the engine that the plugin may still hold: each has a name of its own.
    named: Arc<Mutex<HashMap<u64, Weak<str>>>>,
}

impl SharedAllocator {
    pub(crate) fn new(places: SharedFolders) -> Self {
        SharedAllocator { places, made: Arc::default(), named: Arc::default() }
    }

    fn made(&self) -> MutexGuard<'_, HashMap<usize, PathBuf>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn named(&self) -> MutexGuard<'_, HashMap<u64, Weak<str>>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn map(&self, file: &File) -> Result<Mapped> {
        let map = MmapOptions::new().map_raw(file)?;
        Ok(Mapped { map, table: Arc::clone(&self.made) })
    }

    fn shared(&self, dtype: DType, shape: &[usize], memory: Option<Mapped>) -> SharedTensor {
        let memory: Box<dyn AsRef<[u8]> + Send + Sync> = match memory {
            Some(mapped) => Box::new(mapped),
            None => Box::new([]),
        };
        SharedTensor { dtype, shape: shape.to_vec(), memory }
    }

    /// An item that came from the engine.
    pub(crate) fn decode(&self, wire: WireValue) -> Result<PluginValue> {
        decode(self, wire)
    }

    /// An item on its way to the engine.
    pub(crate) fn encode(
        &self,
        item: &PluginValue,
        outbox: &mut OutgoingFiles,
    ) -> Result<WireValue> {
        encode(&mut WorkerEncoder { allocator: self, outbox }, item, 0)
    }

    /// The numbers of the engine's values that the plugin has let go of.
    pub(crate) fn released(&self) -> Vec<u64> {
        let mut named = self.named();
        let gone = named.extract_if(|_, name| name.strong_count() == 0);
        gone.map(|(number, _)| number).collect()
    }
}

impl DecodeValue for SharedAllocator {
    fn tensor(&self, dtype: DType, shape: &[usize], file: &str) -> Result<PluginValue> {
        let path = self.places.path(file)?;
        let file = File::options().read(true).write(true).open(&path)?;
        let empty = file.metadata()?.len() == 0;
        let memory = if empty { None } else { Some(self.map(&file)?) };
        std::fs::remove_file(&path)?;
        Ok(PluginValue::SharedTensor(Arc::new(self.shared(dtype, shape, memory))))
    }

    fn bytes(&self, file: &str) -> Result<Vec<u8>> {
        let path = self.places.path(file)?;
        let bytes = std::fs::read(&path)?;
        std::fs::remove_file(&path)?;
        Ok(bytes)
    }

    fn record(&self, ty: &str, fields: Vec<(Arc<str>, PluginValue)>) -> Result<PluginValue> {
        Ok(PluginValue::Fields(ty.into(), fields.into()))
    }

    fn opaque(&self, name: &str, number: u64) -> Result<PluginValue> {
        let name: Arc<str> = name.into();
        self.named().insert(number, Arc::downgrade(&name));
        Ok(PluginValue::Remote(name, number))
    }
}

/// Values on their way to the engine.
struct WorkerEncoder<'a> {
    allocator: &'a SharedAllocator,
    outbox: &'a mut OutgoingFiles,
}

impl EncodeValue for WorkerEncoder<'_> {
    /// The file in which a tensor lies already, or a copy in a new one.
    fn tensor(&mut self, item: &PluginValue) -> Result<String> {
        // Once it is sent, the engine removes it.
        let place = address(item).and_then(|at| self.allocator.made().remove(&at));
        match place {
            Some(path) => {
                let name = name_of(&path);
                self.outbox.add(path);
                Ok(name)
            }
            None => self.allocator.places.write(item, self.outbox),
        }
    }

    fn bytes(&mut self, item: &PluginValue) -> Result<String> {
        self.allocator.places.write(item, self.outbox)
    }

    fn opaque(&mut self, item: &PluginValue) -> Result<WireValue> {
        match item {
            PluginValue::Remote(name, number) => Ok(WireValue::Opaque(name.to_string(), *number)),
            _ => Err(Error::failed("this value does not leave the worker")),
        }
    }
}

impl TensorAllocator for SharedAllocator {
    /// Files are zeros where nobody wrote.
    fn tensor(&self, dtype: DType, shape: &[usize], _zeroed: bool) -> Result<TensorDraft> {
        let bytes = TensorBuffer::size(dtype, shape)? as usize;
        if bytes == 0 {
            let nowhere = SharedMemory(std::ptr::dangling_mut::<u64>().cast());
            return Ok(TensorDraft::Shared(self.shared(dtype, shape, None), nowhere));
        }
        let (file, path) = self.places.create(bytes)?;
        let mapped = self.map(&file)?;
        let memory = SharedMemory(mapped.map.as_mut_ptr());
        self.made().insert(memory.0 as usize, path);
        Ok(TensorDraft::Shared(self.shared(dtype, shape, Some(mapped)), memory))
    }

    fn ledger(&self, _: Option<&Arc<Ledger>>) -> Option<Arc<Ledger>> {
        None
    }

    fn record(&self, ty: &str, fields: Vec<(Arc<str>, PluginValue)>) -> Result<PluginValue> {
        Ok(PluginValue::Fields(ty.into(), fields.into()))
    }
}
