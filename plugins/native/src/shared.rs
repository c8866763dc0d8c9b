//! Values on their way between engine and worker: tensors and bytes lie in files that both see,
//! everything else is said on the wire.

mod engine;
mod places;
mod worker;

use std::sync::Arc;

use candle_core::DType;
use kino_host::{PluginValue, ValueKind};
use kino_node::{Error, Result, Value};

pub(crate) use engine::{EngineDecoder, EngineEncoder, OpaqueTable};
pub(crate) use places::{OutgoingFiles, SharedFolders, WorkerFolders};
pub(crate) use worker::SharedAllocator;

use crate::wire::{DEEPEST, LONG, WireValue, dtype};

/// A side that sends values.
trait EncodeValue {
    /// The file with a tensor's elements in row-major order.
    fn tensor(&mut self, item: &PluginValue) -> Result<String>;
    /// The file with bytes or a text.
    fn bytes(&mut self, item: &PluginValue) -> Result<String>;
    /// The items of a list or the fields of a record that are there.
    fn parts(&mut self, item: &PluginValue) -> Result<Vec<(String, PluginValue)>>;
    /// A value that can only be passed on.
    fn opaque(&mut self, item: &PluginValue) -> Result<WireValue>;
}

fn encode(sender: &mut impl EncodeValue, item: &PluginValue, depth: usize) -> Result<WireValue> {
    Ok(match item.kind() {
        ValueKind::Text if item.text()?.len() > LONG => WireValue::LongText(sender.bytes(item)?),
        ValueKind::Text => WireValue::Text(item.text()?.to_owned()),
        ValueKind::Int => WireValue::Int(item.int()?.to_string()),
        ValueKind::Real => WireValue::Real(item.real()?.to_bits()),
        ValueKind::Bool => WireValue::Bool(item.int()? != 0),
        ValueKind::Tensor => {
            let (dtype, shape) = item.shape()?;
            WireValue::Tensor(dtype.as_str().to_owned(), shape, sender.tensor(item)?)
        }
        ValueKind::Bytes => WireValue::Bytes(sender.bytes(item)?),
        ValueKind::List => WireValue::List(encode_all(sender, item, depth)?),
        ValueKind::Record => {
            WireValue::Record(item.type_name().to_owned(), encode_all(sender, item, depth)?)
        }
        ValueKind::Opaque => sender.opaque(item)?,
    })
}

fn encode_all(
    sender: &mut impl EncodeValue,
    item: &PluginValue,
    depth: usize,
) -> Result<Vec<(String, WireValue)>> {
    if depth >= DEEPEST {
        return Err(Error::failed(format!(
            "lists and records more than {DEEPEST} deep do not go to or from an isolated plugin"
        )));
    }
    let parts = sender.parts(item)?.into_iter();
    parts.map(|(name, part)| Ok((name, encode(sender, &part, depth + 1)?))).collect()
}

/// A side that takes values.
trait DecodeValue {
    /// A tensor whose elements lie in a file, which is removed.
    fn tensor(&self, dtype: DType, shape: &[usize], file: &str) -> Result<PluginValue>;
    /// The bytes in a file, which is removed.
    fn bytes(&self, file: &str) -> Result<Vec<u8>>;
    /// A record.
    fn record(&self, ty: &str, fields: Vec<(Arc<str>, PluginValue)>) -> Result<PluginValue>;
    /// A value that can only be passed on.
    fn opaque(&self, name: &str, number: u64) -> Result<PluginValue>;
}

fn decode(receiver: &impl DecodeValue, wire: WireValue) -> Result<PluginValue> {
    let all = |parts: Vec<(String, WireValue)>| {
        let part =
            |(name, wire): (String, WireValue)| Ok((Arc::from(name), decode(receiver, wire)?));
        parts.into_iter().map(part).collect::<Result<Vec<(Arc<str>, PluginValue)>>>()
    };
    Ok(match wire {
        WireValue::Text(text) => PluginValue::Value(Value::Text(text.into())),
        WireValue::Int(digits) => {
            let int = digits.parse();
            let int = int.map_err(|_| Error::failed(format!("`{digits}` is no whole number")))?;
            PluginValue::Value(Value::Int(int))
        }
        WireValue::Real(bits) => PluginValue::Value(Value::Real(f64::from_bits(bits))),
        WireValue::Bool(truth) => PluginValue::Value(Value::Bool(truth)),
        WireValue::Tensor(name, shape, file) => receiver.tensor(dtype(&name)?, &shape, &file)?,
        WireValue::LongText(file) => {
            let text = String::from_utf8(receiver.bytes(&file)?);
            let text = text.map_err(|_| Error::failed("a text is no UTF-8"))?;
            PluginValue::Value(Value::Text(text.into()))
        }
        WireValue::Bytes(file) => PluginValue::Bytes(receiver.bytes(&file)?.into()),
        WireValue::List(items) => PluginValue::List(all(items)?.into()),
        WireValue::Record(ty, fields) => receiver.record(&ty, all(fields)?)?,
        WireValue::Opaque(name, number) => receiver.opaque(&name, number)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocator::TensorAllocator;

    fn left(folder: &std::path::Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    fn list(items: Vec<PluginValue>) -> PluginValue {
        PluginValue::List(items.into_iter().map(|item| (Arc::from(""), item)).collect())
    }

    #[test]
    fn of_what_was_sent_by_half_nothing_stays() {
        let folder = tempfile::tempdir().unwrap();
        let places = SharedFolders { memory: None, disk: folder.path().to_owned() };
        let bytes = || PluginValue::Bytes([1, 2, 3].into());
        let mut deep = PluginValue::Value(Value::Int(0));
        for _ in 0..60 {
            deep = list(vec![deep]);
        }
        let mut kept = OpaqueTable::default();
        let mut sending = EngineEncoder::new(&places, &mut kept);
        assert!(sending.encode(&list(vec![bytes(), deep.clone()])).is_err());
        drop(sending);
        assert_eq!(left(folder.path()), 0);
        let allocator = SharedAllocator::new(places.clone());
        let tensor = TensorAllocator::tensor(&allocator, DType::F32, &[2]).unwrap();
        let mut outbox = OutgoingFiles::default();
        assert!(allocator.encode(&list(vec![tensor, bytes(), deep]), &mut outbox).is_err());
        drop(outbox);
        assert_eq!(left(folder.path()), 0);
    }

    #[test]
    fn what_does_not_fit_into_memory_lies_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Some(folder.path().join("full"));
        let places = SharedFolders { memory, disk: folder.path().to_owned() };
        let mut outbox = OutgoingFiles::default();
        let file = places.write(&PluginValue::Bytes([7; 9].into()), &mut outbox).unwrap();
        assert_eq!(std::fs::read(places.path(&file).unwrap()).unwrap(), [7; 9]);
        let error = places.create(1 << 60).unwrap_err();
        assert!(error.to_string().contains("there is no room"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("TMPDIR")));
        for elsewhere in ["/etc/passwd", "d/../x", "d..", "x1", "m1/.."] {
            assert!(places.path(elsewhere).is_err(), "{elsewhere}");
        }
    }
}
