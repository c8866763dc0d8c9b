//! Looks at a library's file before any of its code runs.

use kino_node::{Error, Result};
use object::{Object, ObjectSection, ObjectSegment};

/// Refuses what is no library, was cut off, or exports no entry.
///
/// The dynamic loader maps a file without asking whether it is all there, and a page that is
/// missing kills the process; hence every part is looked up here.
///
/// # Errors
/// What is wrong with the file.
pub(crate) fn inspect(bytes: &[u8]) -> Result<()> {
    if bytes.is_empty() {
        return Err(cut("it is empty"));
    }
    let file = object::File::parse(bytes).map_err(|error| {
        if STARTS.iter().any(|start| bytes.starts_with(start)) {
            return cut(&error.to_string());
        }
        Error::advised(
            format!("it is no native library of this platform: {error}"),
            "build the plugin again: `kino plugin build`",
        )
    })?;
    if file.architecture() != architecture() {
        return Err(Error::failed(format!("it is built for {:?}", file.architecture())));
    }
    for segment in file.segments() {
        segment.data().map_err(|_| cut("a segment lies beyond its end"))?;
    }
    for section in file.sections() {
        section.data().map_err(|_| cut("a section lies beyond its end"))?;
    }
    let exports = file.exports().map_err(|error| cut(&error.to_string()))?;
    // Mach-O puts an underscore before every name.
    let is_entry = |name: &[u8]| name.strip_prefix(b"_").unwrap_or(name) == kino_abi::ENTRY;
    if exports.iter().any(|export| is_entry(export.name())) {
        return Ok(());
    }
    // Names as compilers of C++ write them: of the Itanium ABI, and Microsoft's.
    let is_mangled = |name: &[u8]| {
        let name = name.strip_prefix(b"_").unwrap_or(name);
        [&b"_Z11kino_plugin"[..], b"Z11kino_plugin", b"?kino_plugin@@"]
            .iter()
            .any(|start| name.starts_with(start))
    };
    if let Some(export) = exports.iter().find(|export| is_mangled(export.name())) {
        let name = String::from_utf8_lossy(export.name());
        return Err(Error::advised(
            format!("it is a library, but no plugin: it exports `{name}`, not `kino_plugin`"),
            "write extern \"C\" before the entry, or include kino_plugin.h, which declares it so",
        ));
    }
    Err(Error::advised(
        "it is a library, but no plugin: it exports no `kino_plugin`",
        "in Rust, `kino_plugin::plugin!(…)` makes the export, in a crate of type cdylib; in C and \
         C++, KINO_EXPORT does",
    ))
}

/// What ELF, Mach-O and PE files begin with.
const STARTS: [&[u8]; 3] = [b"\x7fELF", b"\xcf\xfa\xed\xfe", b"MZ"];

fn cut(what: &str) -> Error {
    Error::advised(
        format!("the library is damaged: {what}"),
        "it may still be being written; build it again if this stays",
    )
}

fn architecture() -> object::Architecture {
    match std::env::consts::ARCH {
        "x86_64" => object::Architecture::X86_64,
        "aarch64" => object::Architecture::Aarch64,
        "riscv64" => object::Architecture::Riscv64,
        _ => object::Architecture::Unknown,
    }
}
