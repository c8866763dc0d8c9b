//! What records of the engine's types hold, and which a plugin may make: the fields of
//! [`PortType::NAMED`], applied to what a plugin gives. How values are held is the host's affair.

use kino_port::{FieldContent, FieldPresence, FieldRule, PortType};

use crate::ops::{OpError, Operand, Result};
use crate::{ValueKind, code};

/// What the record of the embeddings of one prompt is called: it is a part of Conditioning, and
/// travels along no edge.
pub const EMBEDDINGS: &str = "Embeddings";

/// The most fields of a record.
pub const MAX_FIELDS: usize = 4096;

/// How deep values may lie in the fields that no type knows.
pub const MAX_DEPTH: usize = 32;

/// What a plugin gave as a field, as far as it must be known.
pub struct Found<'a> {
    /// What it is.
    pub kind: ValueKind,
    /// The name of its type.
    pub type_name: &'a str,
    /// The tensor that it is read as.
    pub tensor: Option<Operand<'a>>,
    /// The text that it is.
    pub text: Option<&'a str>,
    /// The number that it is.
    pub number: Option<f64>,
    /// The number of its items.
    pub len: usize,
}

/// The fields of the records of a type; none where plugins make no records of it.
pub fn rules(ty: &str) -> Option<&'static [FieldRule]> {
    if ty == EMBEDDINGS {
        return Some(FieldRule::EMBEDDINGS);
    }
    let row = PortType::NAMED.iter().find(|row| row.name == ty)?;
    Some(row.fields).filter(|fields| !fields.is_empty())
}

/// Refuses a type of which no records are made.
pub fn no_records(ty: &str) -> OpError {
    let makes = PortType::NAMED.iter().filter(|row| !row.fields.is_empty()).map(|row| row.name);
    let makes = makes.collect::<Vec<_>>().join(", ");
    OpError::new(format!("plugins make no records of type {ty}"))
        .hint(format!("{makes}, {EMBEDDINGS}, or an own type with a point in its name"))
}

/// Holds the names of the fields of a record against its rules: all that must be there are, and
/// none is there twice.
///
/// # Errors
/// When that is not so.
pub fn check_names(ty: &str, rules: &[FieldRule], names: &[&str]) -> Result<()> {
    if names.len() > MAX_FIELDS {
        let message = format!("{} fields: a record has at most {MAX_FIELDS}", names.len());
        return Err(OpError::new(message).code(code::LIMIT));
    }
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(OpError::new(format!("a record of type {ty} has one field `{}`", twice[0])));
    }
    let mut needed = rules.iter().filter(|rule| rule.presence == FieldPresence::Needed);
    match needed.find(|rule| !names.contains(&rule.name)) {
        Some(rule) => Err(OpError::new(format!(
            "a record of type {ty} needs `{}`: {}",
            rule.name,
            rule.expected()
        ))),
        None => Ok(()),
    }
}

/// Holds a field against its rule; the elements of tensors are left to the host.
///
/// # Errors
/// When it is of another kind, shape or range.
pub fn check_field(ty: &str, rule: &FieldRule, found: &Found<'_>) -> Result<()> {
    let at = |what: String| OpError::new(format!("{ty}.{}: {what}", rule.name));
    let expected = || at(format!("expected {}, found {}", rule.expected(), found.type_name));
    let wrong_kind = || expected().code(code::WRONG_KIND);
    let outside = |number: f64| at(format!("expected {}, found {number}", rule.expected()));
    match &rule.content {
        FieldContent::Tensor(tensor) => {
            let operand = found.tensor.ok_or_else(wrong_kind)?;
            tensor.fit(operand.dims).map(drop).map_err(at)
        }
        FieldContent::Text(choices) => match found.text {
            Some(text) if choices.is_empty() || choices.contains(&text) => Ok(()),
            Some(text) => {
                let text: String = text.chars().take(60).collect();
                Err(at(format!("expected one of {}, found {text:?}", choices.join(", "))))
            }
            None => Err(wrong_kind()),
        },
        FieldContent::Int { min, max } => match (found.kind, found.number) {
            (ValueKind::Int, Some(int)) if int >= *min as f64 && int <= *max as f64 => Ok(()),
            (ValueKind::Int, Some(int)) => Err(outside(int)),
            _ => Err(wrong_kind()),
        },
        FieldContent::Real { min, max } => match (found.kind, found.number) {
            (ValueKind::Int | ValueKind::Real, Some(real)) => {
                if real >= *min && real <= *max {
                    Ok(())
                } else {
                    Err(outside(real))
                }
            }
            _ => Err(wrong_kind()),
        },
        FieldContent::Sizes(count) => match found.kind {
            ValueKind::List if found.len == *count => Ok(()),
            ValueKind::List => Err(at(format!("expected {count} sizes, found {}", found.len))),
            _ => Err(wrong_kind()),
        },
        FieldContent::Chunks if found.kind == ValueKind::List => Ok(()),
        FieldContent::Frames if found.type_name == "Frames" => Ok(()),
        FieldContent::Embeddings if found.tensor.is_some() || found.type_name == EMBEDDINGS => {
            Ok(())
        }
        FieldContent::Opaque if found.kind == ValueKind::Opaque => Ok(()),
        _ => Err(wrong_kind()),
    }
}

