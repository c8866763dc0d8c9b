//! Values on their way between engine and worker: tensors and bytes lie in files that both see,
//! everything else is said on the wire.

mod engine;
mod places;
mod worker;

use std::sync::Arc;

use candle_core::DType;
use kino_host::{Item, Kind};
use kino_node::{Error, Result, Value};

pub(crate) use engine::{Kept, Receiving, Sending};
pub(crate) use places::{Folders, Outbox, Places};
pub(crate) use worker::SharedMaker;

use crate::wire::{DEEPEST, LONG, Wire, dtype};

/// A side that sends values.
trait Sender {
    /// The file with a tensor's elements in row-major order.
    fn tensor(&mut self, item: &Item) -> Result<String>;
    /// The file with bytes or a text.
    fn bytes(&mut self, item: &Item) -> Result<String>;
    /// The items of a list or the fields of a record that are there.
    fn parts(&mut self, item: &Item) -> Result<Vec<(String, Item)>>;
    /// A value that can only be passed on.
    fn opaque(&mut self, item: &Item) -> Result<Wire>;
}

fn encode(sender: &mut impl Sender, item: &Item, depth: usize) -> Result<Wire> {
    Ok(match item.kind() {
        Kind::Text if item.text()?.len() > LONG => Wire::LongText(sender.bytes(item)?),
        Kind::Text => Wire::Text(item.text()?.to_owned()),
        Kind::Int => Wire::Int(item.int()?.to_string()),
        Kind::Real => Wire::Real(item.real()?.to_bits()),
        Kind::Bool => Wire::Bool(item.int()? != 0),
        Kind::Tensor => {
            let (dtype, shape) = item.shape()?;
            Wire::Tensor(dtype.as_str().to_owned(), shape, sender.tensor(item)?)
        }
        Kind::Bytes => Wire::Bytes(sender.bytes(item)?),
        Kind::List => Wire::List(encode_all(sender, item, depth)?),
        Kind::Record => Wire::Record(item.type_name().to_owned(), encode_all(sender, item, depth)?),
        Kind::Opaque => sender.opaque(item)?,
    })
}

fn encode_all(sender: &mut impl Sender, item: &Item, depth: usize) -> Result<Vec<(String, Wire)>> {
    if depth >= DEEPEST {
        return Err(Error::failed(format!(
            "lists and records more than {DEEPEST} deep do not go to or from an isolated plugin"
        )));
    }
    let parts = sender.parts(item)?.into_iter();
    parts.map(|(name, part)| Ok((name, encode(sender, &part, depth + 1)?))).collect()
}

/// A side that takes values.
trait Receiver {
    /// A tensor whose elements lie in a file, which is removed.
    fn tensor(&self, dtype: DType, shape: &[usize], file: &str) -> Result<Item>;
    /// The bytes in a file, which is removed.
    fn bytes(&self, file: &str) -> Result<Vec<u8>>;
    /// A record.
    fn record(&self, ty: &str, fields: Vec<(Arc<str>, Item)>) -> Result<Item>;
    /// A value that can only be passed on.
    fn opaque(&self, name: &str, number: u64) -> Result<Item>;
}

fn decode(receiver: &impl Receiver, wire: Wire) -> Result<Item> {
    let all = |parts: Vec<(String, Wire)>| {
        let part = |(name, wire): (String, Wire)| Ok((Arc::from(name), decode(receiver, wire)?));
        parts.into_iter().map(part).collect::<Result<Vec<(Arc<str>, Item)>>>()
    };
    Ok(match wire {
        Wire::Text(text) => Item::Value(Value::Text(text.into())),
        Wire::Int(digits) => {
            let int = digits.parse();
            let int = int.map_err(|_| Error::failed(format!("`{digits}` is no whole number")))?;
            Item::Value(Value::Int(int))
        }
        Wire::Real(bits) => Item::Value(Value::Real(f64::from_bits(bits))),
        Wire::Bool(truth) => Item::Value(Value::Bool(truth)),
        Wire::Tensor(name, shape, file) => receiver.tensor(dtype(&name)?, &shape, &file)?,
        Wire::LongText(file) => {
            let text = String::from_utf8(receiver.bytes(&file)?);
            let text = text.map_err(|_| Error::failed("a text is no UTF-8"))?;
            Item::Value(Value::Text(text.into()))
        }
        Wire::Bytes(file) => Item::Bytes(receiver.bytes(&file)?.into()),
        Wire::List(items) => Item::List(all(items)?.into()),
        Wire::Record(ty, fields) => receiver.record(&ty, all(fields)?)?,
        Wire::Opaque(name, number) => receiver.opaque(&name, number)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maker::Maker;

    fn left(folder: &std::path::Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    fn list(items: Vec<Item>) -> Item {
        Item::List(items.into_iter().map(|item| (Arc::from(""), item)).collect())
    }

    #[test]
    fn of_what_was_sent_by_half_nothing_stays() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places { memory: None, disk: folder.path().to_owned() };
        let bytes = || Item::Bytes([1, 2, 3].into());
        let mut deep = Item::Value(Value::Int(0));
        for _ in 0..60 {
            deep = list(vec![deep]);
        }
        let mut kept = Kept::default();
        let mut sending = Sending::new(&places, &mut kept);
        assert!(sending.encode(&list(vec![bytes(), deep.clone()])).is_err());
        drop(sending);
        assert_eq!(left(folder.path()), 0);
        let maker = SharedMaker::new(places.clone());
        let tensor = Maker::tensor(&maker, DType::F32, &[2]).unwrap();
        let mut outbox = Outbox::default();
        assert!(maker.encode(&list(vec![tensor, bytes(), deep]), &mut outbox).is_err());
        drop(outbox);
        assert_eq!(left(folder.path()), 0);
    }

    #[test]
    fn what_does_not_fit_into_memory_lies_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Some(folder.path().join("full"));
        let places = Places { memory, disk: folder.path().to_owned() };
        let mut outbox = Outbox::default();
        let file = places.write(&Item::Bytes([7; 9].into()), &mut outbox).unwrap();
        assert_eq!(std::fs::read(places.path(&file).unwrap()).unwrap(), [7; 9]);
        let error = places.create(1 << 60).unwrap_err();
        assert!(error.to_string().contains("there is no room"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("TMPDIR")));
        for elsewhere in ["/etc/passwd", "d/../x", "d..", "x1", "m1/.."] {
            assert!(places.path(elsewhere).is_err(), "{elsewhere}");
        }
    }
}
