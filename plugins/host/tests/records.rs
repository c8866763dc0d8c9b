//! Records that plugins make: of each type, with fields that no type knows, and what is refused.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use kino_contract::code;
use kino_host::ops::OpLimits;
use kino_host::{PluginValue, ValueKind};
use kino_node::{
    Conditioning, Frames, Given, GivenEncoding, Latent, LatentSpace, Ledger, Mask, Result,
    Services, Sigmas, Value, decode, encode,
};
use kino_port::PortType;

fn ramp(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let numbers = Tensor::arange(0f32, count as f32, &Device::Cpu).unwrap();
    (numbers / count as f64).unwrap().reshape(shape).unwrap()
}

fn tensor(shape: &[usize]) -> PluginValue {
    PluginValue::Value(Value::Tensor(ramp(shape)))
}

fn text(text: &str) -> PluginValue {
    PluginValue::Value(Value::Text(text.into()))
}

fn int(int: i128) -> PluginValue {
    PluginValue::Value(Value::Int(int))
}

fn record(ty: &str, fields: &[(&str, PluginValue)]) -> Result<PluginValue> {
    let fields = fields.iter().map(|(name, value)| (Arc::from(*name), value.clone()));
    PluginValue::record(ty, fields.collect())
}

fn names(value: &PluginValue) -> Vec<&str> {
    (0..value.len()).map(|index| value.name(index)).collect()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Through the cache on disk and back.
fn stored(value: &PluginValue) -> PluginValue {
    let services = Services::new(Device::Cpu, Ledger::new(1 << 30));
    let value = value.clone().into_value().unwrap();
    let mut bytes = Vec::new();
    encode(&[Some(value)], &mut bytes).unwrap();
    let back = decode(&mut &bytes[..], &services).unwrap().remove(0).unwrap();
    PluginValue::Value(back)
}

/// The least that makes a value of each type.
fn one_of_each() -> Vec<PluginValue> {
    let chunks = PluginValue::List([("".into(), tensor(&[2, 4, 6, 3]))].into());
    let levels = Tensor::new(&[1f64, 0.3, 0.0], &Device::Cpu).unwrap();
    let patches = Value::from(kino_node::Patches {
        tokens: ramp(&[6, 64]),
        clips: vec![kino_node::Clip { name: None, grid: [1, 2, 3], channels: 16, space: None }],
        patch: [1, 2, 2],
    });
    let made = [
        record("Conditioning", &[("positive", tensor(&[2, 3])), ("negative", tensor(&[2, 3]))]),
        record("ImageConditioning", &[("tensor", tensor(&[2, 3]))]),
        record("Latent", &[("tensor", tensor(&[2, 1, 2, 3]))]),
        Ok(PluginValue::Value(patches)),
        record(
            "Given",
            &[("tensor", tensor(&[2, 2, 2, 3])), ("mask", tensor(&[2, 2, 3])), ("frames", int(5))],
        ),
        record("Control", &[("tensor", tensor(&[2, 2, 2, 3]))]),
        record("Sigmas", &[("tensor", PluginValue::Value(Value::Tensor(levels)))]),
        record("Frames", &[("chunks", chunks)]),
        record("Mask", &[("tensor", tensor(&[2, 4, 6]))]),
        record("Audio", &[("tensor", tensor(&[2, 100])), ("rate", int(8000))]),
    ];
    made.into_iter().map(|made| made.unwrap()).collect()
}

/// Every type that has fields is made, read, changed and stored with a field that nobody knows.
#[test]
fn every_type_is_an_open_record() {
    let rows = PortType::NAMED.iter().filter(|row| !row.fields.is_empty());
    let rows: Vec<_> = rows.map(|row| row.name).collect();
    let values = one_of_each();
    assert_eq!(values.iter().map(PluginValue::type_name).collect::<Vec<_>>(), rows);
    for value in values {
        let name = value.type_name().to_owned();
        assert_eq!(value.kind(), ValueKind::Record, "{name}");
        let mut fields: Vec<(Arc<str>, PluginValue)> = (0..value.len())
            .map(|index| (value.name(index).into(), value.item(index).unwrap()))
            .collect();
        fields.push(("added.by".into(), text("a test")));
        fields.push(("weights".into(), tensor(&[3])));
        let open = PluginValue::record(&name, fields).unwrap();
        for open in [&open, &stored(&open)] {
            assert_eq!(names(open)[..value.len()], names(&value)[..], "{name}");
            assert_eq!(names(open)[value.len()..], ["added.by", "weights"], "{name}");
            let added = open.field("added.by").unwrap().unwrap();
            assert_eq!(added.text().unwrap(), "a test");
            let weights = open.item(open.len() - 1).unwrap().tensor().unwrap();
            assert_eq!(numbers(&weights), numbers(&ramp(&[3])));
            let bytes = |of: &PluginValue| of.clone().into_value().unwrap().bytes();
            assert_eq!(bytes(open), bytes(&value) + 12 + 6, "{name}");
        }
        // A port of its type takes it with all of them, and so does a step's device.
        let fitted = open.clone().into_value().unwrap().fit(&name.parse().unwrap()).unwrap();
        let moved = PluginValue::Value(fitted.to_device(&Device::Cpu).unwrap());
        assert_eq!(names(&moved), names(&open), "{name}");
        if value.field("tensor").unwrap().is_some() {
            let whole = value.tensor().unwrap();
            let (dtype, dims) = value.shape().unwrap();
            assert_eq!((dtype, &*dims), (whole.dtype(), whole.dims()), "{name}");
            assert!(value.is_tensor() && value.view().is_ok(), "{name}");
            let size = whole.elem_count() * dtype.size_in_bytes();
            assert_eq!(value.read(0, size as u64).unwrap().len(), size, "{name}");
        }
    }
}

#[test]
fn conditioning_has_any_names_with_masks() {
    let mask = PluginValue::Value(Value::Tensor(Tensor::new(&[1f32, 0.0], &Device::Cpu).unwrap()));
    let image = record("Embeddings", &[("tensor", tensor(&[2, 4])), ("mask", mask.clone())]);
    let positive = record(
        "Embeddings",
        &[
            ("tensor", tensor(&[1, 2, 3])),
            ("mask", mask),
            ("pooled", tensor(&[3])),
            ("image", image.unwrap()),
        ],
    );
    let made = record(
        "Conditioning",
        &[("positive", positive.unwrap()), ("negative", tensor(&[2, 3])), ("pooled", tensor(&[5]))],
    );
    let made = stored(&made.unwrap());
    assert_eq!(names(&made), ["positive", "negative", "pooled"]);
    let positive = made.field("positive").unwrap().unwrap();
    assert_eq!(positive.tensor().unwrap().dims(), [2, 3]);
    assert_eq!(names(&positive), ["tensor", "mask", "pooled", "image"]);
    let image = positive.field("image").unwrap().unwrap();
    assert_eq!((image.type_name(), names(&image)), ("Embeddings", vec!["tensor", "mask"]));
    assert_eq!(image.tensor().unwrap().dims(), [2, 4]);
    // The engine sees the same by name.
    let value = made.clone().into_value().unwrap();
    let conditioning = value.get::<Conditioning>().unwrap();
    let found: Vec<_> = conditioning.positive.iter().map(|one| &*one.name).collect();
    assert_eq!(found, ["text", "pooled", "image"]);
    let mask = conditioning.positive.need("image").unwrap().mask.as_ref().unwrap();
    assert_eq!(numbers(mask), [1.0, 0.0]);
    // A plugin that changes the negative one leaves the rest as it is.
    let bounds = OpLimits { most: 1 << 20, check: &|| Ok(()) };
    let values = [made, tensor(&[4, 3])];
    let changed =
        kino_host::calls::call("with", &values, r#"{"fields": ["negative"]}"#, &bounds, None);
    let changed = changed.unwrap().remove(0).into_value().unwrap();
    let changed = changed.get::<Conditioning>().unwrap();
    assert_eq!(changed.positive.iter().count(), 3);
    assert_eq!(changed.negative.text().unwrap().dims(), [4, 3]);
}

/// In a worker, records are made where they go: what only passes through stays what it is.
#[test]
fn records_that_are_gathered_keep_what_lies_elsewhere() {
    let space = PluginValue::Remote("Space".into(), 7);
    let fields = [("tensor".into(), tensor(&[2, 1, 2, 3])), ("space".into(), space)];
    let latent = PluginValue::Fields("Latent".into(), fields.into());
    let bounds = OpLimits { most: 1 << 20, check: &|| Ok(()) };
    let values = [latent, tensor(&[2, 1, 4, 5])];
    let made = kino_host::calls::call("with", &values, r#"{"fields": ["tensor"]}"#, &bounds, None);
    let made = made.unwrap().remove(0);
    assert_eq!((made.type_name(), names(&made)), ("Latent", vec!["space", "tensor"]));
    let space = made.field("space").unwrap().unwrap();
    assert!(matches!(space, PluginValue::Remote(_, 7)));
    assert_eq!(made.tensor().unwrap().dims(), [2, 1, 4, 5]);
}

/// Frames keep their fields, and their chunks stay where they lie.
#[test]
fn frames_with_another_field_are_not_copied() {
    let frames = Arc::new(Frames::from_tensor(&ramp(&[2, 4, 6, 3]), Some(8.0)).unwrap());
    let value = PluginValue::Value(Value::from(Arc::clone(&frames)));
    let bounds = OpLimits { most: 1 << 20, check: &|| Ok(()) };
    let values = [value, text("by hand")];
    let made = kino_host::calls::call("with", &values, r#"{"fields": ["note"]}"#, &bounds, None);
    let made = made.unwrap().remove(0);
    assert_eq!(names(&made), ["chunks", "fps", "count", "height", "width", "note"]);
    let same = made.into_value().unwrap().shared::<Frames>().unwrap();
    assert!(Arc::ptr_eq(&same, &frames));
}

#[test]
fn a_given_of_a_plugin_is_one() {
    let space = LatentSpace { id: [7; 32], channels: 2, temporal: 4, spatial: 8 };
    let latent = Latent { tensor: ramp(&[2, 2, 2, 3]), space: Some(space) };
    let latent = PluginValue::Value(latent.into());
    let space = latent.field("space").unwrap().unwrap();
    assert_eq!(space.kind(), ValueKind::Opaque);
    let frames = Frames::from_tensor(&ramp(&[1, 16, 24, 3]), None).unwrap();
    let fields = [
        ("tensor", latent.clone()),
        ("mask", tensor(&[2, 2, 3])),
        ("frames", int(5)),
        ("strength", PluginValue::Value(Value::Real(0.5))),
        ("space", space),
        ("start", PluginValue::Value(frames.into())),
    ];
    let made = record("Given", &fields).unwrap().into_value().unwrap();
    let given = made.get::<Given>().unwrap();
    assert_eq!((given.frames, given.strength), (5, 0.5));
    assert_eq!(given.encoding, GivenEncoding::Apart);
    assert_eq!(given.latent.space.as_ref().unwrap().id, [7; 32]);
    assert_eq!(given.start.as_ref().unwrap().count(), 1);
    let again = PluginValue::Value(made);
    let encoding = again.field("encoding").unwrap().unwrap();
    assert_eq!(encoding.text().unwrap(), "apart");
}

/// Samples are `[channels, n]` to plugins, and kept as they were heard.
#[test]
fn sound_is_samples_by_channel() {
    let samples = Tensor::new(&[[0.1f32, 0.2, 0.3], [-0.1, -0.2, -0.3]], &Device::Cpu).unwrap();
    let samples = PluginValue::Value(Value::Tensor(samples));
    let made = record("Audio", &[("tensor", samples), ("rate", int(3))]).unwrap();
    let seconds = made.field("seconds").unwrap().unwrap();
    assert_eq!(seconds.real().unwrap(), 1.0);
    let back = stored(&made).tensor().unwrap();
    assert_eq!(back.dims(), [2, 3]);
    let back: Vec<f32> = back.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(back, [0.1, 0.2, 0.3, -0.1, -0.2, -0.3]);
}

#[test]
fn numbers_are_converted_and_ranges_held() {
    let bytes = Tensor::new(&[0u8, 1, 1, 0], &Device::Cpu).unwrap().reshape((1, 2, 2)).unwrap();
    let made = record("Mask", &[("tensor", PluginValue::Value(Value::Tensor(bytes)))]).unwrap();
    let made = made.into_value().unwrap();
    let mask = made.get::<Mask>().unwrap();
    assert_eq!(
        (mask.tensor.dtype(), numbers(&mask.tensor)),
        (DType::F32, vec![0.0, 1.0, 1.0, 0.0])
    );
    let levels = Tensor::new(&[1f32, 0.0], &Device::Cpu).unwrap();
    let made = record("Sigmas", &[("tensor", PluginValue::Value(Value::Tensor(levels)))]).unwrap();
    assert_eq!(made.into_value().unwrap().get::<Sigmas>().unwrap().steps(), 1);
}

#[track_caller]
fn refused(ty: &str, fields: &[(&str, PluginValue)], message: &str, code: &str) {
    let error = record(ty, fields).err().expect("an error");
    assert_eq!((error.to_string().as_str(), error.code()), (message, code));
}

#[test]
fn what_is_no_record_of_its_type_is_told() {
    let invalid = code::INVALID;
    refused("Mask", &[], "a record of type Mask needs `tensor`: f32 [f, h, w] in 0…1", invalid);
    refused(
        "Mask",
        &[("tensor", tensor(&[4]))],
        "Mask.tensor: a mask is [f, h, w] or [1, f, h, w], found a tensor [4]",
        invalid,
    );
    refused(
        "Mask",
        &[("tensor", text("a"))],
        "Mask.tensor: expected f32 [f, h, w] in 0…1, found Text",
        code::WRONG_KIND,
    );
    let two = PluginValue::Value(Value::Tensor((ramp(&[1, 1, 1]) + 2.0).unwrap()));
    refused("Mask", &[("tensor", two)], "a mask is one value a pixel in 0…1, found 2", invalid);
    refused(
        "Audio",
        &[("tensor", tensor(&[2, 4])), ("rate", int(0))],
        "Audio.rate: expected Int, 1 or more, found 0",
        invalid,
    );
    refused("Dit", &[], "plugins make no records of type Dit", invalid);
    refused(
        "Conditioning",
        &[
            ("positive", record("Embeddings", &[("tensor", tensor(&[2, 3]))]).unwrap()),
            ("negative", text("ugly")),
        ],
        "Conditioning.negative: expected Embeddings, found Text",
        code::WRONG_KIND,
    );
    refused(
        "Embeddings",
        &[("tensor", tensor(&[2, 3])), ("words", text("a b"))],
        "embeddings are tensors, found Text in `words`",
        code::WRONG_KIND,
    );
    refused(
        "Mask",
        &[("tensor", tensor(&[1, 2, 3])), ("tensor", tensor(&[1, 2, 3]))],
        "a record of type Mask has one field `tensor`",
        invalid,
    );
    let clips = "a record of type Patches needs `clips`: opaque";
    refused("Patches", &[("tensor", tensor(&[6, 64]))], clips, invalid);
    let many: Vec<(Arc<str>, PluginValue)> =
        (0..4097).map(|n| (format!("f{n}").into(), int(n))).collect();
    let error = PluginValue::record("test.many", many).err().unwrap();
    assert_eq!(error.code(), code::LIMIT);
    let mut deep = int(1);
    let error = (0..100).find_map(|_| {
        let list = PluginValue::List([("".into(), deep.clone())].into());
        match record("Mask", &[("tensor", tensor(&[1, 2, 3])), ("more", list)]) {
            Ok(next) => {
                deep = next;
                None
            }
            Err(error) => Some(error),
        }
    });
    assert_eq!(error.unwrap().code(), code::LIMIT);
}