/// The table of all types with fields, as DESCRIPTOR.md has it.
pub fn table() -> String {
    let mut table = String::from("| type | field | what | range | unit | given | |\n");
    table.push_str("|---|---|---|---|---|---|---|\n");
    let types = PortType::NAMED.iter().map(|row| (row.name, row.fields));
    for (name, fields) in types.chain([(EMBEDDINGS, FieldRule::EMBEDDINGS)]) {
        for (index, rule) in fields.iter().enumerate() {
            let ty = if index == 0 { format!("`{name}`") } else { String::new() };
            let given = match rule.presence {
                FieldPresence::Needed => "always",
                FieldPresence::Optional => "may be",
                FieldPresence::Derived => "by the host",
            };
            let (what, range) = (rule.what(), rule.range());
            let (unit, about) = (rule.unit, rule.about);
            table.push_str(&format!(
                "| {ty} | `{}` | {what} | {range} | {unit} | {given} | {about} |\n",
                rule.name
            ));
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    /// The documentation has the same table.
    #[test]
    fn the_descriptor_tells_the_same() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../abi/DESCRIPTOR.md");
        let text = std::fs::read_to_string(path).unwrap();
        let table = table();
        assert!(text.contains(&table), "plugins/abi/DESCRIPTOR.md: expected\n{table}");
    }

    /// What is read as a tensor has the shape and the range of the tensor that it stands for.
    #[test]
    fn a_field_that_is_the_tensor_has_its_rule() {
        for row in PortType::NAMED {
            let (Some(rule), Some(field)) = (&row.tensor, row.field("tensor")) else { continue };
            let FieldContent::Tensor(own) = &field.content else { panic!("{}", row.name) };
            assert_eq!((own.dims, own.elements), (rule.dims, rule.elements), "{}", row.name);
        }
    }

    fn found(kind: ValueKind, type_name: &str) -> Found<'_> {
        Found { kind, type_name, tensor: None, text: None, number: None, len: 0 }
    }

    #[track_caller]
    fn check(field: &str, found: &Found<'_>, expected: std::result::Result<(), &str>) {
        let (ty, name) = field.split_once('.').unwrap();
        let rule = rules(ty).unwrap().iter().find(|rule| rule.name == name).unwrap();
        let said = check_field(ty, rule, found).map_err(|error| error.message);
        assert_eq!(said, expected.map_err(str::to_owned));
    }

    #[test]
    fn fields_are_held_against_their_rules() {
        let tensor = |dims: &'static [usize]| Found {
            tensor: Some(Operand { dtype: DType::F32, dims }),
            ..found(ValueKind::Tensor, "Tensor")
        };
        check("Mask.tensor", &tensor(&[2, 4, 6]), Ok(()));
        check("Mask.tensor", &tensor(&[1, 2, 4, 6]), Ok(()));
        let shape = "Mask.tensor: a mask is [f, h, w] or [1, f, h, w], found a tensor [4]";
        check("Mask.tensor", &tensor(&[4]), Err(shape));
        let kind = "Mask.tensor: expected f32 [f, h, w] in 0…1, found Text";
        check("Mask.tensor", &found(ValueKind::Text, "Text"), Err(kind));
        let number = |kind, number| Found { number: Some(number), ..found(kind, "Real") };
        check("Given.strength", &number(ValueKind::Real, 0.5), Ok(()));
        check("Given.strength", &number(ValueKind::Int, 1.0), Ok(()));
        let range = "Given.strength: expected Real in 0…1, found 1.5";
        check("Given.strength", &number(ValueKind::Real, 1.5), Err(range));
        let nan = "Given.strength: expected Real in 0…1, found NaN";
        check("Given.strength", &number(ValueKind::Real, f64::NAN), Err(nan));
        let text = Found { text: Some("half"), ..found(ValueKind::Text, "Text") };
        let choice = "Given.encoding: expected one of apart, whole, found \"half\"";
        check("Given.encoding", &text, Err(choice));
        let missing = check_names("Mask", rules("Mask").unwrap(), &["mask"]).unwrap_err();
        let needs = "a record of type Mask needs `tensor`: f32 [f, h, w] in 0…1";
        assert_eq!(missing.message, needs);
        let twice = ["tensor", "note", "note"];
        let twice = check_names("Mask", rules("Mask").unwrap(), &twice).unwrap_err();
        assert_eq!(twice.message, "a record of type Mask has one field `note`");
    }
}
