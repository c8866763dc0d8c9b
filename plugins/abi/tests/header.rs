//! The header is what cbindgen makes of this crate, and compilers of C and C++ take it.

use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::Command;

use kino_abi::{
    HOST_SIZE_2_0, KINO_MAGIC, KINO_MAJOR, KINO_MINOR, KinoHost, KinoPlugin, PLUGIN_SIZE_2_0,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn generated() -> String {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).expect("the settings");
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_src(root().join("src/version.rs"))
        .with_src(root().join("src/tables.rs"))
        .generate()
        .expect("the crate is C");
    let mut text = Vec::new();
    bindings.write(&mut text);
    String::from_utf8(text).expect("text")
}

#[test]
fn the_header_is_generated_from_the_crate() {
    let path = root().join("include/kino_plugin.h");
    let header = generated();
    if std::env::var_os("KINO_BLESS").is_some() {
        std::fs::write(&path, &header).expect("the header is written");
    }
    let stands = std::fs::read_to_string(&path).expect("the header");
    assert!(stands == header, "kino_plugin.h is stale: run this test with KINO_BLESS=1");
}

/// The header says the version that this crate has.
#[test]
fn the_header_has_the_version_of_the_crate() {
    for line in [
        format!("#define KINO_MAGIC {KINO_MAGIC}\n"),
        format!("#define KINO_MAJOR {KINO_MAJOR}\n"),
        format!("#define KINO_MINOR {KINO_MINOR}\n"),
    ] {
        assert!(kino_abi::HEADER.contains(&line), "the header lacks {line}");
    }
}

/// A compiler, if this machine has it.
fn compiler(variable: &str, usual: &str) -> Option<String> {
    let name = std::env::var(variable).unwrap_or_else(|_| usual.into());
    let found = Command::new(&name).arg("--version").output();
    match found {
        Ok(out) if out.status.success() => Some(name),
        _ => {
            eprintln!("skipped: there is no `{name}` here ({variable} names another compiler)");
            None
        }
    }
}

/// Compiles a source that uses the header, and runs it.
fn run(compiler: &str, flags: &[&str], source: &Path, program: &Path) -> String {
    let out = Command::new(compiler)
        .args(flags)
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"])
        .arg(root().join("include"))
        .arg(source)
        .arg("-o")
        .arg(program)
        .output()
        .expect("a compiler");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{compiler} {flags:?}: {said}");
    let out = Command::new(program).output().expect("it runs");
    String::from_utf8(out.stdout).expect("text").trim().to_owned()
}

/// Everywhere the header may stand: alone, before and after DLPack's own header, and where that one
/// is found as `dlpack/dlpack.h`.
#[test]
fn compilers_of_c_and_cpp_take_the_header_beside_dlpack() {
    let ours = [
        size_of::<KinoPlugin>(),
        size_of::<KinoHost>(),
        size_of::<kino_abi::DLManagedTensorVersioned>(),
        offset_of!(KinoHost, op),
        offset_of!(KinoPlugin, shutdown),
    ];
    let ours = ours.map(|size| size.to_string()).join(" ");
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(at("published/dlpack")).expect("a folder");
    let dlpack = root().join("tests/c/dlpack.h");
    std::fs::copy(&dlpack, at("published/dlpack/dlpack.h")).expect("a file");
    let dlpack = format!("#include \"{}\"\n", dlpack.display());
    // Two headers of one file may include it each.
    let header = "#include \"kino_plugin.h\"\n#include \"kino_plugin.h\"\n";
    let write = |name: &str, includes: &[&str], language: &str| -> PathBuf {
        let path = at(&format!("{name}.{language}"));
        std::fs::write(&path, includes.concat() + SIZES).expect("a file");
        path
    };
    let mut tried = 0;
    for (variable, usual, language, standards) in
        [("CC", "cc", "c", &["-std=c11"][..]), ("CXX", "c++", "cpp", &["-std=c++17", "-std=c++20"])]
    {
        let Some(compiler) = compiler(variable, usual) else { continue };
        let alone = write("alone", &[header], language);
        let published = at("published");
        let published = ["-I", published.to_str().expect("a path")];
        for (source, more) in [
            (&alone, &[][..]),
            (&write("before", &[header, &dlpack], language), &[]),
            (&write("after", &[&dlpack, header], language), &[]),
            (&alone, &published),
            (&write("published", &[header, "#include <dlpack/dlpack.h>\n"], language), &published),
        ] {
            // The last standard takes all that the one before takes; each is tried alone.
            let standards =
                if source == &alone && more.is_empty() { standards } else { &standards[..1] };
            for standard in standards {
                let flags = [&[*standard], more].concat();
                assert_eq!(run(&compiler, &flags, source, &at("program")), ours, "{flags:?}");
                tried += 1;
            }
        }
    }
    eprintln!("compiled {tried} times");
}

