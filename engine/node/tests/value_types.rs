//! The table of value types: it agrees with what the engine shares with plugins, and a type that
//! only these tests know goes everywhere that the engine's own go.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use kino_node::{
    Audio, Cancel, Clip, Conditioning, Content, Control, CustomTypes, Error, Fields, Frames,
    FramesBuilder, Given, GivenEncoding, Guider, GuiderHandle, GuiderState, ImageConditioning,
    Inputs, Latent, LatentSpace, Ledger, Mask, ModelPart, Named, Opaque, OutputFile, Patches,
    Record, Result, Services, Sigmas, TYPES, TensorFact, TensorHeader, TensorReader, Tensors,
    TypeDef, Value, ValueType, decode, encode, fit_values, is_storable, known, tensor_fact,
    type_of_name,
};
use kino_port::{ElementRule, Fact, FieldPresence, PortType, Sigma, edge, list, real, text};

fn services() -> Services {
    Services::new(Device::Cpu, Ledger::new(u64::MAX))
}

fn ramp(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let ramp = Tensor::arange(0f32, count as f32, &Device::Cpu).unwrap();
    (ramp.reshape(shape).unwrap() / count as f64).unwrap()
}

/// One value of each type of the table that can be kept on disk.
fn samples() -> Vec<Value> {
    let space = Some(LatentSpace { id: [7; 32], channels: 2, temporal: 4, spatial: 8 });
    let latent = Latent { tensor: ramp(&[2, 1, 2, 3]), space };
    let clip = Clip { name: Some("wide".into()), grid: [1, 1, 2], channels: 3, space: None };
    let mut frames = FramesBuilder::new(&services().ledger, Some(7.5));
    frames.push(&ramp(&[2, 4, 5, 3])).unwrap();
    vec![
        Conditioning::of_text(ramp(&[2, 3]), ramp(&[2, 3])).into(),
        ImageConditioning { tensor: ramp(&[2, 3]) }.into(),
        latent.clone().into(),
        Patches { tokens: ramp(&[2, 6]), clips: vec![clip], patch: [1, 1, 2] }.into(),
        given(latent, 1).into(),
        control(1).into(),
        Sigmas(vec![Sigma(1.0), Sigma(0.5), Sigma(0.0)].into()).into(),
        frames.finish().unwrap().into(),
        Mask { tensor: ramp(&[2, 2, 3]) }.into(),
        Audio::pcm(vec![0.5; 6], 8000, 2).unwrap().into(),
    ]
}

/// A clip of so many frames, the first of which is given.
fn given(latent: Latent, frames: usize) -> Given {
    Given {
        latent,
        mask: Mask { tensor: ramp(&[1, 2, 3]) },
        frames,
        strength: 0.5,
        encoding: GivenEncoding::Apart,
        start: Some(Arc::new(Frames::from_tensor(&ramp(&[1, 4, 5, 3]), None).unwrap())),
        end: None,
    }
}

/// A control of two latent frames, of which so many are pictures.
fn control(references: usize) -> Control {
    Control { tensor: ramp(&[5, 2, 2, 3]), references, strength: 0.5, space: None }
}

#[test]
fn a_control_leaves_a_clip_and_counts_by_a_number() {
    assert!(control(1).check().is_ok());
    let message = |control: Control| control.check().unwrap_err().to_string();
    assert_eq!(
        message(control(2)),
        "2 of 2 latent frames of a control are pictures: none is left for a clip"
    );
    for strength in [-0.5, f64::NAN, f64::INFINITY] {
        let found = message(Control { strength, ..control(0) });
        assert!(found.starts_with("the strength of a control is 0 or more"), "{found}");
    }
}

