//! Signatures: a node's name, help, ports and traits.

use std::borrow::Cow;

use crate::Port;

/// What a node is called, takes and gives. The graph knows nodes by this alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Signature {
    /// The name that graphs write as `op`, such as `dit.sample`.
    pub name: Cow<'static, str>,
    /// The version of what it computes; it enters every key, so raise it when results change.
    pub version: Cow<'static, str>,
    /// Help: the first sentence is the summary.
    pub about: Cow<'static, str>,
    /// The inputs, in the order of the documentation.
    pub inputs: Cow<'static, [Port]>,
    /// The outputs; an edge may name a node with one output alone.
    pub outputs: Cow<'static, [Port]>,
    /// How the engine treats it.
    pub traits: NodeTraits,
}

/// How the engine treats a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeTraits {
    /// It leaves something behind (a file), so it runs without being asked for.
    pub sink: bool,
    /// Its results are worth keeping on disk.
    pub expensive: bool,
    /// It occupies the whole device: one such step runs at a time.
    pub heavy: bool,
    /// It puts what its list input holds one after another: what `repeat` collects of that type is
    /// joined by it, and what waits for it may wait outside memory.
    pub joins: bool,
    /// Its results are the same on every device and machine: whole numbers, texts, single
    /// operations of IEEE 754, what is handed on. Its keys hold nothing of the machine.
    pub portable: bool,
}

impl NodeTraits {
    /// Neither sink, expensive nor heavy.
    pub const LIGHT: NodeTraits =
        NodeTraits { sink: false, expensive: false, heavy: false, joins: false, portable: false };
    /// Occupies the device, cheap enough to compute again.
    pub const HEAVY: NodeTraits = NodeTraits { heavy: true, ..NodeTraits::LIGHT };
    /// Occupies the device, and its results are kept on disk.
    pub const EXPENSIVE: NodeTraits = NodeTraits { expensive: true, ..NodeTraits::HEAVY };
    /// Writes a file.
    pub const SINK: NodeTraits = NodeTraits { sink: true, ..NodeTraits::LIGHT };
    /// Puts values of one type one after another.
    pub const JOINS: NodeTraits = NodeTraits { joins: true, ..NodeTraits::LIGHT };
    /// Computes the same on every machine.
    pub const PORTABLE: NodeTraits = NodeTraits { portable: true, ..NodeTraits::LIGHT };
}

impl Signature {
    /// The input of this name, with its index.
    pub fn input(&self, name: &str) -> Option<(usize, &Port)> {
        self.inputs.iter().enumerate().find(|(_, port)| port.name == name)
    }

    /// The output of this name, with its index.
    pub fn output(&self, name: &str) -> Option<(usize, &Port)> {
        self.outputs.iter().enumerate().find(|(_, port)| port.name == name)
    }

    /// The first sentence of the help.
    pub fn summary(&self) -> &str {
        let about = self.about.trim();
        about.find(". ").or(about.find(".\n")).map_or(about, |end| &about[..=end])
    }
}

/// A static list of ports: `ports![edge("dit", Dit), real("guidance", 4.0)]`.
#[macro_export]
macro_rules! ports {
    ($($port:expr),* $(,)?) => {
        ::std::borrow::Cow::Borrowed(const { &[$($port),*] as &[$crate::Port] })
    };
}
