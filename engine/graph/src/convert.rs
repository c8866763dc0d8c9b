//! Advice on which op turns one type into another.

use kino_port::PortType;

use crate::Catalog;

/// A hint at an op that turns one type into another, where there is one.
pub(crate) fn conversion(catalog: &dyn Catalog, from: &PortType, to: &PortType) -> Option<String> {
    let turns = |op: &&str| {
        let Some(signature) = catalog.signature(op) else { return false };
        signature.inputs.iter().any(|port| port.ty == *from)
            && signature.outputs.iter().any(|port| port.ty == *to)
    };
    if (from, to) == (&PortType::Real, &PortType::Int) {
        let op = "a `math` node with `op` \"floor\", \"ceil\" or \"round\" makes an Int of it";
        return Some(op.to_owned());
    }
    if from.is_literal() {
        // A text that a node also takes, such as a name, is nothing that it turns into its result.
        let text_for_path = (from, to) == (&PortType::Path, &PortType::Text);
        return text_for_path.then(|| "declare it as Text".to_owned());
    }
    let op = catalog.names().into_iter().find(turns)?;
    Some(format!("the node `{op}` turns {from} into {to}"))
}
