//! Memory that engine and worker share: files in a folder that lies in memory where the system has
//! one.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::DType;
use kino_host::{Draft, Item, Kind, Shared};
use kino_node::{Error, Result, Value};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::FallocateFlags;

use crate::maker::Maker;
use crate::wire::{DEEPEST, Wire, dtype};

/// A folder in memory has this many bytes free, or files lie on the disk: containers have little.
const ROOM: u64 = 1 << 30;

/// A folder in memory where there is room, removed when this is dropped.
pub(crate) fn folder() -> Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("kino-worker-");
    let in_memory = Path::new("/dev/shm");
    let free = rustix::fs::statvfs(in_memory).map_or(0, |stat| stat.f_bavail * stat.f_frsize);
    let made = if free >= ROOM { builder.tempdir_in(in_memory) } else { builder.tempdir() };
    Ok(made.or_else(|_| builder.tempdir())?)
}

/// Sets room aside for a file: where there is none, that is an error here and not a signal later.
fn reserve(file: &File, bytes: usize) -> Result<()> {
    rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes as u64).map_err(|error| {
        Error::advised(
            format!("there is no room for a tensor of {bytes} bytes: {error}"),
            "isolated plugins keep tensors in shared memory (/dev/shm), or in the folder for \
             temporary files (TMPDIR)",
        )
    })
}

fn fresh(folder: &Path, side: char) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    folder.join(format!("{side}{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// The engine's side: writes values into files, reads the worker's.
pub(crate) struct Engine<'a> {
    pub(crate) folder: &'a Path,
    /// What stays here and is only named to the worker.
    pub(crate) opaque: Vec<Item>,
}

impl Engine<'_> {
    fn write(&self, item: &Item) -> Result<String> {
        let path = fresh(self.folder, 'e');
        let mut file = File::create_new(&path)?;
        item.with_bytes(|bytes| file.write_all(bytes))??;
        Ok(name_of(&path))
    }

    /// An item on its way to the worker.
    pub(crate) fn encode(&mut self, item: &Item) -> Result<Wire> {
        self.encode_at(item, 0)
    }

    fn encode_at(&mut self, item: &Item, depth: usize) -> Result<Wire> {
        Ok(match item.kind() {
            Kind::Text => Wire::Text(item.text()?.to_owned()),
            Kind::Int => Wire::Int(item.int()?.to_string()),
            Kind::Real => Wire::Real(item.real()?.to_bits()),
            Kind::Bool => Wire::Bool(item.int()? != 0),
            Kind::Tensor => {
                let (dtype, shape) = item.shape()?;
                Wire::Tensor(dtype.as_str().to_owned(), shape, self.write(item)?)
            }
            Kind::Bytes => Wire::Bytes(self.write(item)?),
            Kind::List => Wire::List(self.encode_all(item, depth)?),
            Kind::Record => {
                Wire::Record(item.type_name().to_owned(), self.encode_all(item, depth)?)
            }
            Kind::Opaque => {
                self.opaque.push(item.clone());
                Wire::Opaque(item.type_name().to_owned(), self.opaque.len() as u64 - 1)
            }
        })
    }

    fn encode_all(&mut self, item: &Item, depth: usize) -> Result<Vec<(String, Wire)>> {
        check_depth(depth)?;
        let mut wires = Vec::with_capacity(item.len());
        for index in 0..item.len() {
            let name = item.name(index).to_owned();
            // A field may be missing: the rate of frames, for one.
            let part = match item.kind() {
                Kind::Record => item.field(&name)?,
                _ => Some(item.item(index)?),
            };
            if let Some(part) = part {
                wires.push((name, self.encode_at(&part, depth + 1)?));
            }
        }
        Ok(wires)
    }

    /// An item that came from the worker. Its files are removed.
    pub(crate) fn decode(&self, wire: Wire, spill: &Arc<kino_node::Spill>) -> Result<Item> {
        let fields = |fields: Vec<(String, Wire)>| {
            let part =
                |(name, wire): (String, Wire)| Ok((Arc::from(name), self.decode(wire, spill)?));
            fields.into_iter().map(part).collect::<Result<Vec<(Arc<str>, Item)>>>()
        };
        Ok(match wire {
            Wire::Text(text) => Item::Value(Value::Text(text.into())),
            Wire::Int(digits) => Item::Value(Value::Int(int(&digits)?)),
            Wire::Real(bits) => Item::Value(Value::Real(f64::from_bits(bits))),
            Wire::Bool(truth) => Item::Value(Value::Bool(truth)),
            Wire::Tensor(name, shape, file) => self.tensor(&name, &shape, &file)?,
            Wire::Bytes(file) => {
                let path = self.named(&file)?;
                let bytes = std::fs::read(&path)?;
                std::fs::remove_file(&path)?;
                Item::Bytes(bytes.into())
            }
            Wire::List(items) => Item::List(fields(items)?.into()),
            Wire::Record(ty, given) if ty == "Frames" => {
                let given = fields(given)?;
                let find = |name: &str| given.iter().find(|(field, _)| **field == *name);
                let fps = find("fps").map(|(_, fps)| fps.real()).transpose()?;
                let growing = kino_host::Growing::new(spill, fps);
                if let Some((_, chunks)) = find("chunks") {
                    for index in 0..chunks.len() {
                        growing.push(&chunks.item(index)?.tensor()?)?;
                    }
                }
                Item::Growing(Arc::new(growing))
            }
            Wire::Record(ty, given) => Item::record(&ty, fields(given)?)?,
            Wire::Opaque(_, number) => {
                let found = self.opaque.get(number as usize);
                found.cloned().ok_or_else(|| Error::failed("a value that is not there"))?
            }
        })
    }

    fn named(&self, file: &str) -> Result<PathBuf> {
        if file.contains(['/', '\\']) || file.starts_with('.') {
            return Err(Error::failed("the worker named a file elsewhere"));
        }
        Ok(self.folder.join(file))
    }

    fn tensor(&self, name: &str, shape: &[usize], file: &str) -> Result<Item> {
        let path = self.named(file)?;
        let mut file = File::open(&path)?;
        // The shape takes as much as there is: a plugin's word is not taken for it.
        let draft = Draft::zeros(dtype(name)?, shape, file.metadata()?.len())?;
        draft.fill(|bytes| file.read_exact(bytes))?;
        std::fs::remove_file(&path)?;
        Ok(Item::Draft(Arc::new(draft)))
    }
}

