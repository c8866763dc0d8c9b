//! Tensors as they are kept on disk: a header with type and shape, and the elements. It knows no
//! types of values.

use std::io::{Read, Write};

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, Services};

/// Element type and shape of a tensor that is kept on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TensorHeader {
    dtype: String,
    shape: Vec<usize>,
}

impl TensorHeader {
    /// Of a tensor.
    pub fn of(tensor: &Tensor) -> Self {
        Self::new(tensor.dtype(), tensor.dims())
    }

    /// Of an element type and a shape.
    pub fn new(dtype: DType, shape: &[usize]) -> Self {
        TensorHeader { dtype: dtype.as_str().to_owned(), shape: shape.to_vec() }
    }
}

/// The tensors of stored values, one after another.
pub struct TensorReader<'a> {
    from: &'a mut dyn Read,
    /// What a value may need to be read back.
    pub services: &'a Services,
}

/// The element types that are kept on disk.
const STORED: [DType; 9] = [
    DType::U8,
    DType::U32,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::BF16,
    DType::F16,
    DType::F32,
    DType::F64,
];

impl<'a> TensorReader<'a> {
    /// Tensors whose elements `from` gives.
    pub fn new(from: &'a mut dyn Read, services: &'a Services) -> Self {
        TensorReader { from, services }
    }

    /// The next tensor, on the device of the services.
    ///
    /// # Errors
    /// When its shape cannot be, or the elements end early.
    pub fn next(&mut self, header: &TensorHeader) -> Result<Tensor> {
        read_tensor(self.from, header, &self.services.device)
    }

    /// The next tensor, in main memory.
    ///
    /// # Errors
    /// As [`TensorReader::next`].
    pub fn next_in_main_memory(&mut self, header: &TensorHeader) -> Result<Tensor> {
        read_tensor(self.from, header, &Device::Cpu)
    }
}

fn read_tensor(from: &mut dyn Read, header: &TensorHeader, device: &Device) -> Result<Tensor> {
    let dtype = STORED.into_iter().find(|dtype| dtype.as_str() == header.dtype);
    let dtype =
        dtype.ok_or_else(|| Error::failed(format!("unknown element type `{}`", header.dtype)))?;
    let bytes = header.shape.iter().try_fold(dtype.size_in_bytes(), |n, dim| n.checked_mul(*dim));
    // A size of 0 must not hide sizes whose product overflows.
    let most = header.shape.iter().try_fold(1_usize, |n, dim| n.checked_mul((*dim).max(1)));
    let (Some(length), Some(_)) = (bytes, most) else {
        return Err(Error::failed(format!("impossible shape {:?}", header.shape)));
    };
    let bytes = read_bytes(from, length)?;
    Ok(Tensor::from_raw_buffer(&bytes, dtype, &header.shape, device)?)
}

/// So many bytes, for which room is made as they come: what the header says may be a lie.
fn read_bytes(from: &mut dyn Read, length: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let piece = WRITTEN.min(length - bytes.len());
        let room = bytes.try_reserve(piece);
        room.map_err(|_| {
            Error::failed(format!("there is no memory for a stored tensor of {length} bytes"))
        })?;
        if from.take(piece as u64).read_to_end(&mut bytes)? < piece {
            return Err(Error::failed("a stored value ends early"));
        }
    }
    Ok(bytes)
}

/// So many bytes of a tensor are copied at a time while it is written or read.
const WRITTEN: usize = 1 << 20;

/// Writes the elements of a tensor as [`TensorReader`] reads them.
///
/// # Errors
/// When its element type is not kept on disk, or writing fails.
pub(crate) fn write_tensor(tensor: &Tensor, to: &mut dyn Write) -> Result<()> {
    if !STORED.contains(&tensor.dtype()) {
        let found = tensor.dtype().as_str();
        return Err(Error::failed(format!("tensors of {found} cannot be stored")));
    }
    let elements = tensor.to_device(&Device::Cpu)?.flatten_all()?;
    let piece = WRITTEN / tensor.dtype().size_in_bytes();
    let mut bytes = Vec::with_capacity(WRITTEN.min(elements.elem_count().saturating_mul(8)));
    for from in (0..elements.elem_count()).step_by(piece) {
        bytes.clear();
        let length = piece.min(elements.elem_count() - from);
        elements.narrow(0, from, length)?.write_bytes(&mut bytes)?;
        to.write_all(&bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ledger;

    fn read(bytes: &[u8], shape: &[usize]) -> Result<Tensor> {
        let services = Services::new(Device::Cpu, Ledger::new(0));
        let mut from = bytes;
        TensorReader::new(&mut from, &services).next(&TensorHeader::new(DType::U8, shape))
    }

    #[test]
    fn a_header_that_lies_takes_no_memory() {
        let whole = vec![7; 3 * WRITTEN / 2];
        let tensor = read(&whole, &[3, WRITTEN / 2]).unwrap();
        assert_eq!(tensor.flatten_all().unwrap().to_vec1::<u8>().unwrap(), whole);
        let said = |shape: &[usize]| read(&whole, shape).unwrap_err().to_string();
        assert_eq!(said(&[1 << 40]), "a stored value ends early");
        assert_eq!(said(&[1 << 62]), "a stored value ends early");
        assert!(said(&[usize::MAX, 2]).starts_with("impossible shape"));
        assert_eq!(read(&whole, &[0, 5]).unwrap().dims(), [0, 5]);
    }
}
