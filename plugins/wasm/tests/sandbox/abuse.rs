//! What plugins try in vain. Each case ends as an error of that call, and the engine serves on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kino_host::Module;
use kino_node::{Error, Value};

use crate::{World, guests, text};

/// A good call on the same engine.
#[track_caller]
fn serves_on() {
    let outcome = World::new().run("good.empty", None);
    assert!(matches!(outcome, Ok(Some(Value::Int(1)))), "{outcome:?}");
}

#[track_caller]
fn fails(world: &World, node: &str, input: Option<Value>, expected: &str) {
    let error = world.run(node, input).map(|value| format!("{value:?}")).unwrap_err();
    let error = text(&error);
    assert!(error.contains(expected), "{node}: {error}");
    serves_on();
}

#[test]
fn time_is_enforced() {
    for node in ["abuse.loop", "abuse.sleep", "abuse.long_op"] {
        let begun = Instant::now();
        let world = World::new().seconds(0.2);
        fails(&world, node, None, "it took longer than the 0.2 s it may take");
        fails(&world, node, None, "`kino plugin trust guests --seconds 2` lets it take longer");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
}

#[test]
fn cancelling_takes_effect_wherever_the_plugin_is() {
    for node in ["abuse.loop", "abuse.sleep", "abuse.long_op"] {
        let world = World::new();
        let cancel = world.cancel.clone();
        let canceller = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            cancel.cancel();
        });
        assert!(matches!(world.run(node, None), Err(Error::Cancelled)), "{node}");
        canceller.join().unwrap();
        serves_on();
    }
}

#[test]
fn memory_is_enforced() {
    let world = World::new();
    fails(&world, "abuse.memory", None, "the plugin `guests` needs more than the 256 MB");
    fails(&world, "abuse.memory", None, "`kino plugin trust guests --memory 1024MB`");
    fails(&world, "abuse.tensors", None, "left of its memory");
    fails(&world, "abuse.bytes", None, "left of its memory");
    fails(&world, "abuse.op", None, "bytes that are allowed");
    fails(&world, "abuse.views", None, "bytes that are allowed");
    fails(&world, "abuse.records", None, "left of its memory");
    fails(&world, "abuse.no_pixels", None, "frames have no pixels");
    let mut small = World::new();
    small.limits.memory = 4 << 20;
    fails(&small, "abuse.frames", None, "that a call may make");
    fails(&small, "abuse.chunks", None, "left of its memory");
    for (which, expected) in [
        (0, "left of its memory"),
        (1, "no tensor has the shape"),
        (2, "at most 8 are possible"),
        (3, "no tensor has the shape"),
    ] {
        fails(&world, "abuse.tensor", Some(Value::Int(which)), expected);
    }
}

#[test]
fn memory_for_the_instance_itself_is_counted() {
    let mut world = World::new();
    world.limits.memory = 1 << 16;
    let error = world.run("good.empty", None).unwrap_err();
    assert!(text(&error).contains("needs more than the 1 MB"), "{}", text(&error));
    serves_on();
}

#[test]
fn handles_and_parts_of_values_are_bounded() {
    let world = World::new();
    fails(&world, "abuse.handles", None, "it holds more than 65536 values at a time");
    fails(&world, "abuse.deep", None, "too many parts");
    fails(&world, "abuse.wide", None, "too many parts");
    let mut deep = Value::Int(0);
    for _ in 0..100 {
        deep = Value::List(Arc::new([(None, deep)]));
    }
    fails(&world, "good.echo", Some(deep), "too many parts");
}

#[test]
fn traps_and_panics_are_errors_that_say_why() {
    let world = World::new();
    fails(&world, "abuse.recursion", None, "the plugin `guests` ran out of stack");
    fails(&world, "abuse.trap", None, "the plugin `guests` stopped itself");
    fails(&world, "abuse.panic_load", None, "panicked: it could not be loaded");
    fails(&world, "abuse.panic_run", None, "the plugin `guests` panicked: nobody knows why");
    fails(&world, "abuse.exit", None, "it ended itself");
    fails(&world, "abuse.refuse", None, "it will not\nask somebody else");
    fails(&world, "abuse.cancelled", None, "nobody cancelled it");
    fails(&world, "abuse.nothing", None, "there is no such node");
}

