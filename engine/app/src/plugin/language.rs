//! The languages that plugins can be begun in, each with the files of a new plugin.

use super::args::New;

/// A language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Rust,
    Python,
    JavaScript,
    C,
    Cpp,
    Zig,
}

/// What a file of a new plugin holds.
pub(crate) enum Text {
    /// A text in which NAME is the plugin's name, LIBRARY its library's, and DEPENDENCY where
    /// cargo finds the SDK.
    Template(&'static str),
    /// The contract, or what is made of it for a language: the same in each plugin.
    Verbatim(&'static str),
}

use Text::{Template, Verbatim};

const RUST: &[(&str, Text)] = &[
    ("Cargo.toml", Template(include_str!("template/rust/Cargo.toml.txt"))),
    ("src/lib.rs", Template(include_str!("template/rust/lib.rs.txt"))),
    ("README.md", Template(include_str!("template/rust/README.md"))),
];
const PYTHON: &[(&str, Text)] = &[
    ("node.py", Template(include_str!("template/python/node.py"))),
    ("Makefile", Template(include_str!("template/python/Makefile"))),
    ("README.md", Template(include_str!("template/python/README.md"))),
    ("kino.py", Verbatim(include_str!("../../../../plugins/sdk/python/kino.py"))),
    ("wit/kino-plugin.wit", Verbatim(kino_abi::WIT)),
];
const JAVASCRIPT: &[(&str, Text)] = &[
    ("node.js", Template(include_str!("template/js/node.js"))),
    ("Makefile", Template(include_str!("template/js/Makefile"))),
    ("README.md", Template(include_str!("template/js/README.md"))),
    ("kino.js", Verbatim(include_str!("../../../../plugins/sdk/js/kino.js"))),
    ("wit/kino-plugin.wit", Verbatim(kino_abi::WIT)),
];
const C: &[(&str, Text)] = &[
    ("plugin.c", Template(include_str!("template/c/plugin.c"))),
    ("Makefile", Template(include_str!("template/c/Makefile"))),
    ("README.md", Template(include_str!("template/c/README.md"))),
    ("kino_plugin.h", Verbatim(kino_abi::HEADER)),
];
const CPP: &[(&str, Text)] = &[
    ("plugin.cpp", Template(include_str!("template/cpp/plugin.cpp"))),
    ("Makefile", Template(include_str!("template/cpp/Makefile"))),
    ("README.md", Template(include_str!("template/cpp/README.md"))),
    ("kino.hpp", Verbatim(include_str!("../../../../plugins/sdk/cpp/kino.hpp"))),
    ("kino_plugin.h", Verbatim(kino_abi::HEADER)),
];
const ZIG: &[(&str, Text)] = &[
    ("plugin.zig", Template(include_str!("template/zig/plugin.zig"))),
    ("Makefile", Template(include_str!("template/zig/Makefile"))),
    ("README.md", Template(include_str!("template/zig/README.md"))),
    ("kino.zig", Verbatim(include_str!("../../../../plugins/sdk/zig/kino.zig"))),
    ("kino_plugin.h", Verbatim(kino_abi::HEADER)),
];

impl Language {
    /// The language that was asked for; Rust unless one was.
    pub(crate) fn of(args: &New) -> Self {
        let asked = [
            (args.python, Language::Python),
            (args.js, Language::JavaScript),
            (args.c, Language::C),
            (args.cpp, Language::Cpp),
            (args.zig, Language::Zig),
        ];
        asked.into_iter().find(|(asked, _)| *asked).map_or(Language::Rust, |(_, language)| language)
    }

    /// Whether a new plugin in it is a component alone; it is a native library otherwise.
    pub(crate) fn is_component(self) -> bool {
        matches!(self, Language::Python | Language::JavaScript)
    }

    /// The files of a new plugin beside those that every plugin has.
    pub(crate) fn files(self) -> &'static [(&'static str, Text)] {
        match self {
            Language::Rust => RUST,
            Language::Python => PYTHON,
            Language::JavaScript => JAVASCRIPT,
            Language::C => C,
            Language::Cpp => CPP,
            Language::Zig => ZIG,
        }
    }
}