/// An older DLPack has no such tensors, which is told.
#[test]
fn a_dlpack_that_is_too_old_is_refused_by_name() {
    let Some(compiler) = compiler("CC", "cc") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("old.c");
    std::fs::write(&source, "#define DLPACK_DLPACK_H_\n#include \"kino_plugin.h\"\n")
        .expect("a file");
    let out = Command::new(compiler)
        .args(["-std=c11", "-fsyntax-only", "-I"])
        .arg(root().join("include"))
        .arg(&source)
        .output()
        .expect("a compiler");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("kino_plugin.h needs DLPack 1.0 or later"), "{said}");
}

const SIZES: &str = r#"
#include <stddef.h>
#include <stdio.h>
static const KinoStr name = KINO_STR("gain");
static KinoError *not_here(KinoCall *call, KinoInstance *instance, KinoValue **state) {
    (void)call, (void)instance;
    *state = NULL;
    return NULL;
}
KINO_EXPORT const KinoPlugin *kino_plugin(const KinoHost *host) {
    static KinoPlugin plugin;
    DLDevice device = {kDLCPU, 0};
    DLDataType f32 = {kDLFloat, 32, 1};
    (void)device, (void)f32, (void)host;
    plugin.magic = KINO_MAGIC;
    plugin.save = not_here;
    return &plugin;
}
int main(void) {
    if (KINO_MAGIC != 0x47554C504F4E494B || kino_str("gain").len != name.len) return 1;
    printf("%zu %zu %zu %zu %zu\n", sizeof(KinoPlugin), sizeof(KinoHost),
           sizeof(DLManagedTensorVersioned), offsetof(KinoHost, op), offsetof(KinoPlugin, shutdown));
    return 0;
}
"#;

/// The layout of 2.0 for 64-bit machines, by hand: a field that moves breaks every plugin. What
/// stands before `open` and up to `fail` has the same place in every version.
#[test]
#[cfg(target_pointer_width = "64")]
fn the_layout_of_2_0_stays() {
    assert_eq!(PLUGIN_SIZE_2_0, 96);
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
    assert_eq!(
        [
            offset_of!(KinoHost, size),
            offset_of!(KinoHost, major),
            offset_of!(KinoHost, minor),
            offset_of!(KinoHost, capabilities),
        ],
        [0, 8, 12, 16]
    );
    macro_rules! places {
        ($($name:ident)*) => {
            [$((stringify!($name), offset_of!(KinoHost, $name))),*]
        };
    }
    let functions = places! {
        fail new_error error_message error_hint error_code release_error has log progress cancelled
        wants read_file retain release kind type_name get_i64 get_u64 get_wide get_f64 get_bool
        get_bytes len item field new_text new_bytes new_i64 new_u64 new_wide new_f64 new_bool
        new_list new_record view_tensor new_tensor_builder builder_view finish_tensor
        release_tensor_builder new_frames_builder push_frames finish_frames release_frames_builder
        op call stream device new_tensor_on take_tensor view_tensor_on
    };
    for (index, (name, at)) in functions.into_iter().enumerate() {
        assert_eq!(at, 32 + 8 * index, "{name}");
    }
    assert_eq!(HOST_SIZE_2_0, 32 + 8 * functions.len());
}