#[test]
fn given_frames_fit_their_clip() {
    let latent = Latent { tensor: ramp(&[2, 1, 2, 3]), space: None };
    let end = |count: usize, width: usize| {
        let frames = Frames::from_tensor(&ramp(&[count, 4, width, 3]), None).unwrap();
        Given { end: Some(Arc::new(frames)), ..given(latent.clone(), 3) }
    };
    assert!(end(2, 5).check().is_ok());
    let message = |given: &Given| given.check().unwrap_err().to_string();
    assert_eq!(message(&end(3, 5)), "4 frames are given of a clip of 3");
    assert_eq!(
        message(&end(1, 6)),
        "the frames of one clip have one size, found 5x4 at its start and 6x4 at its end"
    );
    assert_eq!(message(&given(latent.clone(), 0)), "a clip has at least one frame, found none");
    // Its bytes are those of the latent, of the mask and of the frames.
    let bytes = |count: usize| (2 * 6 + 6 + 60 + count * 60) as u64 * 4;
    assert_eq!(end(2, 5).bytes(), bytes(2));
}

#[test]
fn whole_numbers_are_levels_of_frames() {
    let check = |dtype: DType, largest: f64| {
        let levels = [0.0, 1.0, 0.0, 0.2, 1.0, 0.6].map(|level| level * largest);
        let tensor = Tensor::new(&levels, &Device::Cpu).unwrap().reshape((1, 1, 2, 3)).unwrap();
        let frames = Value::Tensor(tensor.to_dtype(dtype).unwrap()).fit(&PortType::Frames).unwrap();
        let found = frames.tensor().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (found, level) in found.iter().zip([0.0, 1.0, 0.0, 0.2, 1.0, 0.6]) {
            assert!((found - level).abs() < 1e-4, "{dtype:?}: {found} is not {level}");
        }
    };
    check(DType::U8, 255.0);
    check(DType::U32, f64::from(u32::MAX));
    check(DType::F32, 1.0);
    check(DType::F64, 1.0);
}

#[test]
fn every_named_type_has_values_of_one_kind() {
    let core = ["Text", "Int", "Real", "Bool", "Path", "Tensor", "File", "Any"];
    let parts = ["TextEncoder", "ImageEncoder", "Dit", "Vae"];
    let table: Vec<_> = TYPES.iter().map(TypeDef::name).collect();
    let unique: HashSet<_> = table.iter().collect();
    assert_eq!(unique.len(), table.len());
    let named: Vec<_> = PortType::NAMED.iter().map(|row| row.name).collect();
    for name in &named {
        let of = [core.contains(name), parts.contains(name), table.contains(name)];
        assert_eq!(of.iter().filter(|is| **is).count(), 1, "{name}");
    }
    assert!(table.iter().all(|name| named.contains(name)));
}

#[test]
fn values_are_what_their_rows_say() {
    let samples = samples();
    assert_eq!(samples.len(), TYPES.iter().filter(|def| def.is_storable).count());
    for value in &samples {
        let Value::Typed(typed) = value else { panic!("{value:?}") };
        let (def, name) = (typed.def(), typed.def().name());
        let row = def.named().unwrap();
        assert_eq!(value.holds_tensor(), row.tensor.is_some(), "{name}");
        assert!(value.bytes() > 0, "{name}");
        assert_eq!(value.fit(&def.port).unwrap().extent(), value.extent(), "{name}");
        for rule in row.fields.iter().filter(|rule| !rule.content.is_chunks()) {
            let there = typed.field(rule.name).unwrap().is_some();
            assert!(there || rule.presence == FieldPresence::Optional, "{name}.{}", rule.name);
        }
        assert!(typed.field("no such field").unwrap().is_none());
        let Some(rule) = &row.tensor else { continue };
        let tensor = value.fit(&PortType::Tensor).unwrap().tensor().unwrap();
        assert_eq!(Some(tensor.dims().to_vec()), value.shape(), "{name}");
        let known = tensor_fact(&typed.fact()).unwrap();
        assert_eq!(known, TensorFact { shape: tensor.dims().to_vec(), dtype: tensor.dtype() });
        assert!(rule.fit(tensor.dims()).is_ok(), "{name}");
        let back = Value::Tensor(tensor).fit(&def.port);
        assert_eq!(back.is_ok(), rule.converts, "{name}: {back:?}");
        if rule.elements != ElementRule::Any {
            let wrong = Tensor::full(2f32, value.shape().unwrap(), &Device::Cpu).unwrap();
            assert!(Value::Tensor(wrong).fit(&def.port).is_err(), "{name}");
        }
    }
}

