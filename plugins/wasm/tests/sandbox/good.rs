//! What plugins may do: as they are built now, and as 1.0 built them.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use kino_host::{GrantedFiles, Instance, Module};
use kino_node::{Frames, FramesBuilder, Value};

use crate::{World, text};

fn int(value: Option<Value>) -> i128 {
    match value {
        Some(Value::Int(value)) => value,
        other => panic!("no whole number: {other:?}"),
    }
}

fn said(value: Option<Value>) -> String {
    match value {
        Some(Value::Text(text)) => text.to_string(),
        other => panic!("no text: {other:?}"),
    }
}

#[test]
fn any_value_comes_back_as_it_went() {
    for world in World::both() {
        let list = vec![(None, Value::Bool(true)), (Some("b".into()), Value::Real(0.5))];
        let values = [
            Value::Int(i128::MIN),
            Value::Int(u64::MAX.into()),
            Value::Text("größer".into()),
            Value::List(Arc::new(list.try_into().map(|list: [_; 2]| list).unwrap())),
            Value::Tensor(Tensor::zeros((0, 3), DType::U8, &Device::Cpu).unwrap()),
        ];
        for value in values {
            let back = world.run("good.echo", Some(value.clone())).unwrap();
            assert_eq!(format!("{back:?}"), format!("{:?}", Some(value)));
        }
        assert!(world.run("good.echo", None).unwrap().is_none());
    }
}

#[test]
fn frames_are_worked_on_piece_by_piece() {
    for world in World::both() {
        let mut builder = FramesBuilder::new(&world.ledger, Some(12.0));
        for chunk in 0..3u32 {
            let count = 2 * 40 * 60 * 3;
            let values = (0..count).map(|at| (at + chunk * count) as f32 / 1e6).collect::<Vec<_>>();
            builder.push(&Tensor::from_vec(values, (2, 40, 60, 3), &Device::Cpu).unwrap()).unwrap();
        }
        let frames = Arc::new(builder.finish().unwrap());
        let out = world.run("good.gain", Some(Value::from(Arc::clone(&frames)))).unwrap();
        let out = out.and_then(|out| out.shared::<Frames>()).expect("frames");
        assert_eq!((out.count(), out.fps()), (6, Some(12.0)));
        let numbers = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let expected = numbers((frames.whole().unwrap() * 2.0).unwrap());
        assert_eq!(numbers(out.whole().unwrap()), expected);
    }
}

#[test]
fn operations_run_where_tensors_lie_and_views_are_read_in_order() {
    for world in World::both() {
        let x = Tensor::arange(0f32, 6.0, &Device::Cpu).unwrap().reshape((2, 3)).unwrap();
        let run = |node, x: &Tensor| match world.run(node, Some(Value::Tensor(x.clone()))).unwrap()
        {
            Some(Value::Tensor(tensor)) => tensor.to_vec2::<f32>().unwrap(),
            other => panic!("no tensor: {other:?}"),
        };
        assert_eq!(run("good.square", &x), [[0.0, 1.0, 4.0], [9.0, 16.0, 25.0]]);
        assert_eq!(run("good.rotate", &x), [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]);
    }
}

#[test]
fn state_stays_and_is_handed_on() {
    for world in World::both() {
        let add = |instance: &mut Box<dyn Instance>, more| {
            let outputs = world.call(|call| instance.run(call, &[Some(Value::Int(more))])).unwrap();
            int(outputs.into_iter().next().flatten())
        };
        let mut old = world.call(|call| world.plugin.open("good.state", None, call)).unwrap();
        assert_eq!((add(&mut old, 5), add(&mut old, -12)), (5, -7));
        let saved = world.call(|call| old.save(call)).unwrap().unwrap();
        let mut new =
            world.call(|call| world.plugin.open("good.state", Some(&saved), call)).unwrap();
        assert_eq!(add(&mut new, 10), 3);
        let refused = world.call(|call| world.plugin.open("good.state", Some(b"odd"), call).err());
        assert_eq!(refused.unwrap().to_string(), "the state is not one of this plugin");
        let mut plain = world.call(|call| world.plugin.open("good.empty", None, call)).unwrap();
        assert!(world.call(|call| plain.save(call)).unwrap().is_none());
    }
}

