//! Where the files lie that engine and worker share: in memory while there is room, else on the
//! disk.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use kino_host::PluginValue;
use kino_node::{Error, Result};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use tempfile::TempDir;

use crate::wire::WireValue;

/// A folder in memory with less than this many bytes free is left to others: containers have
/// little.
const ROOM: u64 = 1 << 30;

/// The folders of one worker, removed when this is dropped.
pub(crate) struct WorkerFolders {
    memory: Option<TempDir>,
    disk: TempDir,
}

impl WorkerFolders {
    /// Makes them.
    pub(crate) fn new() -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("kino-worker-");
        let memory = Path::new("/dev/shm");
        let free = rustix::fs::statvfs(memory).map_or(0, |stat| stat.f_bavail * stat.f_frsize);
        let memory = (free >= ROOM).then(|| builder.tempdir_in(memory).ok()).flatten();
        Ok(WorkerFolders { memory, disk: builder.tempdir()? })
    }

    /// Where they are.
    pub(crate) fn places(&self) -> SharedFolders {
        let path = |folder: &TempDir| folder.path().to_owned();
        SharedFolders { memory: self.memory.as_ref().map(path), disk: path(&self.disk) }
    }
}

/// Where files are made and found; a file's first letter says in which folder it is.
#[derive(Clone)]
pub(crate) struct SharedFolders {
    pub(crate) memory: Option<PathBuf>,
    pub(crate) disk: PathBuf,
}

impl SharedFolders {
    fn folders(&self) -> impl Iterator<Item = (char, &Path)> {
        let memory = self.memory.as_deref().map(|folder| ('m', folder));
        memory.into_iter().chain([('d', self.disk.as_path())])
    }

    /// The path of a file that the other side named.
    pub(crate) fn path(&self, file: &str) -> Result<PathBuf> {
        let plain = !file.contains(['/', '\\']) && !file.contains("..");
        let found = self.folders().find(|(letter, _)| plain && file.starts_with(*letter));
        let (_, folder) =
            found.ok_or_else(|| Error::failed(format!("`{file}` is no file here")))?;
        Ok(folder.join(file))
    }

    /// A new file with room for some bytes: where there is none, that is an error here and not a
    /// signal later.
    pub(crate) fn create(&self, bytes: usize) -> Result<(File, PathBuf)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut full = Errno::NOSPC;
        for (letter, folder) in self.folders() {
            let path = folder.join(format!("{letter}{process}-{number}"));
            match make(&path, bytes) {
                Ok(file) => return Ok((file, path)),
                Err(error) => full = error,
            }
            let _ = std::fs::remove_file(&path);
        }
        Err(Error::advised(
            format!("there is no room for a tensor of {bytes} bytes: {full}"),
            "isolated plugins keep tensors in shared memory (/dev/shm), then in the folder for \
             temporary files: let TMPDIR name one on a larger disk",
        ))
    }

    /// A new file with an item's bytes or elements.
    pub(crate) fn write(&self, item: &PluginValue, outbox: &mut OutgoingFiles) -> Result<String> {
        item.with_bytes(|bytes| {
            let (mut file, path) = self.create(bytes.len())?;
            let name = name_of(&path);
            outbox.0.push(path);
            file.write_all(bytes)?;
            Ok(name)
        })?
    }

    /// The files that values on the wire name.
    pub(crate) fn of<'a>(&self, wires: impl IntoIterator<Item = &'a WireValue>) -> OutgoingFiles {
        let mut outbox = OutgoingFiles::default();
        wires.into_iter().for_each(|wire| self.gather(wire, &mut outbox));
        outbox
    }

    fn gather(&self, wire: &WireValue, outbox: &mut OutgoingFiles) {
        match wire {
            WireValue::Tensor(_, _, file) | WireValue::Bytes(file) | WireValue::LongText(file) => {
                outbox.0.extend(self.path(file).ok());
            }
            WireValue::List(parts) | WireValue::Record(_, parts) => {
                parts.iter().for_each(|(_, part)| self.gather(part, outbox));
            }
            _ => {}
        }
    }

    /// Removes the folders with all that is in them.
    pub(crate) fn remove(&self) {
        for (_, folder) in self.folders() {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// The name by which the other side finds a file.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn make(path: &Path, bytes: usize) -> std::result::Result<File, Errno> {
    let file = File::options().read(true).write(true).create_new(true).open(path);
    let file = file.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    reserve(&file, bytes).map(|()| file)
}

fn reserve(file: &File, bytes: usize) -> std::result::Result<(), Errno> {
    if bytes == 0 {
        return Ok(());
    }
    let reserve = || rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes as u64);
    match rustix::io::retry_on_intr(reserve) {
        // Some file systems cannot promise room.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => rustix::fs::ftruncate(file, bytes as u64),
        reserved => reserved,
    }
}

/// Files on their way. Those that nobody has taken are removed with it.
#[derive(Default)]
pub(crate) struct OutgoingFiles(Vec<PathBuf>);

impl OutgoingFiles {
    /// Adds a file.
    pub(crate) fn add(&mut self, path: PathBuf) {
        self.0.push(path);
    }

    /// From here on the files belong to the other side.
    pub(crate) fn sent(mut self) {
        self.0.clear();
    }
}

impl Drop for OutgoingFiles {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}