/// A value of every named type but Any and Tensor, of a list, and of a plugin's own type.
fn one_of_each() -> Vec<(PortType, Value)> {
    struct Nobody;
    impl Guider for Nobody {
        fn begin(&self, _: &Cancel) -> Box<dyn GuiderState> {
            unreachable!("it guides no run")
        }
    }
    let word = || Value::Text("a".into());
    let file = OutputFile { path: "a".into(), hash: String::new(), bytes: 0 };
    let record = Record { ty: "test.depth".into(), fields: Vec::new() };
    let parts = [PortType::TextEncoder, PortType::ImageEncoder, PortType::Dit, PortType::Vae]
        .map(|ty| (ty.clone(), Value::Part(ModelPart { ty, handle: Arc::new(()) })));
    let typed = samples().into_iter().map(|value| match &value {
        Value::Typed(typed) => (typed.def().port.clone(), value),
        other => panic!("{other:?}"),
    });
    let others = [
        (PortType::Text, word()),
        (PortType::Path, word()),
        (PortType::Int, Value::Int(3)),
        (PortType::Real, Value::Real(0.5)),
        (PortType::Bool, Value::Bool(true)),
        (PortType::File, Value::File(Arc::new(file))),
        (PortType::Guider, GuiderHandle(Arc::new(Nobody)).into()),
        ("test.depth".parse().unwrap(), Value::Custom(Arc::new(record))),
    ];
    typed.chain(parts).chain(others).collect()
}

/// A tensor of which a value of this type can be made, where any can.
fn tensor_for(ty: &PortType) -> Value {
    let dims = ty.tensor_rule().map_or(&[][..], |rule| rule.dims);
    let shape: Vec<usize> = dims.iter().map(|name| name.parse().unwrap_or(2)).collect();
    Value::Tensor((1.0 - ramp(&shape)).unwrap())
}

fn list_of(of: PortType) -> PortType {
    PortType::List(Box::new(of))
}

#[test]
fn the_check_promises_what_the_run_does_for_every_pair_of_types() {
    let all = one_of_each();
    let named = PortType::NAMED.iter().map(|row| &row.ty);
    let mut ports: Vec<_> = named.filter(|ty| **ty != PortType::Any).cloned().collect();
    ports.extend(["test.depth".parse().unwrap(), "test.other".parse().unwrap()]);
    let mut pairs = 0;
    for to in &ports {
        let tensor = [(PortType::Tensor, tensor_for(to))];
        for (from, value) in all.iter().chain(&tensor) {
            let (promised, done) = (to.accepts(from), value.fit(to));
            // A text that arrives as a value does not say whether it was declared as a path.
            let path_as_text = (to, from) == (&PortType::Text, &PortType::Path);
            assert_eq!(promised || path_as_text, done.is_ok(), "{from} to {to}: {done:?}");
            let values = Value::List(vec![(None, value.clone())].into());
            assert_eq!(list_of(to.clone()).accepts(&list_of(from.clone())), promised);
            assert_eq!(
                values.fit(&list_of(to.clone())).is_ok(),
                done.is_ok(),
                "lists: {from}, {to}"
            );
            assert!(!to.accepts(&list_of(from.clone())) && values.fit(to).is_err(), "{from}, {to}");
            assert!(PortType::Any.accepts(from) && value.fit(&PortType::Any).is_ok());
            pairs += 1;
        }
    }
    assert_eq!(pairs, ports.len() * (all.len() + 1));
    assert_eq!(all.len() + 1, ports.len() - 1, "a value of every type but `test.other`");
}

