//! The header is what cbindgen makes of this crate, and a C compiler takes it.

use std::path::Path;

fn generated() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("the settings");
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_src(root.join("src/dlpack.rs"))
        .with_src(root.join("src/tables.rs"))
        .generate()
        .expect("the crate is C");
    let mut text = Vec::new();
    bindings.write(&mut text);
    String::from_utf8(text).expect("text")
}

#[test]
fn the_header_is_generated_from_the_crate() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/kino_plugin.h");
    let header = generated();
    if std::env::var_os("KINO_BLESS").is_some() {
        std::fs::write(&path, &header).expect("the header is written");
    }
    let stands = std::fs::read_to_string(&path).expect("the header");
    assert!(stands == header, "kino_plugin.h is stale: run this test with KINO_BLESS=1");
}

#[test]
fn a_c_compiler_takes_the_header() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("uses.c");
    std::fs::write(&source, SIZES).expect("a file");
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let program = folder.path().join("uses");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let out = std::process::Command::new(compiler)
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(include)
        .arg(&source)
        .arg("-o")
        .arg(&program)
        .output()
        .expect("a C compiler");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let out = std::process::Command::new(program).output().expect("it runs");
    let found = String::from_utf8(out.stdout).expect("text");
    let ours = [
        size_of::<kino_abi::KinoPlugin>(),
        size_of::<kino_abi::KinoHost>(),
        size_of::<kino_abi::DLManagedTensorVersioned>(),
        std::mem::offset_of!(kino_abi::KinoHost, op),
        std::mem::offset_of!(kino_abi::KinoPlugin, shutdown),
    ];
    let ours: Vec<_> = ours.iter().map(ToString::to_string).collect();
    assert_eq!(found.trim(), ours.join(" "));
}

const SIZES: &str = r#"
#include <stddef.h>
#include <stdio.h>
#include "kino_plugin.h"
int main(void) {
    if (KINO_MAGIC != 0x47554C504F4E494Bull || KINO_MAJOR != 1) return 1;
    printf("%zu %zu %zu %zu %zu\n", sizeof(KinoPlugin), sizeof(KinoHost),
           sizeof(DLManagedTensorVersioned), offsetof(KinoHost, op), offsetof(KinoPlugin, shutdown));
    return 0;
}
"#;

/// The layout of 1.0 for 64-bit machines, by hand: a field that moves breaks every plugin.
#[test]
#[cfg(target_pointer_width = "64")]
fn the_layout_of_1_0_stays() {
    use kino_abi::{HOST_SIZE_1_0, KinoHost, KinoPlugin, PLUGIN_SIZE_1_0};
    use std::mem::offset_of;
    assert_eq!((PLUGIN_SIZE_1_0, HOST_SIZE_1_0), (96, 280));
    assert_eq!(
        [
            offset_of!(KinoPlugin, magic),
            offset_of!(KinoPlugin, major),
            offset_of!(KinoPlugin, minor),
            offset_of!(KinoPlugin, size),
            offset_of!(KinoPlugin, capabilities),
            offset_of!(KinoPlugin, descriptor),
            offset_of!(KinoPlugin, open),
            offset_of!(KinoPlugin, run),
            offset_of!(KinoPlugin, save),
            offset_of!(KinoPlugin, close),
            offset_of!(KinoPlugin, shutdown),
        ],
        [0, 8, 12, 16, 24, 40, 56, 64, 72, 80, 88]
    );
    let first = offset_of!(KinoHost, fail);
    assert_eq!(first, 32);
    let functions = [
        offset_of!(KinoHost, error),
        offset_of!(KinoHost, log),
        offset_of!(KinoHost, progress),
        offset_of!(KinoHost, cancelled),
        offset_of!(KinoHost, wants),
        offset_of!(KinoHost, stream),
        offset_of!(KinoHost, read_file),
        offset_of!(KinoHost, retain),
        offset_of!(KinoHost, release),
        offset_of!(KinoHost, kind),
        offset_of!(KinoHost, type_name),
        offset_of!(KinoHost, get_int),
        offset_of!(KinoHost, get_real),
        offset_of!(KinoHost, get_bytes),
        offset_of!(KinoHost, len),
        offset_of!(KinoHost, item),
        offset_of!(KinoHost, field),
        offset_of!(KinoHost, new_text),
        offset_of!(KinoHost, new_bytes),
        offset_of!(KinoHost, new_int),
        offset_of!(KinoHost, new_real),
        offset_of!(KinoHost, new_bool),
        offset_of!(KinoHost, new_list),
        offset_of!(KinoHost, new_record),
        offset_of!(KinoHost, new_frames),
        offset_of!(KinoHost, push_frames),
        offset_of!(KinoHost, new_tensor),
        offset_of!(KinoHost, view_tensor),
        offset_of!(KinoHost, write_tensor),
        offset_of!(KinoHost, op),
    ];
    for (index, at) in functions.into_iter().enumerate() {
        assert_eq!(at, first + 8 * (index + 1), "function {index}");
    }
}
