//! Matrices of whole numbers of eight bits, rotated or not, are the numbers of ComfyUI's library,
//! and so are their products by activations that are rounded as well; those of Q8_0 follow its
//! blocks.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{close, golden, reference};
use kino_models::Weights;
use kino_models::weight::{Embedding, Linear};

const CASES: [(&str, [usize; 2]); 5] = [
    ("rotated", [6, 512]),
    ("nested", [6, 512]),
    ("small", [5, 192]),
    ("rows", [7, 100]),
    ("whole", [4, 96]),
];

#[test]
fn whole_numbers_are_those_of_the_public_library() {
    let file = reference("int8/int8.safetensors");
    let (weights, values) = (
        Weights::open(&file, DType::F32, &Device::Cpu).unwrap(),
        golden("int8/values.safetensors"),
    );
    for (name, [rows, inner]) in CASES {
        let (own, expected) = (weights.scope(name), values.get(&format!("{name}.weight")));
        close(name, &own.get("weight", (rows, inner)).unwrap(), &expected, 2e-6);
        let x = (0..3 * inner).map(|i| ((i * 7919) as f64 * 0.618_034).fract() as f32 - 0.5);
        let x = Tensor::from_iter(x, &Device::Cpu).unwrap().reshape((3, inner)).unwrap();
        let product = x.matmul(&expected.t().unwrap()).unwrap();
        let found = Linear::load_plain(&own, inner, rows).unwrap().forward(&x).unwrap();
        close(name, &found, &product, 2e-5);
        let table = Embedding::load(&own, rows, inner).unwrap();
        let ids = Tensor::new(&[3u32, 0], &Device::Cpu).unwrap();
        let found = table.lookup(&[3, 0]).unwrap();
        close(name, &found, &expected.index_select(&ids, 0).unwrap(), 2e-6);
    }
}

/// Of each row: within a share of its largest number.
#[track_caller]
fn rows_close(name: &str, found: &Tensor, expected: &Tensor) {
    let sizes = expected.abs().unwrap().max_keepdim(1).unwrap().clamp(1e-30, f64::MAX).unwrap();
    let of_rows = |rows: &Tensor| rows.broadcast_div(&sizes).unwrap();
    close(name, &of_rows(found), &of_rows(expected), 1e-6);
}

#[test]
fn products_of_rounded_activations_are_those_of_the_public_library() {
    let file = reference("int8/int8.safetensors");
    let weights = Weights::open(&file, DType::F32, &Device::Cpu).unwrap().with_int8(true);
    let values = golden("int8/values.safetensors");
    for (name, [rows, inner]) in CASES {
        let layer = Linear::load_plain(&weights.scope(name), inner, rows).unwrap();
        let found = layer.forward(&values.get(&format!("{name}.x"))).unwrap();
        rows_close(name, &found, &values.get(&format!("{name}.w8a8")));
    }
}

#[test]
fn products_of_rounded_blocks_are_sums_of_whole_numbers() {
    let file = reference("gguf/types.gguf");
    let weights = Weights::open(&file, DType::F32, &Device::Cpu).unwrap().with_int8(true);
    let values = golden("gguf/values.safetensors");
    let layer = Linear::load_plain(&weights.scope("q8_0"), 512, 3).unwrap();
    let found = layer.forward(&values.get("q8_0.x")).unwrap();
    rows_close("q8_0", &found, &values.get("q8_0.w8a8"));
}