#[test]
fn a_port_that_takes_one_of_two_types_takes_both() {
    let named = || PortType::NAMED.iter().map(|row| row.ty.clone());
    let types: Vec<_> = named().chain(["test.depth".parse().unwrap()]).collect();
    for (a, b) in types.iter().flat_map(|a| types.iter().map(move |b| (a, b))) {
        let either = a.either(b);
        assert_eq!(
            either,
            list_of(a.clone()).either(&list_of(b.clone())).map(|of| match of {
                PortType::List(of) => *of,
                other => other,
            })
        );
        if *a == PortType::Any || *b == PortType::Any {
            continue;
        }
        assert_eq!(either, b.either(a), "{a}, {b}");
        let Some(either) = either else { continue };
        for port in types.iter().filter(|port| port.accepts(&either)) {
            assert!(port.accepts(a) && port.accepts(b), "{a} or {b} is {either}, into {port}");
        }
    }
    let of = |a: PortType, b| a.either(&b);
    assert_eq!(of(PortType::Tensor, PortType::Frames), Some(PortType::Frames));
    assert_eq!(of(PortType::Patches, PortType::Tensor), None);
    assert_eq!(of(PortType::Int, PortType::Real), Some(PortType::Real));
    assert_eq!(of(PortType::Latent, PortType::Frames), None);
}

#[test]
fn known_tensors_become_what_is_known_of_values() {
    let tensor =
        |shape: &[usize]| Fact::typed(TensorFact { shape: shape.to_vec(), dtype: DType::F32 });
    let mask = known::<Mask>(&tensor(&[1, 5, 4, 6])).unwrap().unwrap();
    assert_eq!(mask.shape, [5, 4, 6].map(Some));
    assert_eq!(
        known::<Mask>(&tensor(&[4])).unwrap_err(),
        "a mask is [f, h, w] or [1, f, h, w], found a tensor [4]"
    );
    assert_eq!(
        known::<Frames>(&tensor(&[2, 4, 6, 4])).unwrap_err(),
        "frames are [count, height, width, 3], found a tensor [2, 4, 6, 4]"
    );
    assert_eq!(known::<Mask>(&Fact::Unknown), Ok(None));
}

/// Fields as a plugin gives them: one tensor, sizes, something opaque, whatever is asked for.
struct PluginFields {
    tensor: Tensor,
    sizes: Vec<usize>,
    opaque: Opaque,
}

impl Fields for PluginFields {
    fn tensor(&self, _: &str) -> Result<Option<Tensor>> {
        Ok(Some(self.tensor.clone()))
    }

    fn sizes(&self, _: &str) -> Result<Vec<usize>> {
        Ok(self.sizes.clone())
    }

    fn int(&self, _: &str) -> Result<Option<usize>> {
        Ok(None)
    }

    fn real(&self, _: &str) -> Result<Option<f64>> {
        Ok(None)
    }

    fn text(&self, _: &str) -> Result<Option<String>> {
        Ok(None)
    }

    fn content(&self, _: &str) -> Result<Option<Content>> {
        Ok(None)
    }

    fn opaque(&self, _: &str) -> Result<Option<Opaque>> {
        Ok(Some(self.opaque.clone()))
    }

    fn embeddings(&self, _: &str) -> Result<Vec<(String, Tensor, Option<Tensor>)>> {
        Ok(Vec::new())
    }

    fn tensors(&self, _: &str) -> Result<Vec<Tensor>> {
        Ok(Vec::new())
    }
}

#[track_caller]
fn check_made(ty: &str, shape: &[usize], sizes: &[usize], opaque: Opaque, expected: &str) {
    let fields = PluginFields { tensor: ramp(shape), sizes: sizes.to_vec(), opaque };
    let made = type_of_name(ty).unwrap().from_fields(&fields);
    let found = made.map_or_else(|error| error.to_string(), |value| format!("{value:?}"));
    assert_eq!(found, expected);
}

