//! What is wrong with a config, in words: which field, what stands there, what was expected.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// The longest value that a message shows, in characters.
const SHOWN: usize = 60;

/// Why JSON is no `T`. serde says of what is wrong neither which field it is, nor what a user would
/// call what was expected.
pub(super) fn reason<T: DeserializeOwned>(json: &[u8], error: &serde_json::Error) -> String {
    if error.classify() != serde_json::error::Category::Data {
        return format!("not JSON or cut off ({error}); download it again");
    }
    let said = error.to_string();
    let said = said.rsplit_once(" at line ").map_or(&*said, |(said, _)| said);
    let Ok(Value::Object(fields)) = serde_json::from_slice(json) else {
        return "expected an object, `{…}`, at the top".to_owned();
    };
    if let Some(field) = said.strip_prefix("missing field ") {
        return format!("{field} is missing");
    }
    match field_of::<T>(&fields) {
        Some((name, value)) => {
            let name = kino_port::escape_line(name);
            format!("`{name}` is {}; expected {}", shown(value), expected(said))
        }
        None => said.to_owned(),
    }
}

/// The field that is to blame: without it another error comes, or none.
fn field_of<T: DeserializeOwned>(
    fields: &serde_json::Map<String, Value>,
) -> Option<(&String, &Value)> {
    let error_of = |fields| serde_json::from_value::<T>(Value::Object(fields)).err();
    let whole = error_of(fields.clone())?.to_string();
    fields.iter().find(|(name, _)| {
        let mut others = fields.clone();
        others.remove(*name);
        error_of(others).is_none_or(|error| error.to_string() != whole)
    })
}

/// What serde expected, in words.
fn expected(said: &str) -> String {
    let Some((_, expected)) = said.rsplit_once(", expected ") else {
        return "another form".to_owned();
    };
    match expected {
        "usize" | "u8" | "u16" | "u32" | "u64" => "a whole number, 0 or more".to_owned(),
        "isize" | "i8" | "i16" | "i32" | "i64" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" | "str" => "a text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "an object, `{…}`".to_owned(),
        other => match other.rsplit_once("tuple of size ") {
            Some((_, size)) => format!("a list of {size}"),
            None if other.starts_with("struct ") => "an object, `{…}`".to_owned(),
            None => other.to_owned(),
        },
    }
}

/// A value as it stands in the file, or the beginning of a long one.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    let begin: String = text.chars().take(SHOWN).collect();
    let more = if begin.len() < text.len() { "…" } else { "" };
    format!("{}{more}", kino_port::escape_line(&begin))
}

/// A value that a config may leave out, as it stands there.
pub(crate) fn value_or_null(value: Option<impl std::fmt::Display>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    #[allow(dead_code)]
    struct Config {
        layers: usize,
        #[serde(default)]
        eps: f64,
        #[serde(default)]
        patch: Option<(usize, usize)>,
        #[serde(default)]
        is_causal: bool,
    }

    #[track_caller]
    fn check(json: &str, expect: &str) {
        let error = serde_json::from_str::<Config>(json).err().unwrap();
        assert_eq!(reason::<Config>(json.as_bytes(), &error), expect);
    }

    #[test]
    fn a_field_is_named_with_what_stands_there_and_what_was_expected() {
        let number = "expected a whole number, 0 or more";
        check(r#"{"a": 1, "layers": "40"}"#, &format!(r#"`layers` is "40"; {number}"#));
        check(r#"{"layers": -1}"#, &format!("`layers` is -1; {number}"));
        check(r#"{"layers": 1.5}"#, &format!("`layers` is 1.5; {number}"));
        check(r#"{"layers": null}"#, &format!("`layers` is null; {number}"));
        check(r#"{"layers": 1, "eps": "x"}"#, r#"`eps` is "x"; expected a number"#);
        check(r#"{"layers": 1, "patch": [1]}"#, "`patch` is [1]; expected a list of 2");
        check(r#"{"is_causal": 3, "layers": 1}"#, "`is_causal` is 3; expected true or false");
        check(r#"{"eps": 1}"#, "`layers` is missing");
        check("3", "expected an object, `{…}`, at the top");
        let long = format!(r#"{{"layers": "{}"}}"#, "x".repeat(500));
        check(&long, &format!("`layers` is \"{}…; {number}", "x".repeat(SHOWN - 1)));
        let error = serde_json::from_str::<Config>("{\"layers\":").err().unwrap();
        assert!(reason::<Config>(b"{\"layers\":", &error).contains("cut off"));
    }
}
