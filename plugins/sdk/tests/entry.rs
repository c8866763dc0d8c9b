//! The exported symbol: what the engine does with a plugin before it runs anything.

use std::mem::offset_of;
use std::ptr::null_mut;
use std::sync::Mutex;

use kino_abi::host_table::{error_from_raw, lend, lent_bytes};
use kino_abi::{
    HOST_SIZE_2_0, KINO_MAGIC, KINO_MAJOR, KINO_MINOR, KinoCall, KinoHost, KinoPlugin, KinoStr,
};
use kino_plugin::prelude::*;
use kino_plugin::testing;
use serde_json::{Value as Json, json};

/// Says hello. Politely.
#[node(id = "example.hello", version = "1.2.0", heavy, output = "greeting")]
fn hello(
    /// Whom to greet.
    #[param(default = "world", unit = "names")]
    name: String,
    #[param(default = 1, range = 1..=3, about = "How often.")] times: u8,
    #[param(default = 2, range = 0.5..)] weight: f64,
    depth: Option<Depth>,
    all: Option<Vec<Frames>>,
) -> Result<String> {
    let more = usize::from(depth.is_some()) + all.map_or(0, |all| all.len());
    Ok(format!("hello {name} {weight:.1}").repeat(usize::from(times) + more))
}

/// Distance of each pixel.
#[port_type("example.depth")]
struct Depth {
    tensor: Tensor,
}

#[node(id = "example.near", version = "1.0.0", like = "depth")]
fn near(depth: Depth) -> Depth {
    depth
}

kino_plugin::plugin!(hello, near);

unsafe extern "C" {
    fn kino_plugin(host: *const KinoHost) -> *const KinoPlugin;
}

static SAID: Mutex<String> = Mutex::new(String::new());

unsafe extern "C" fn fail(_: *mut KinoCall, message: KinoStr, _: KinoStr) {
    // SAFETY: the plugin lends the text.
    let text = unsafe { lent_bytes(message) };
    *SAID.lock().unwrap() = String::from_utf8_lossy(text).into_owned();
}

/// The reference host's table with a change, living as long as the process.
fn host(change: impl FnOnce(&mut KinoHost)) -> &'static KinoHost {
    // SAFETY: a table is plain data.
    let mut host = unsafe { std::ptr::read(testing::table()) };
    host.fail = fail;
    change(&mut host);
    Box::leak(Box::new(host))
}

fn load(host: &'static KinoHost) -> Option<&'static KinoPlugin> {
    // SAFETY: the table lives as long as the process; the plugin's is static.
    unsafe { kino_plugin(host).as_ref() }
}

/// What a host of 1.1 gives: 31 functions, of which `fail` stands where it stands now.
#[repr(C)]
struct HostOf1 {
    size: usize,
    version: [u32; 2],
    capabilities: KinoStr,
    fail: unsafe extern "C" fn(*mut KinoCall, KinoStr, KinoStr),
    others: [unsafe extern "C" fn() -> !; 31],
}

unsafe extern "C" fn never() -> ! {
    std::process::abort()
}

#[test]
fn the_entry_negotiates() {
    // SAFETY: null is allowed.
    assert!(unsafe { kino_plugin(std::ptr::null()) }.is_null());
    let old: &'static _ = Box::leak(Box::new(HostOf1 {
        size: size_of::<HostOf1>(),
        version: [1, 1],
        capabilities: lend(b""),
        fail,
        others: [never; 31],
    }));
    // SAFETY: it is as large as it says, and lives as long as the process.
    assert!(unsafe { kino_plugin((&raw const *old).cast()) }.is_null());
    let expected = "the plugin is built for version 2.0 of the contract, this Kinograph offers 1.1";
    assert_eq!(*SAID.lock().unwrap(), expected);
    assert!(load(host(|host| host.major = KINO_MAJOR + 1)).is_none());
    assert!(SAID.lock().unwrap().ends_with("offers 3.0"));
    assert!(load(host(|host| host.size = HOST_SIZE_2_0 - 8)).is_none());
    assert!(load(host(|host| host.size = offset_of!(KinoHost, fail))).is_none());
    assert!(load(host(|host| host.size = 8)).is_none());
    let newer = host(|host| {
        host.minor = KINO_MINOR + 1;
        host.size += 64;
    });
    let plugin = load(newer).expect("a newer minor version fits");
    assert_eq!((plugin.magic, plugin.major, plugin.minor), (KINO_MAGIC, KINO_MAJOR, KINO_MINOR));
    assert_eq!(plugin.size, size_of::<KinoPlugin>());
    let again = load(newer).unwrap();
    assert!(std::ptr::eq(plugin, again), "the table is static");
    refuses_unknown_nodes(plugin);
    check_descriptor(plugin);
}

fn refuses_unknown_nodes(plugin: &KinoPlugin) {
    let none = KinoStr { data: std::ptr::null(), len: 0 };
    let mut instance = null_mut();
    // SAFETY: strings are lent, the place is valid; the reference host allows a null call. The error
    // is one of its own, and was given away.
    let error = unsafe {
        let error = (plugin.open)(null_mut(), lend(b"example.bye"), none, &mut instance);
        error_from_raw(error).expect("it fails")
    };
    assert!(instance.is_null());
    assert_eq!(error.message, "there is no node `example.bye` here");
}

fn check_descriptor(plugin: &KinoPlugin) {
    // SAFETY: the descriptor lives as long as the plugin.
    let text = unsafe { lent_bytes(plugin.descriptor) };
    let found: Json = serde_json::from_slice(text).unwrap();
    let expected = json!({
        "nodes": [{
            "id": "example.hello",
            "version": "1.2.0",
            "about": "Says hello. Politely.",
            "heavy": true,
            "inputs": [
                {"name": "name", "type": "Text", "about": "Whom to greet.", "default": "world",
                 "unit": "names"},
                {"name": "times", "type": "Int", "about": "How often.", "default": 1,
                 "range": [1, 3]},
                {"name": "weight", "type": "Real", "default": 2.0, "range": [0.5, null]},
                {"name": "depth", "type": "example.depth", "arity": "optional"},
                {"name": "all", "type": "Frames", "arity": "optional_list"},
            ],
            "outputs": [{"name": "greeting", "type": "Text"}],
        }, {
            "id": "example.near",
            "version": "1.0.0",
            "about": "",
            "inputs": [{"name": "depth", "type": "example.depth"}],
            "outputs": [{"name": "depth", "type": "example.depth", "like": "depth"}],
        }],
        "types": [{"name": "example.depth", "about": "Distance of each pixel.",
            "fields": [{"name": "tensor", "type": "Tensor"}]}],
    });
    assert_eq!(found, expected, "{found:#}");
}

#[test]
fn a_usize_says_the_same_in_both_builds() {
    #[node(id = "example.many", version = "1.0.0")]
    fn many(#[param(default = 3)] count: usize) -> i64 {
        count as i64
    }
    let text = testing::descriptor::<many>().unwrap();
    let found: Json = serde_json::from_str(&text).unwrap();
    let port = if found["nodes"].is_array() { &found["nodes"][0] } else { &found };
    assert_eq!(port["inputs"][0]["range"], json!([0, u32::MAX]), "{found:#}");
}

#[test]
fn ports_of_one_name_are_refused() {
    #[node(id = "example.twins", version = "1.0.0")]
    fn twins(frames: Frames) -> (Frames, Frames) {
        (frames.clone(), frames)
    }
    let error = testing::descriptor::<twins>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "`example.twins` has two ports called `frames` (`outputs(\"a\", \"b\")` names outputs)"
    );
}