#[test]
fn patches_of_a_plugin_are_not_believed() {
    let check = |shape: &[usize], grid: [usize; 3], patch: &[usize], expected: &str| {
        let clip = Clip { name: None, grid, channels: 16, space: None };
        check_made("Patches", shape, patch, Opaque::new("Clips", vec![clip]), expected);
    };
    check(&[6, 64], [1, 2, 3], &[1, 2, 2], "Patches[6, 64]");
    check(
        &[6, 64],
        [1, 2, 3],
        &[1, 2, 3],
        "a token of 16 channels and 1x2x3 patches has 16·1·2·3 values, found a tensor [6, 64]",
    );
    let most = usize::MAX;
    let message = format!(
        "a token of 16 channels and 1x{most}x3 patches has 16·1·{most}·3 values, found a tensor \
         [6, 64]"
    );
    check(&[6, 64], [1, 2, 3], &[1, most, 3], &message);
    check(&[6, 64], [1, 2, 3], &[1, 2], "the size of a patch is [t, h, w], found [1, 2]");
    check(&[5, 64], [1, 2, 3], &[1, 2, 2], "the clips have 6 tokens, found a tensor [5, 64]");
    check(
        &[6, 64],
        [most, 2, 3],
        &[1, 2, 2],
        "the clips have too many tokens, found a tensor [6, 64]",
    );
}

#[test]
fn latents_of_a_plugin_are_not_believed() {
    let space = Some(LatentSpace { id: [7; 32], channels: 2, temporal: 4, spatial: 8 });
    let check = |shape: &[usize], expected: &str| {
        check_made("Latent", shape, &[], Opaque::new("Space", space.clone().unwrap()), expected);
    };
    check(&[2, 1, 4, 6], "Latent[2, 1, 4, 6]");
    check(&[3, 1, 4, 6], "a latent of its space has 2 channels, found 3");
    check(&[4, 6], "a latent is [c, f, h, w] or [1, c, f, h, w], found a tensor [4, 6]");
}

/// A type of values that no crate but this one knows: how warm each pixel is.
#[derive(Clone, Debug)]
struct Heat {
    tensor: Tensor,
    unit: String,
}

#[derive(Clone, Debug, PartialEq)]
struct HeatFact {
    unit: String,
}

impl ValueType for Heat {
    const PORT: PortType = PortType::Custom(Cow::Borrowed("test.heat"));
    type Fact = HeatFact;
    type Header = (TensorHeader, String);

    fn check(&self) -> Result<()> {
        match &*self.unit {
            "K" | "°C" => Ok(()),
            other => Err(Error::failed(format!("heat is in K or °C, found {other}"))),
        }
    }

    fn fact(&self) -> HeatFact {
        HeatFact { unit: self.unit.clone() }
    }

    fn shape(&self) -> Option<Vec<usize>> {
        Some(self.tensor.dims().to_vec())
    }

    fn tensor(&self) -> Result<Tensor> {
        Ok(self.tensor.clone())
    }

    fn header(&self) -> Self::Header {
        (TensorHeader::of(&self.tensor), self.unit.clone())
    }

    fn tensors(&self) -> Tensors<'_> {
        Box::new([Ok(self.tensor.clone())].into_iter())
    }

    fn restore((tensor, unit): Self::Header, tensors: &mut TensorReader<'_>) -> Result<Self> {
        Ok(Heat { tensor: tensors.next(&tensor)?, unit })
    }
}

#[test]
fn a_type_that_only_a_program_knows_goes_everywhere() {
    let heat = |unit: &str| Value::from(Heat { tensor: ramp(&[2, 3]), unit: unit.into() });
    let value = heat("K");
    assert_eq!((value.type_name(), value.bytes()), ("test.heat", 24));
    assert_eq!(format!("{value:?}"), "test.heat[2, 3]");
    assert!(value.fit(&"test.heat".parse().unwrap()).is_ok());
    let error = value.fit(&PortType::Latent).unwrap_err().to_string();
    assert_eq!(error, "expected Latent, found test.heat");
    assert!(value.fit(&PortType::Tensor).is_ok() && is_storable(&value));
    let Value::Typed(typed) = &value else { panic!() };
    assert_eq!(typed.fact().get(), Some(&HeatFact { unit: "K".into() }));

    let ports = [edge("heat", Heat::PORT), edge("latent", PortType::Latent)];
    let values = [Some(value.clone()), Some(value.clone())];
    let inputs = Inputs::new(&ports, &values);
    assert_eq!(inputs.value::<Heat>("heat").unwrap().unit, "K");
    let error = inputs.value::<Latent>("latent").unwrap_err().to_string();
    assert!(error.ends_with("expected Latent, found test.heat"), "{error}");

    let stored = |value: Value| {
        let mut bytes = Vec::new();
        encode(&[Some(value)], &mut bytes).unwrap();
        bytes
    };
    let error = decode(&mut &stored(value.clone())[..], &services()).unwrap_err().to_string();
    assert_eq!(error, "a stored value is of an unknown type `test.heat`");
    let services = services().with(Arc::new(CustomTypes::default().with::<Heat>()));
    let back = decode(&mut &stored(value)[..], &services).unwrap().remove(0).unwrap();
    assert_eq!(back.get::<Heat>().unwrap().unit, "K");
    let error = decode(&mut &stored(heat("lux"))[..], &services).unwrap_err().to_string();
    assert_eq!(error, "heat is in K or °C, found lux");
}

