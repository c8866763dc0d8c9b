//! Outputs of a graph, as people and programs read them.

use kino_node::{FileOut, Value};
use serde_json::{Map, Value as Json, json};

/// Outputs that are no files, a line each; files among `listed` have been told already.
pub(crate) fn as_text<'a>(
    outputs: &[(String, Value)],
    listed: impl Iterator<Item = &'a FileOut> + Clone,
) -> String {
    let mut text = String::new();
    for (name, value) in outputs {
        let told =
            matches!(value, Value::File(file) if listed.clone().any(|one| one.path == file.path));
        if !told {
            text.push_str(&format!("{name} = {value:?}\n"));
        }
    }
    text
}

/// All outputs by name: numbers and texts as they are, files by path and size, anything else by its
/// kind and shape.
pub(crate) fn as_json(outputs: &[(String, Value)]) -> Json {
    let outputs: Map<String, Json> =
        outputs.iter().map(|(name, value)| (name.clone(), one(value))).collect();
    Json::Object(outputs)
}

fn one(value: &Value) -> Json {
    match value {
        Value::Text(text) => json!(&**text),
        Value::Int(value) => {
            i64::try_from(*value).map_or_else(|_| json!(value.to_string()), Json::from)
        }
        Value::Real(value) => json!(value),
        Value::Bool(value) => json!(value),
        Value::File(file) => json!({ "path": file.path, "bytes": file.bytes, "hash": file.hash }),
        Value::List(items) => items.iter().map(|(_, item)| one(item)).collect(),
        other => json!({ "kind": other.kind(), "value": format!("{other:?}") }),
    }
}