fn check_depth(depth: usize) -> Result<()> {
    if depth < DEEPEST {
        return Ok(());
    }
    Err(Error::failed(format!(
        "lists and records more than {DEEPEST} deep do not go to or from an isolated plugin"
    )))
}

fn int(digits: &str) -> Result<i128> {
    digits.parse().map_err(|_| Error::failed(format!("`{digits}` is no whole number")))
}

/// Memory of a shared file. The file is removed with it unless it was sent.
struct Mapped {
    map: MmapRaw,
    table: Arc<Mutex<HashMap<usize, Place>>>,
}

/// What is known of a file that this worker made.
struct Place {
    path: PathBuf,
    /// Whether somebody writes to it.
    lent: bool,
    /// Whether it is part of something already, and is written no more.
    used: bool,
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the mapping is as long as it says, and lives as long as this. By the contract,
        // nobody writes to a tensor that is read, and the engine truncates no file.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr(), self.map.len()) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = table.remove(&(self.map.as_ptr() as usize)) {
            let _ = std::fs::remove_file(place.path);
        }
    }
}

/// The worker's side: makes tensors in files, maps the engine's.
#[derive(Clone)]
pub(crate) struct Worker {
    folder: PathBuf,
    made: Arc<Mutex<HashMap<usize, Place>>>,
}