#[test]
fn what_fits_its_port_stays_and_the_rest_is_made_to_fit() {
    let ports = [
        list("many", PortType::Real),
        list("one", PortType::Any),
        real("scale", 1.0).within(0.0, 2.0),
        text("op", "add").choices(&[Cow::Borrowed("add"), Cow::Borrowed("sub")]),
    ];
    let many: Arc<[_]> = [(Some("a".into()), Value::Real(1.5)), (None, Value::Real(2.0))].into();
    let fit = |scale: Value, op: &str, many: &Arc<[Named<Value>]>| {
        let (many, one, op) =
            (Value::List(Arc::clone(many)), Value::Int(3), Value::Text(op.into()));
        let mut values = vec![Some(many), Some(one), Some(scale), Some(op)];
        fit_values(&ports, &mut values).map(|()| values).map_err(|error| error.to_string())
    };
    let values = fit(Value::Int(2), "sub", &many).unwrap();
    assert!(matches!(&values[0], Some(Value::List(items)) if Arc::ptr_eq(items, &many)));
    assert_eq!(format!("{:?}", &values[1..3]), "[Some([3]), Some(2.0)]");
    let mixed = [(Some("a".into()), Value::Real(1.5)), (None, Value::Int(2))].into();
    let values = fit(Value::Real(0.5), "add", &mixed).unwrap();
    assert_eq!(format!("{:?}", &values[0]), "Some([1.5, 2.0])");
    for (scale, op, expected) in [
        (Value::Int(3), "add", "from 0 to 2, found 3.0"),
        (Value::Real(f64::NAN), "add", "found NaN"),
        (Value::Real(1.0), "mul", "one of \"add\", \"sub\", found \"mul\""),
        (Value::Text("1".into()), "add", "expected Real, found Text"),
    ] {
        let error = fit(scale, op, &many).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_large_tensor_is_written_in_pieces() {
    /// Notes the longest piece.
    struct Longest(usize, Vec<u8>);
    impl std::io::Write for Longest {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.max(bytes.len());
            self.1.extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let large = Tensor::arange(0u32, 3_000_001, &Device::Cpu).unwrap();
    let turned = ramp(&[700, 900]).t().unwrap();
    let none = Tensor::zeros((0, 4), DType::F32, &Device::Cpu).unwrap();
    let tensors = [large, turned, none];
    let values: Vec<_> = tensors.iter().map(|tensor| Some(Value::Tensor(tensor.clone()))).collect();
    let mut to = Longest(0, Vec::new());
    encode(&values, &mut to).unwrap();
    assert!(to.1.len() > 12_000_000 && to.0 <= 1 << 20, "{} at once", to.0);
    let back = decode(&mut &to.1[..], &services()).unwrap();
    for (tensor, back) in tensors.iter().zip(back) {
        let Some(Value::Tensor(back)) = back else { panic!() };
        assert_eq!((back.dims(), back.dtype()), (tensor.dims(), tensor.dtype()));
        let bytes = |tensor: &Tensor| {
            let mut bytes = Vec::new();
            tensor.write_bytes(&mut bytes).unwrap();
            bytes
        };
        assert!(bytes(&back) == bytes(tensor));
    }
}
