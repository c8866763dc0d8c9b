//! The engine's side: writes values into files, reads the worker's.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::DType;
use kino_host::{CallCx, FramesDraft, PluginValue, TensorBuffer};
use kino_node::{Error, Result, Value};
use rustix::fs::OFlags;

use super::codec::{DecodeValue, EncodeValue, decode, encode};
use super::places::{OutgoingFiles, SharedFolders};
use crate::wire::WireValue;

/// Values that stay here and are only named to a worker, until it has no use for them.
#[derive(Default)]
pub(crate) struct OpaqueTable(HashMap<u64, PluginValue>);

impl OpaqueTable {
    fn keep(&mut self, item: PluginValue) -> u64 {
        // Numbers never come again: a worker may still know one of an instance before.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.0.insert(number, item);
        number
    }

    /// Lets go of values.
    pub(crate) fn release(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.0.remove(number);
        }
    }
}

/// Values on their way to the worker.
pub(crate) struct EngineEncoder<'a> {
    places: &'a SharedFolders,
    kept: &'a mut OpaqueTable,
    /// What is kept for this message.
    named: Vec<u64>,
    outbox: OutgoingFiles,
}

impl<'a> EngineEncoder<'a> {
    /// Nothing yet.
    pub(crate) fn new(places: &'a SharedFolders, kept: &'a mut OpaqueTable) -> Self {
        EngineEncoder { places, kept, named: Vec::new(), outbox: OutgoingFiles::default() }
    }

    /// A value on the wire. After an error nothing stays behind.
    pub(crate) fn encode(&mut self, item: &PluginValue) -> Result<WireValue> {
        let wire = encode(self, item, 0);
        if wire.is_err() {
            self.kept.release(&self.named);
        }
        wire
    }

    /// The files, to be held until the worker has answered, and the numbers of what is kept.
    pub(crate) fn done(self) -> (OutgoingFiles, Vec<u64>) {
        (self.outbox, self.named)
    }
}

impl EncodeValue for EngineEncoder<'_> {
    fn tensor(&mut self, item: &PluginValue) -> Result<String> {
        self.places.write(item, &mut self.outbox)
    }

    fn bytes(&mut self, item: &PluginValue) -> Result<String> {
        self.places.write(item, &mut self.outbox)
    }

    fn opaque(&mut self, item: &PluginValue) -> Result<WireValue> {
        let number = self.kept.keep(item.clone());
        self.named.push(number);
        Ok(WireValue::Opaque(item.type_name().to_owned(), number))
    }
}

/// Values that came from the worker.
pub(crate) struct EngineDecoder<'a> {
    pub(crate) places: &'a SharedFolders,
    pub(crate) kept: &'a OpaqueTable,
    pub(crate) call: &'a CallCx<'a>,
}

impl EngineDecoder<'_> {
    /// The value; its files are removed.
    pub(crate) fn decode(&self, wire: WireValue) -> Result<PluginValue> {
        decode(self, wire)
    }

    /// A file of the worker's with its size, which is one that the plugin may take up. What is no
    /// plain file – a link, a pipe that nobody writes to – is refused without waiting for it.
    fn open(&self, file: &str) -> Result<(PathBuf, File, u64)> {
        let path = self.places.path(file)?;
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let opened = File::options().read(true).custom_flags(flags).open(&path)?;
        let metadata = opened.metadata()?;
        if !metadata.is_file() {
            return Err(Error::failed(format!("`{file}` is no plain file")));
        }
        let (file, bytes) = (opened, metadata.len());
        if bytes > self.call.limits.memory {
            return Err(large(self.call, bytes));
        }
        Ok((path, file, bytes))
    }
}

