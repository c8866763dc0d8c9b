//! What every node says of itself: help on every port, defaults that fit, names that graphs can
//! write.

mod common;

use std::collections::HashSet;

use kino_nodes::NODES;
use kino_port::{Arity, Port, PortType};

/// The nodes that graphs can count on, in the order in which they are listed.
const EXPECTED: [&str; 43] = [
    "model.load",
    "lora.apply",
    "text.encode",
    "text.join",
    "text.pick",
    "text.generate",
    "image.encode",
    "latent.noise",
    "latent.blend",
    "patchify",
    "unpatchify",
    "schedule",
    "guide.cfg",
    "dit.sample",
    "vae.encode",
    "vae.decode",
    "given",
    "vace",
    "video.read",
    "video.write",
    "audio.read",
    "audio.trim",
    "audio.concat",
    "image.read",
    "image.write",
    "frames.resize",
    "frames.crop",
    "frames.fit",
    "frames.trim",
    "frames.concat",
    "frames.reverse",
    "frames.info",
    "frames.interpolate",
    "upscale",
    "mask.read",
    "mask.rect",
    "mask.feather",
    "mask.invert",
    "math",
    "switch",
    "repeat",
    "tensor.read",
    "tensor.write",
];

#[test]
fn the_list_holds_every_node_once() {
    let names: Vec<&str> = NODES.iter().map(|node| node.signature.name.as_ref()).collect();
    assert_eq!(names, EXPECTED);
}

fn is_word(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[test]
fn every_node_and_port_has_help() {
    for node in NODES {
        let signature = &node.signature;
        let name = &signature.name;
        assert!(name.split('.').all(is_word), "{name}");
        assert!(!signature.version.is_empty(), "{name}");
        let summary = signature.summary();
        assert!(summary.ends_with('.') && summary.len() > 15, "{name}: {summary:?}");
        let example = signature.about.split_once("\n\nExample:\n    ").map(|(_, example)| example);
        let example = example.unwrap_or_else(|| panic!("{name} shows no example"));
        assert!(example.contains(&format!("(op: \"{name}\", ")), "{name}: {example}");
        let ports = || signature.inputs.iter().chain(signature.outputs.iter());
        for port in ports() {
            assert!(is_word(&port.name), "{name}.{}", port.name);
            assert!(port.about.ends_with('.') && port.about.len() > 10, "{name}.{}", port.name);
            assert!(!port.about.contains('\n'), "{name}.{}: more than a line", port.name);
        }
        let unique: HashSet<_> = signature.inputs.iter().map(|port| &port.name).collect();
        assert_eq!(unique.len(), signature.inputs.len(), "{name}: a name twice");
    }
}

#[test]
fn defaults_fit_ranges_and_choices() {
    for node in NODES {
        for port in node.signature.inputs.iter() {
            let at = format!("{}.{}", node.signature.name, port.name);
            if let Some(default) = &port.default {
                let admitted = port.coerce(default.clone());
                assert_eq!(admitted.as_ref(), Ok(default), "{at}");
                assert_eq!(port.arity, Arity::One, "{at}: optional with a default");
            }
            assert!(port.choices.is_empty() || port.ty == PortType::Text, "{at}");
            check_number(port, &at);
        }
    }
}

/// Numbers with a unit of length, time or count say so; numbers have a range but in `math`.
fn check_number(port: &Port, at: &str) {
    if matches!(port.ty, PortType::Int | PortType::Real) {
        assert!(port.range.is_some(), "{at} has no range");
    } else {
        assert!(port.range.is_none() && port.unit.is_empty(), "{at}");
    }
    let sized = ["width", "height", "tile"].contains(&port.name.as_ref());
    assert!(!sized || port.unit == "px", "{at} is measured in pixels");
}

#[test]
fn sinks_write_files_and_expensive_nodes_compute() {
    for node in NODES {
        let signature = &node.signature;
        let writes = signature.outputs.iter().any(|port| port.ty == PortType::File);
        assert_eq!(signature.traits.sink, writes, "{}", signature.name);
        assert!(!signature.traits.expensive || signature.traits.heavy, "{}", signature.name);
    }
}