/// What a plugin said before it ended, without what runtimes say of every end.
#[test]
fn the_last_lines_of_stderr_are_told() {
    let world = World::new();
    let traceback = "the plugin `guests` panicked: ValueError: the clip is too dark\n  \
                     Traceback (most recent call last):\n    File \"/app.py\", line 12, in run\n";
    fails(&world, "abuse.traceback", None, traceback);
    let script = "panicked: Error: the clip is too dark\n  exception thrown while running post \
                  promise handlers\n    run@app.js:12:11\n";
    fails(&world, "abuse.script", None, script);
}

#[test]
fn nothing_of_the_system_can_be_reached() {
    let world = World::new();
    let path = Value::Text("../../../etc/passwd".into());
    fails(&world, "abuse.read_file", Some(path), "may not be read");
    fails(&world, "abuse.folder", None, "`wasi:filesystem/types#temporary`, which plugins may not");
    fails(&world, "abuse.network", None, "`wasi:sockets/tcp-create-socket#create-tcp-socket`");
    fails(
        &world,
        "abuse.http",
        None,
        "`wasi:http/types#[constructor]fields`, which plugins may not",
    );
    fails(&world, "abuse.random", None, "at once");
    fails(&world, "abuse.poll_nothing", None, "poll of nothing");
}

#[test]
fn handles_and_pieces_that_do_not_exist_are_refused() {
    let world = World::new();
    fails(&world, "abuse.stray", None, "the plugin `guests` broke the contract");
    fails(&world, "abuse.dropped", None, "the plugin `guests` broke the contract");
    fails(&world, "abuse.beyond", None, "the plugin `guests` broke the contract");
    fails(&world, "abuse.read", Some(Value::Int(1)), "expected a tensor");
    fails(&world, "abuse.read", Some(Value::Text("a".into())), "beyond");
    for (which, expected) in [(0, "has 8 bytes, found 7"), (1, "found 9"), (2, "of type `f8`")] {
        fails(&world, "abuse.exact", Some(Value::Int(which)), expected);
    }
    fails(&world, "abuse.call", None, "there is no function `nothing`");
    fails(&world, "abuse.attributes", None, "affine");
}

#[test]
fn a_flood_of_messages_is_dammed() {
    let world = World::new();
    fails(&world, "abuse.noise", None, "it went on");
    let log = world.log.lock().unwrap();
    assert!(log.iter().all(|(_, message)| message.len() < 20_000));
    assert!(log.iter().any(|(_, message)| message.contains("more messages were dropped")));
    assert!(log.len() < 100_000, "{}", log.len());
}

#[test]
fn an_instance_that_was_stopped_is_broken_and_one_that_failed_is_not() {
    let world = World::new();
    let broken = |node: &str| {
        world.call(|call| {
            let mut instance = guests().open(node, None, call).unwrap();
            assert!(instance.run(call, &[None]).is_err(), "{node}");
            let broken = instance.is_broken();
            if broken {
                let again = instance.run(call, &[None]).unwrap_err().to_string();
                assert_eq!(again, "this instance was stopped before");
            }
            broken
        })
    };
    assert!(broken("abuse.panic_run"));
    assert!(broken("abuse.exit"));
    assert!(!broken("abuse.cancelled"));
    assert!(!broken("good.gain"));
}

#[test]
fn more_outputs_than_promised_are_left_to_the_caller_to_refuse() {
    let world = World::new();
    let outputs = world.call(|call| guests().open("abuse.outputs", None, call)?.run(call, &[]));
    assert_eq!(outputs.unwrap().len(), 3);
}

#[test]
fn many_calls_at_the_same_time_do_not_disturb_each_other() {
    std::thread::scope(|scope| {
        for at in 0..8 {
            scope.spawn(move || {
                let world = World::new().seconds(if at == 0 { 0.3 } else { 60.0 });
                for turn in 0..200 {
                    let value = Some(Value::Int(turn));
                    let outcome = match at {
                        0 if turn == 0 => {
                            world.run("abuse.loop", None).err().map(|_| Value::Int(0))
                        }
                        1 => world.run("abuse.panic_run", None).err().map(|_| Value::Int(turn)),
                        _ => world.run("good.echo", value).unwrap(),
                    };
                    assert!(matches!(outcome, Some(Value::Int(found)) if found == turn));
                }
            });
        }
    });
}
