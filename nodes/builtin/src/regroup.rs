//! Frames in groups of another length than they are held in.

use candle_core::Tensor;
use kino_node::Result;

/// Frames in groups of another length than they are held in, without holding them all.
pub(crate) struct Regrouped<'a> {
    chunks: Box<dyn Iterator<Item = Result<Tensor>> + 'a>,
    rest: Option<Tensor>,
}

impl<'a> Regrouped<'a> {
    /// The frames that `chunks` give, `[t, h, w, 3]` at a time.
    pub(crate) fn new(chunks: impl Iterator<Item = Result<Tensor>> + 'a) -> Self {
        Regrouped { chunks: Box::new(chunks), rest: None }
    }

    /// The next chunk as it is held, none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Tensor>> {
        self.rest.take().map(Ok).or_else(|| self.chunks.next()).transpose()
    }

    /// The next `count` frames, fewer at the end: `[count, h, w, 3]`.
    pub(crate) fn take(&mut self, count: usize) -> Result<Tensor> {
        let mut parts = Vec::new();
        let mut missing = count;
        while missing > 0 {
            let Some(chunk) = self.rest.take().map(Ok).or_else(|| self.chunks.next()) else {
                break;
            };
            let chunk = chunk?;
            let length = chunk.dim(0)?;
            let taken = length.min(missing);
            parts.push(chunk.narrow(0, 0, taken)?);
            self.rest = match length - taken {
                0 => None,
                left => Some(chunk.narrow(0, taken, left)?),
            };
            missing -= taken;
        }
        Ok(Tensor::cat(&parts, 0)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use kino_node::{FramesBuilder, Ledger};

    use super::*;

    #[test]
    fn frames_are_regrouped_without_loss() {
        let ledger = Ledger::new(u64::MAX);
        for held in [&[13usize][..], &[1, 4, 4, 4], &[3, 3, 3, 3, 1], &[1; 13]] {
            let mut builder = FramesBuilder::new(&ledger, None);
            let mut start = 0.0;
            for n in held {
                let values = (*n * 6) as f32;
                let chunk = Tensor::arange(start, start + values, &Device::Cpu).unwrap();
                builder.push(&chunk.reshape((*n, 1, 2, 3)).unwrap()).unwrap();
                start += values;
            }
            let frames = builder.finish().unwrap();
            let mut source = Regrouped::new(frames.chunks());
            let groups: Vec<Tensor> =
                [1, 4, 4, 4].iter().map(|n| source.take(*n).unwrap()).collect();
            assert_eq!(groups.iter().map(|g| g.dims()[0]).collect::<Vec<_>>(), [1, 4, 4, 4]);
            let values: Vec<f32> =
                Tensor::cat(&groups, 0).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            assert!(values.iter().enumerate().all(|(i, v)| *v == i as f32), "{held:?}");
        }
    }
}