impl DecodeValue for EngineDecoder<'_> {
    fn tensor(&self, dtype: DType, shape: &[usize], file: &str) -> Result<PluginValue> {
        let (path, mut file, bytes) = self.open(file)?;
        // The shape takes as much as there is: a plugin's word is not taken for it.
        let draft = TensorBuffer::zeros(dtype, shape, bytes)?;
        draft.fill(|bytes| file.read_exact(bytes))?;
        std::fs::remove_file(&path)?;
        Ok(PluginValue::Value(Value::Tensor(draft.finish()?)))
    }

    fn bytes(&self, file: &str) -> Result<Vec<u8>> {
        let (path, file, size) = self.open(file)?;
        let mut bytes = Vec::with_capacity(size as usize + 1);
        // The worker can still write to it: what it adds is not taken up.
        file.take(size + 1).read_to_end(&mut bytes)?;
        std::fs::remove_file(&path)?;
        if bytes.len() as u64 > size {
            return Err(Error::failed("the worker writes to a file that it has given away"));
        }
        Ok(bytes)
    }

    fn record(&self, ty: &str, fields: Vec<(Arc<str>, PluginValue)>) -> Result<PluginValue> {
        if ty != "Frames" {
            return PluginValue::record(ty, fields);
        }
        let find = |name: &str| fields.iter().find(|(field, _)| **field == *name);
        let fps = find("fps").map(|(_, fps)| fps.real()).transpose()?;
        let mut frames = FramesDraft::new(Some(self.call.ledger), fps)?;
        if let Some((_, chunks)) = find("chunks") {
            for index in 0..chunks.len() {
                frames.push(&chunks.item(index)?)?;
            }
        }
        // Its chunks are frames of the engine by now; the other fields go along.
        let chunks = frames.finish()?.field("chunks")?;
        let mut fields = fields;
        fields.retain(|(name, _)| &**name != "chunks");
        fields.extend(chunks.map(|chunks| ("chunks".into(), chunks)));
        PluginValue::record(ty, fields)
    }

    fn opaque(&self, _: &str, number: u64) -> Result<PluginValue> {
        let found = self.kept.0.get(&number).cloned();
        found.ok_or_else(|| Error::failed("a value that is not there"))
    }
}

fn large(call: &CallCx<'_>, bytes: u64) -> Error {
    let (plugin, most) = (call.plugin, call.limits.memory);
    Error::advised(
        format!("the plugin `{plugin}` gave {bytes} bytes at once, at most {most} are allowed"),
        format!(
            "`kino plugin trust {plugin} --isolate --memory {}MB` allows it",
            bytes.div_ceil(1 << 20)
        ),
    )
}

#[cfg(test)]
mod tests {
    use kino_host::{Limits, NoFiles};
    use kino_node::{Cancel, Ledger};

    use super::*;

    fn received(places: &SharedFolders, file: &str) -> Result<Vec<u8>> {
        let (ledger, cancel) = (Ledger::new(0), Cancel::default());
        let limits = Limits { memory: 100, ..Limits::default() };
        let call = CallCx { limits, ..CallCx::outside("test", &ledger, &cancel, &NoFiles) };
        let kept = OpaqueTable::default();
        EngineDecoder { places, kept: &kept, call: &call }.bytes(file)
    }

    /// What a worker names is read only where it is a plain file of a size that is allowed: a link
    /// is not followed, and a pipe that nobody writes to is not waited for.
    #[test]
    fn only_plain_files_are_taken_up() {
        let folder = tempfile::tempdir().unwrap();
        let places = SharedFolders { memory: None, disk: folder.path().to_owned() };
        std::fs::write(folder.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink("secret", folder.path().join("d-link")).unwrap();
        let mkfifo =
            std::process::Command::new("mkfifo").arg(folder.path().join("d-pipe")).status();
        assert!(mkfifo.unwrap().success());
        std::fs::create_dir(folder.path().join("d-folder")).unwrap();
        std::fs::write(folder.path().join("d-large"), [0; 101]).unwrap();
        std::fs::write(folder.path().join("d-plain"), "plain").unwrap();
        assert!(matches!(received(&places, "d-link"), Err(Error::Io(_))));
        for other in ["d-pipe", "d-folder"] {
            let error = received(&places, other).unwrap_err().to_string();
            assert_eq!(error, format!("`{other}` is no plain file"));
        }
        let error = received(&places, "d-large").unwrap_err().to_string();
        assert!(error.contains("gave 101 bytes at once, at most 100"), "{error}");
        assert_eq!(received(&places, "d-plain").unwrap(), b"plain");
    }
}