impl Worker {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Worker { folder, made: Arc::default() }
    }

    fn made(&self) -> MutexGuard<'_, HashMap<usize, Place>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn map(&self, file: &File) -> Result<Mapped> {
        let map = MmapOptions::new().map_raw(file)?;
        Ok(Mapped { map, table: Arc::clone(&self.made) })
    }

    fn shared(&self, dtype: DType, shape: &[usize], memory: Option<Mapped>) -> Item {
        let memory: Box<dyn AsRef<[u8]> + Send + Sync> = match memory {
            Some(mapped) => Box::new(mapped),
            None => Box::new([]),
        };
        Item::Shared(Arc::new(Shared { dtype, shape: shape.to_vec(), memory }))
    }

    /// An item that came from the engine.
    pub(crate) fn decode(&self, wire: Wire) -> Result<Item> {
        let fields = |fields: Vec<(String, Wire)>| {
            let part = |(name, wire): (String, Wire)| Ok((Arc::from(name), self.decode(wire)?));
            fields.into_iter().map(part).collect::<Result<Arc<[(Arc<str>, Item)]>>>()
        };
        Ok(match wire {
            Wire::Text(text) => Item::Value(Value::Text(text.into())),
            Wire::Int(digits) => Item::Value(Value::Int(int(&digits)?)),
            Wire::Real(bits) => Item::Value(Value::Real(f64::from_bits(bits))),
            Wire::Bool(truth) => Item::Value(Value::Bool(truth)),
            Wire::Tensor(name, shape, file) => {
                let path = self.folder.join(file);
                let file = File::options().read(true).write(true).open(&path)?;
                let empty = file.metadata()?.len() == 0;
                let memory = if empty { None } else { Some(self.map(&file)?) };
                std::fs::remove_file(&path)?;
                self.shared(dtype(&name)?, &shape, memory)
            }
            Wire::Bytes(file) => {
                let path = self.folder.join(file);
                let bytes = std::fs::read(&path)?;
                std::fs::remove_file(&path)?;
                Item::Bytes(bytes.into())
            }
            Wire::List(items) => Item::List(fields(items)?),
            Wire::Record(ty, given) => Item::Fields(ty.into(), fields(given)?),
            Wire::Opaque(name, number) => Item::Elsewhere(name.into(), number),
        })
    }

    /// An item on its way to the engine.
    pub(crate) fn encode(&self, item: &Item) -> Result<Wire> {
        self.encode_at(item, 0)
    }

    fn encode_at(&self, item: &Item, depth: usize) -> Result<Wire> {
        Ok(match item {
            Item::Elsewhere(name, number) => Wire::Opaque(name.to_string(), *number),
            item => match item.kind() {
                Kind::Text => Wire::Text(item.text()?.to_owned()),
                Kind::Int => Wire::Int(item.int()?.to_string()),
                Kind::Real => Wire::Real(item.real()?.to_bits()),
                Kind::Bool => Wire::Bool(item.int()? != 0),
                Kind::Tensor => {
                    let (dtype, shape) = item.shape()?;
                    Wire::Tensor(dtype.as_str().to_owned(), shape, self.file_of(item)?)
                }
                Kind::Bytes => Wire::Bytes(self.copy(item)?),
                Kind::List => Wire::List(self.encode_all(item, depth)?),
                Kind::Record => {
                    Wire::Record(item.type_name().to_owned(), self.encode_all(item, depth)?)
                }
                Kind::Opaque => return Err(Error::failed("this value does not leave the worker")),
            },
        })
    }

    fn encode_all(&self, item: &Item, depth: usize) -> Result<Vec<(String, Wire)>> {
        check_depth(depth)?;
        let item = match item {
            Item::Fields(..) | Item::List(_) => item.clone(),
            Item::Pushed(pushed) => pushed.items(),
            other => return Err(Error::failed(format!("{} is no list", other.type_name()))),
        };
        let part = |index| {
            let wire = self.encode_at(&item.item(index)?, depth + 1)?;
            Ok((item.name(index).to_owned(), wire))
        };
        (0..item.len()).map(part).collect()
    }

    /// From here on a tensor does not change.
    fn settle(&self, item: &Item) -> Result<()> {
        let Item::Shared(shared) = item else { return Ok(()) };
        let at = (*shared.memory).as_ref().as_ptr() as usize;
        match self.made().get_mut(&at) {
            Some(place) if place.lent => {
                Err(Error::failed("this tensor is still being written: give its view back first"))
            }
            Some(place) => {
                place.used = true;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The file in which a tensor lies already, or a copy in a new one.
    fn file_of(&self, item: &Item) -> Result<String> {
        self.settle(item)?;
        if let Item::Shared(shared) = item {
            let at = (*shared.memory).as_ref().as_ptr() as usize;
            // Once it is sent, the engine removes it.
            if let Some(place) = self.made().remove(&at) {
                return Ok(name_of(&place.path));
            }
        }
        self.copy(item)
    }

    fn copy(&self, item: &Item) -> Result<String> {
        let path = fresh(&self.folder, 'w');
        let mut file = File::create_new(&path)?;
        item.with_bytes(|bytes| file.write_all(bytes))??;
        Ok(name_of(&path))
    }
}

impl Maker for Worker {
    fn tensor(&self, dtype: DType, shape: &[usize]) -> Result<Item> {
        let bytes = shape.iter().try_fold(dtype.size_in_bytes(), |n, dim| n.checked_mul(*dim));
        let bytes = bytes.ok_or_else(|| Error::failed(format!("no tensor has {shape:?}")))?;
        if bytes == 0 {
            return Ok(self.shared(dtype, shape, None));
        }
        let path = fresh(&self.folder, 'w');
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        if let Err(error) = reserve(&file, bytes) {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        let mapped = self.map(&file)?;
        let at = mapped.map.as_ptr() as usize;
        self.made().insert(at, Place { path, lent: false, used: false });
        Ok(self.shared(dtype, shape, Some(mapped)))
    }

    fn frames(&self, fps: Option<f64>) -> Result<Item> {
        Ok(Item::Pushed(Arc::new(kino_host::Pushed::new(fps))))
    }

    fn push(&self, frames: &Item, chunk: &Item) -> Result<()> {
        match frames {
            Item::Pushed(pushed) => {
                self.settle(chunk)?;
                pushed.push(chunk.clone())
            }
            other => Err(Error::failed(format!("{} takes no frames", other.type_name()))),
        }
    }

    fn record(&self, ty: &str, fields: Vec<(Arc<str>, Item)>) -> Result<Item> {
        Ok(Item::Fields(ty.into(), fields.into()))
    }

    fn lend(&self, tensor: &Item) -> Result<*mut u8> {
        let Item::Shared(shared) = tensor else {
            return Err(Error::failed(format!("this {} cannot be written", tensor.type_name())));
        };
        let data = (*shared.memory).as_ref().as_ptr();
        if (*shared.memory).as_ref().is_empty() {
            return Ok(data.cast_mut());
        }
        match self.made().get_mut(&(data as usize)) {
            Some(place) if !place.lent && !place.used => {
                place.lent = true;
                Ok(data.cast_mut())
            }
            Some(place) if place.lent => Err(Error::failed("this tensor is being written already")),
            _ => Err(Error::failed("this tensor is in use and cannot be written any more")),
        }
    }

    fn give_back(&self, tensor: &Item) {
        if let Item::Shared(shared) = tensor {
            let at = (*shared.memory).as_ref().as_ptr() as usize;
            if let Some(place) = self.made().get_mut(&at) {
                place.lent = false;
            }
        }
    }
}
