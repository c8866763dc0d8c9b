//! What is drawn: boxes with ports, and wires between ports. Every format draws the same picture.

use kino_port::PortType;

/// A graph, ready to be drawn.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    /// The graph's own sentence.
    pub(crate) about: String,
    /// The boxes, in any order.
    pub(crate) boxes: Vec<Shape>,
    /// The wires.
    pub(crate) wires: Vec<Wire>,
}

/// What a box stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An input of the graph.
    Input,
    /// A node.
    Node,
    /// A node that leaves a file behind.
    Sink,
    /// An output of the graph.
    Output,
}

/// One box.
#[derive(Debug)]
pub(crate) struct Shape {
    /// What it stands for.
    pub(crate) kind: Kind,
    /// Its name in the graph.
    pub(crate) name: String,
    /// The node that it runs, or the type of an input.
    pub(crate) op: String,
    /// Inputs that are fed, by wires or by written values.
    pub(crate) inputs: Vec<Row>,
    /// Outputs.
    pub(crate) outputs: Vec<Row>,
}

/// One port of a box.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its name.
    pub(crate) name: String,
    /// What travels there.
    pub(crate) ty: PortType,
    /// The value written in the graph, where no wire comes in.
    pub(crate) value: Option<String>,
}

/// A wire from an output to an input.
#[derive(Debug)]
pub(crate) struct Wire {
    /// The box and the index of its output.
    pub(crate) from: (usize, usize),
    /// The box and the index of its input.
    pub(crate) to: (usize, usize),
    /// What travels there.
    pub(crate) ty: PortType,
}

/// A text cut to `most` characters, with an ellipsis where something was cut.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    let text = text.replace(['\n', '\r', '\t'], " ");
    if text.chars().count() <= most {
        return text;
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.truncate(short.trim_end().len());
    short.push('…');
    short
}

/// The colour of a type, as `#rrggbb`; types of one family are near each other.
pub(crate) fn colour(ty: &PortType) -> &'static str {
    match ty {
        PortType::Text | PortType::Path => "#b7791f",
        PortType::Int | PortType::Real | PortType::Bool => "#4a7c3a",
        PortType::TextEncoder | PortType::ImageEncoder => "#c05621",
        PortType::Dit => "#9b2c6f",
        PortType::Vae => "#a61e2e",
        PortType::Conditioning | PortType::ImageConditioning => "#d97706",
        PortType::Latent => "#c026a3",
        PortType::Patches => "#7c3aed",
        PortType::Given | PortType::Control => "#6d5bd0",
        PortType::Sigmas | PortType::Guider => "#0f766e",
        PortType::Frames => "#1d4ed8",
        PortType::Mask => "#0e7490",
        PortType::Audio => "#be185d",
        PortType::Tensor => "#4338ca",
        PortType::File => "#374151",
        PortType::List(of) => colour(of),
        PortType::Any | PortType::Custom(_) => "#6b7280",
    }
}
