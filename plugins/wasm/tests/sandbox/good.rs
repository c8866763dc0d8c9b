//! What plugins may do: as they are built now, and as 2.0 built them.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use kino_host::{GrantedFiles, Instance, Module};
use kino_node::{Cancel, Error, Frames, FramesBuilder, GraphId, Value};

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

#[test]
fn whatever_the_host_offers_is_there() {
    for world in World::both() {
        let list = [(None, Value::Bool(true)), (None, Value::Int(i128::MIN))];
        let told = said(world.run("good.all", Some(Value::List(Arc::new(list)))).unwrap());
        assert_eq!(
            told,
            "true invalid 18446744073709551615 cpu u8 2 7 [true, false, true, true, false] true \
             false bool bool, u64 int, real real, tensor tensor, text text"
        );
    }
}

/// An error of the host that a plugin does not handle reaches the user as it is.
#[test]
fn errors_of_the_host_pass_through() {
    for mut world in World::both() {
        let files = GrantedFiles::new(Path::new("."), &[]).advising("grant it");
        world.files = Box::new(files);
        let error = world.run("good.file", Some(Value::Text("a".into()))).unwrap_err();
        let Error::Failed { message, hint, code } = error else { panic!("{error}") };
        assert_eq!(message, "`a` may not be read: it is not among what the plugin was granted");
        assert_eq!(
            (hint.as_deref(), &*code),
            (Some("nothing was granted; grant it"), "not-granted")
        );
        let error = world.run("abuse.refuse", None).unwrap_err();
        assert_eq!((error.code(), error.hint()), ("guests.unwilling", Some("ask somebody else")));
    }
}

fn in_graph(graph: &str) -> World {
    World { graph: Some(GraphId(graph.into())), ..World::new() }
}

fn open(world: &World, node: &str) -> Box<dyn Instance> {
    world.call(|call| world.plugin.open(node, None, call)).unwrap()
}

fn add(world: &World, instance: &mut Box<dyn Instance>, more: i128) -> kino_node::Result<i128> {
    let input = Some(Value::Int(more));
    let outputs = world.call(|call| instance.run(call, &[input]))?;
    Ok(int(outputs.into_iter().next().flatten()))
}

#[test]
fn nodes_with_state_share_an_instance_of_the_component() {
    let (one, two, none) = (in_graph("share one"), in_graph("share two"), World::new());
    let mut instances = [open(&one, "good.shared"), open(&one, "good.shared")];
    assert_eq!(add(&one, &mut instances[0], 5).unwrap(), 5);
    assert_eq!(add(&one, &mut instances[1], 1).unwrap(), 6);
    assert_eq!(add(&two, &mut open(&two, "good.shared"), 1).unwrap(), 1, "another graph");
    assert_eq!(add(&none, &mut open(&none, "good.shared"), 1).unwrap(), 1, "no graph");
    let mut last = open(&one, "good.last");
    assert_eq!(add(&one, &mut last, 0).unwrap(), 3, "instances that are open");
    let [first, second] = instances;
    drop(first);
    assert_eq!(add(&one, &mut last, 0).unwrap(), 2);
    drop((second, last));
    assert_eq!(add(&one, &mut open(&one, "good.shared"), 1).unwrap(), 1, "all were closed");
}

#[test]
fn nodes_without_state_share_nothing() {
    let world = in_graph("nothing");
    let mut kept = open(&world, "good.shared");
    assert_eq!(add(&world, &mut kept, 5).unwrap(), 5);
    for _ in 0..2 {
        let told = said(world.run("good.wasi", None).unwrap());
        assert!(told.contains("9eb153b0270a0c7a"), "the first random number: {told}");
    }
}

#[test]
fn after_a_stop_the_others_begin_anew() {
    let world = in_graph("stop");
    let mut all = [(); 3].map(|()| open(&world, "good.shared"));
    assert_eq!(add(&world, &mut all[0], 5).unwrap(), 5);
    let error = add(&world, &mut all[1], -1).unwrap_err();
    assert!(error.to_string().contains("panicked: less than nothing"), "{error}");
    assert!(all[1].is_broken() && !all[0].is_broken());
    assert!(world.call(|call| all[0].save(call)).unwrap().is_none(), "it is gone");
    assert_eq!(add(&world, &mut all[0], 1).unwrap(), 1);
    assert_eq!(add(&world, &mut all[2], 1).unwrap(), 2, "they share again");
    let log = world.log.lock().unwrap();
    let told = log.iter().filter(|(_, message)| message.contains("begin anew"));
    let told: Vec<_> = told.collect();
    assert_eq!(told.len(), 1, "{log:?}");
    assert!(told[0].1.starts_with("2 more nodes with state of the plugin `guests`"), "{told:?}");
}

#[test]
fn who_waits_for_a_shared_instance_can_be_cancelled() {
    let world = in_graph("wait");
    let mut first = open(&world, "good.shared");
    let second = open(&world, "good.shared");
    std::thread::scope(|scope| {
        let running = scope.spawn(|| add(&world, &mut first, i64::MAX.into()).unwrap_err());
        std::thread::sleep(std::time::Duration::from_millis(100));
        let other = World { cancel: Cancel::default(), ..in_graph("wait") };
        let cancel = other.cancel.clone();
        let waiting = scope.spawn(move || {
            let mut second = second;
            let error = add(&other, &mut second, 1).unwrap_err();
            (other, second, error)
        });
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!waiting.is_finished(), "one call at a time runs in an instance");
        cancel.cancel();
        let (_, mut second, error) = waiting.join().unwrap();
        assert!(matches!(error, Error::Cancelled));
        world.cancel.cancel();
        assert!(matches!(running.join().unwrap(), Error::Cancelled));
        assert_eq!(add(&in_graph("wait"), &mut second, 1).unwrap(), 1, "it begins anew");
    });
}

/// What is kept must leave room for calls: beyond half of the memory, instances share another one.
#[test]
fn an_instance_of_the_component_that_is_full_takes_no_more_nodes() {
    let mut world = in_graph("room");
    world.limits.memory = 64 << 20;
    let mut first = open(&world, "good.shared");
    assert_eq!(add(&world, &mut first, 1).unwrap(), 1);
    let mut large = open(&world, "good.keep");
    let tensor = Tensor::zeros(10 << 20, DType::F32, &Device::Cpu).unwrap();
    world
        .call(|call| {
            large.run(call, &[Some(Value::Tensor(tensor))])?;
            large.charge_retained(call)
        })
        .unwrap();
    assert_eq!(add(&world, &mut open(&world, "good.shared"), 1).unwrap(), 1, "another one");
    assert_eq!(add(&world, &mut first, 1).unwrap(), 2);
}