#[test]
fn values_may_be_kept_between_runs() {
    for world in World::both() {
        let mut instance = world.call(|call| world.plugin.open("good.keep", None, call)).unwrap();
        for count in 1..=5 {
            let text = Value::Text("kept".into());
            let outputs = world.call(|call| instance.run(call, &[Some(text)])).unwrap();
            assert_eq!(int(outputs.into_iter().next().flatten()), count);
        }
    }
}

/// What a plugin holds of its inputs after a call counts as its memory, each storage once.
#[test]
fn what_is_kept_between_runs_is_charged() {
    const MB: usize = 1 << 20;
    for mut world in World::both() {
        world.limits.memory = 64 << 20;
        let tensor =
            |megabytes: usize| Tensor::zeros(megabytes * MB / 4, DType::F32, &Device::Cpu).unwrap();
        let keep = |instance: &mut Box<dyn Instance>, value: Value| {
            world.call(|call| {
                instance.run(call, &[Some(value)]).unwrap();
                instance.charge_retained(call)
            })
        };
        let open = || world.call(|call| world.plugin.open("good.keep", None, call)).unwrap();
        let mut instance = open();
        let whole = tensor(25);
        for at in 0..4 {
            // A view keeps all that it views.
            let view = whole.narrow(0, at, 8).unwrap();
            keep(&mut instance, Value::Tensor(view)).unwrap();
        }
        keep(&mut instance, Value::List([(None, Value::Tensor(tensor(25)))].into())).unwrap();
        let error = keep(&mut instance, Value::Tensor(tensor(25))).unwrap_err();
        assert!(instance.is_broken());
        let error = text(&error);
        assert!(error.starts_with("the plugin `guests` goes on holding inputs"), "{error}");
        assert!(error.ends_with("`kino plugin trust guests --memory 256MB` lets it use more"));
        // What is lent for a call alone is not charged.
        let mut instance = world.call(|call| world.plugin.open("good.empty", None, call)).unwrap();
        keep(&mut instance, Value::Tensor(tensor(100))).unwrap();
    }
}

#[test]
fn the_world_is_empty_and_the_same_in_every_run() {
    for world in World::both() {
        let first = said(world.run("good.wasi", None).unwrap());
        assert_eq!(first, "0 0 0 946684800 9eb153b0270a0c7a true".to_owned());
        assert_eq!(said(world.run("good.wasi", None).unwrap()), first);
        let log = world.log.lock().unwrap();
        assert_eq!(log[0], (3, "hello from within".to_owned()));
    }
}

#[test]
fn a_plugin_may_sleep() {
    for world in World::both() {
        let before = std::time::Instant::now();
        assert_eq!(said(world.run("good.nap", None).unwrap()), "slept");
        assert!(before.elapsed().as_millis() >= 29);
    }
}

#[test]
fn a_granted_file_is_read_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("luts")).unwrap();
    std::fs::write(folder.path().join("luts/a.cube"), "a table").unwrap();
    std::fs::write(folder.path().join("secret"), "a secret").unwrap();
    let mut world = World::new();
    world.files = Box::new(GrantedFiles::new(folder.path(), &["luts".to_owned()]));
    let read = |path: &str| world.run("good.file", Some(Value::Text(path.into())));
    assert_eq!(said(read("luts/a.cube").unwrap()), "a table");
    for path in ["secret", "luts/../secret", "/etc/passwd", "luts/none.cube", "", "luts"] {
        assert!(read(path).is_err(), "{path}");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../secret", folder.path().join("luts/link")).unwrap();
        let error = read("luts/link").unwrap_err().to_string();
        assert!(error.contains("leads out of what was granted"), "{error}");
    }
}

#[test]
fn a_record_is_made_of_the_parts_of_a_list() {
    for world in World::both() {
        let list = [(Some("a".into()), Value::Int(1)), (None, Value::Text("two".into()))];
        let out = world.run("good.parts", Some(Value::List(Arc::new(list)))).unwrap();
        let Some(Value::Custom(record)) = out else { panic!("no record") };
        assert_eq!(&*record.ty, "guests.parts");
        let names: Vec<&str> = record.fields.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["a0", "1"]);
    }
}
