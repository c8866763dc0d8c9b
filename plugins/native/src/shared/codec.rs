//! How values are told on the wire, whichever side sends them.

use std::sync::Arc;

use candle_core::DType;
use kino_host::{PluginValue, ValueKind};
use kino_node::{Error, Result, Value};

use crate::wire::{DEEPEST, LONG, WireValue, dtype};

/// A side that sends values.
pub(super) trait EncodeValue {
    /// The file with a tensor's elements in row-major order.
    fn tensor(&mut self, item: &PluginValue) -> Result<String>;
    /// The file with bytes or a text.
    fn bytes(&mut self, item: &PluginValue) -> Result<String>;
    /// A value that can only be passed on.
    fn opaque(&mut self, item: &PluginValue) -> Result<WireValue>;
}

pub(super) fn encode(
    sender: &mut impl EncodeValue,
    item: &PluginValue,
    depth: usize,
) -> Result<WireValue> {
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
    let mut parts = Vec::with_capacity(item.len());
    for index in 0..item.len() {
        let name = item.name(index).to_owned();
        // A field may be missing: the rate of frames, for one.
        let part = match item.kind() {
            ValueKind::Record => item.field(&name)?,
            _ => Some(item.item(index)?),
        };
        if let Some(part) = part {
            parts.push((name, encode(sender, &part, depth + 1)?));
        }
    }
    Ok(parts)
}

/// A side that takes values.
pub(super) trait DecodeValue {
    /// A tensor whose elements lie in a file, which is removed.
    fn tensor(&self, dtype: DType, shape: &[usize], file: &str) -> Result<PluginValue>;
    /// The bytes in a file, which is removed.
    fn bytes(&self, file: &str) -> Result<Vec<u8>>;
    /// A record.
    fn record(&self, ty: &str, fields: Vec<(Arc<str>, PluginValue)>) -> Result<PluginValue>;
    /// A value that can only be passed on.
    fn opaque(&self, name: &str, number: u64) -> Result<PluginValue>;
}

pub(super) fn decode(receiver: &impl DecodeValue, wire: WireValue) -> Result<PluginValue> {
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
