//! Arrays in plain Rust, and how tensors of them may lie in memory.

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};

pub(crate) const FLOATS: [DType; 4] = [DType::F16, DType::BF16, DType::F32, DType::F64];
pub(crate) const WHOLE: [DType; 5] = [DType::U8, DType::U32, DType::I16, DType::I32, DType::I64];

pub(crate) fn all_types() -> impl Iterator<Item = DType> {
    FLOATS.into_iter().chain(WHOLE)
}

/// Splitmix64.
pub(crate) struct Rng(u64);

impl Rng {
    /// Seeded by `KINO_TEST_SEED`, or else by the clock; the seed is printed.
    pub(crate) fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let given = std::env::var("KINO_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or(now.as_nanos() as u64);
        println!("KINO_TEST_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// From −1 to 1.
    pub(crate) fn real(&mut self) -> f64 {
        self.next() as f64 / u64::MAX as f64 * 2.0 - 1.0
    }

    pub(crate) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// A tensor of the SDK's reference host.
pub(crate) fn in_reference(array: &Array) -> kino_plugin::Tensor {
    let (data, dims) = (&array.data, &array.dims);
    macro_rules! stored {
        ($of:expr) => {
            kino_plugin::Tensor::from_vec(data.iter().copied().map($of).collect(), dims)
        };
    }
    let tensor = match array.dtype {
        DType::U8 => stored!(|x| x as u8),
        DType::U32 => stored!(|x| x as u32),
        DType::I16 => stored!(|x| x as i16),
        DType::I32 => stored!(|x| x as i32),
        DType::I64 => stored!(|x| x as i64),
        DType::F16 => stored!(|x| kino_plugin::F16(f16::from_f64(x).to_bits())),
        DType::BF16 => stored!(|x| kino_plugin::Bf16(bf16::from_f64(x).to_bits())),
        DType::F32 => stored!(|x| x as f32),
        _ => stored!(|x| x),
    };
    tensor.unwrap()
}

/// What the SDK's reference host makes of a call.
pub(crate) fn reference(
    name: &str,
    operands: &[&Array],
    attributes: &str,
) -> Result<Array, kino_plugin::Error> {
    let tensors: Vec<_> = operands.iter().map(|array| in_reference(array)).collect();
    let others: Vec<_> = tensors.iter().skip(1).collect();
    let found = tensors[0].op(name, &others, attributes)?;
    let dtype = all_types().find(|dtype| dtype.as_str() == found.dtype().name()).unwrap();
    // Not by its own cast, which is under test, too.
    macro_rules! read {
        ($ty:ty, $of:expr) => {
            found.to_vec::<$ty>()?.into_iter().map($of).collect()
        };
    }
    let data = match dtype {
        DType::U8 => read!(u8, f64::from),
        DType::U32 => read!(u32, f64::from),
        DType::I16 => read!(i16, f64::from),
        DType::I32 => read!(i32, f64::from),
        DType::I64 => read!(i64, |x| x as f64),
        DType::F16 => read!(kino_plugin::F16, |x| f16::from_bits(x.0).to_f64()),
        DType::BF16 => read!(kino_plugin::Bf16, |x| bf16::from_bits(x.0).to_f64()),
        DType::F32 => read!(f32, f64::from),
        _ => read!(f64, |x| x),
    };
    Ok(Array { dtype, dims: found.dims().to_vec(), data })
}

/// How a tensor lies in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Layout {
    /// Row-major.
    Plain,
    /// Dimensions stored in the opposite order.
    Reversed,
    /// A part of something larger along every dimension.
    Part,
}

pub(crate) fn layouts() -> [Layout; 3] {
    [Layout::Plain, Layout::Reversed, Layout::Part]
}

/// Elements, row by row; every value of every type that occurs here is one of f64.
#[derive(Clone, Debug)]
pub(crate) struct Array {
    pub(crate) dtype: DType,
    pub(crate) dims: Vec<usize>,
    pub(crate) data: Vec<f64>,
}

impl Array {
    pub(crate) fn new(dtype: DType, dims: &[usize], data: Vec<f64>) -> Self {
        assert_eq!(dims.iter().product::<usize>(), data.len());
        let data = data.into_iter().map(|x| rounded(x, dtype)).collect();
        Self { dtype, dims: dims.to_vec(), data }
    }

    pub(crate) fn made(dtype: DType, dims: &[usize], mut of: impl FnMut(&[usize]) -> f64) -> Self {
        let count = dims.iter().product();
        Self::new(dtype, dims, (0..count).map(|index| of(&place(index, dims))).collect())
    }

    /// Reals from −3 to 3; whole numbers from −10 (or 0) to 10, so that some are equal.
    pub(crate) fn random(rng: &mut Rng, dtype: DType, dims: &[usize]) -> Self {
        Self::made(dtype, dims, |_| match dtype {
            DType::U8 | DType::U32 => rng.below(11) as f64,
            dtype if dtype.is_int() => rng.below(21) as f64 - 10.0,
            _ => rng.real() * 3.0,
        })
    }

    pub(crate) fn at(&self, place: &[usize]) -> f64 {
        self.data[index(place, &self.dims)]
    }

    /// The element that broadcasting puts at a place of a larger shape.
    pub(crate) fn spread(&self, place: &[usize]) -> f64 {
        let own = &place[place.len() - self.dims.len()..];
        let own: Vec<_> =
            own.iter().zip(&self.dims).map(|(at, size)| if *size == 1 { 0 } else { *at }).collect();
        self.at(&own)
    }

    pub(crate) fn map(&self, of: impl Fn(f64) -> f64) -> Self {
        Self::new(self.dtype, &self.dims, self.data.iter().map(|x| of(*x)).collect())
    }

    pub(crate) fn tensor(&self, layout: Layout) -> Tensor {
        let dims = self.dims.as_slice();
        match layout {
            Layout::Plain => tensor(&self.data, dims, self.dtype),
            Layout::Reversed => {
                let stored: Vec<_> = dims.iter().rev().copied().collect();
                let turned = Self::made(self.dtype, &stored, |place| {
                    self.at(&place.iter().rev().copied().collect::<Vec<_>>())
                });
                let order: Vec<_> = (0..dims.len()).rev().collect();
                tensor(&turned.data, &stored, self.dtype).permute(order).unwrap()
            }
            Layout::Part => {
                let more = if dims.len() > 4 { 1 } else { 3 };
                let stored: Vec<_> = dims.iter().map(|size| size + more).collect();
                let around = Self::made(self.dtype, &stored, |place| {
                    let inner: Option<Vec<_>> = place.iter().map(|at| at.checked_sub(1)).collect();
                    let inner = inner.filter(|at| at.iter().zip(dims).all(|(at, size)| at < size));
                    inner.map_or(77.0, |inner| self.at(&inner))
                });
                let whole = tensor(&around.data, &stored, self.dtype);
                dims.iter()
                    .enumerate()
                    .fold(whole, |whole, (dim, size)| whole.narrow(dim, 1, *size).unwrap())
            }
        }
    }

    pub(crate) fn read(tensor: &Tensor) -> Self {
        let wide = tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
        let data = wide.to_vec1::<f64>().unwrap();
        Self { dtype: tensor.dtype(), dims: tensor.dims().to_vec(), data }
    }

    /// Equal but for rounding, once, and for what sums lose.
    #[track_caller]
    pub(crate) fn expect_near(&self, expected: &Self, what: &str) {
        assert_eq!((self.dtype, &self.dims), (expected.dtype, &expected.dims), "{what}");
        let finite = expected.data.iter().filter(|x| x.is_finite());
        let scale = finite.fold(1.0f64, |scale, x| scale.max(x.abs()));
        // A unit in the last place, and what computing in f32 or f64 may lose.
        let (unit, lost) = match self.dtype {
            DType::F16 => (1.0 / 1024.0, 4e-6),
            DType::BF16 => (1.0 / 128.0, 4e-6),
            DType::F32 => (0.0, 4e-6),
            DType::F64 => (0.0, 1e-12),
            _ => (0.0, 0.0),
        };
        for (index, (found, wanted)) in self.data.iter().zip(&expected.data).enumerate() {
            let equal = found == wanted || (found.is_nan() && wanted.is_nan());
            assert!(
                equal || (found - wanted).abs() <= unit * wanted.abs() + lost * scale,
                "{what}: {found} at {:?}, expected {wanted}",
                place(index, &self.dims)
            );
        }
    }
}

/// A value as a type holds it.
pub(crate) fn rounded(x: f64, dtype: DType) -> f64 {
    match dtype {
        DType::U8 => f64::from(x as u8),
        DType::U32 => f64::from(x as u32),
        DType::I16 => f64::from(x as i16),
        DType::I32 => f64::from(x as i32),
        DType::I64 => x as i64 as f64,
        DType::F16 => f16::from_f64(x).to_f64(),
        DType::BF16 => bf16::from_f64(x).to_f64(),
        DType::F32 => f64::from(x as f32),
        _ => x,
    }
}

fn tensor(data: &[f64], dims: &[usize], dtype: DType) -> Tensor {
    macro_rules! stored {
        ($of:expr) => {
            Tensor::from_vec(data.iter().copied().map($of).collect::<Vec<_>>(), dims, &Device::Cpu)
        };
    }
    let tensor = match dtype {
        DType::U8 => stored!(|x| x as u8),
        DType::U32 => stored!(|x| x as u32),
        DType::I16 => stored!(|x| x as i16),
        DType::I32 => stored!(|x| x as i32),
        DType::I64 => stored!(|x| x as i64),
        DType::F16 => stored!(f16::from_f64),
        DType::BF16 => stored!(bf16::from_f64),
        DType::F32 => stored!(|x| x as f32),
        _ => stored!(|x| x),
    };
    tensor.unwrap()
}

pub(crate) fn place(mut index: usize, dims: &[usize]) -> Vec<usize> {
    let mut place = vec![0; dims.len()];
    for (at, size) in place.iter_mut().zip(dims).rev() {
        (*at, index) = (index % size, index / size);
    }
    place
}

pub(crate) fn index(place: &[usize], dims: &[usize]) -> usize {
    place.iter().zip(dims).fold(0, |index, (at, size)| index * size + at)
}

/// A place with one coordinate replaced.
pub(crate) fn with(place: &[usize], dim: usize, at: usize) -> Vec<usize> {
    let mut place = place.to_vec();
    place[dim] = at;
    place
}
