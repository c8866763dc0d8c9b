//! What travels through ports: Rust types, and how they become values of the engine and back.

use std::cell::RefCell;

use serde_json::{Map, Value as Json, json};

use crate::literal::{Bounds, Literal};
use crate::{Error, Result, Value, ValueKind};

/// A port as the descriptor shows it.
pub struct PortSpec {
    pub(crate) keys: Map<String, Json>,
    pub(crate) types: Vec<(String, Json)>,
    /// What is wrong with its attributes.
    pub(crate) fault: Option<String>,
}

impl PortSpec {
    fn new(name: &str, ty: String, about: &str) -> Self {
        let mut keys = Map::new();
        keys.insert("name".into(), name.into());
        keys.insert("type".into(), ty.into());
        if !about.is_empty() {
            keys.insert("about".into(), about.into());
        }
        PortSpec { keys, types: Vec::new(), fault: None }
    }

    /// An input.
    pub fn input<T: Input>(name: &str, about: &str) -> Self {
        let mut port = PortSpec::new(name, T::type_name(), about);
        if T::ARITY != "one" {
            port.keys.insert("arity".into(), T::ARITY.into());
        }
        if T::NAMED {
            port.keys.insert("named".into(), true.into());
        }
        T::describe(&mut port);
        port
    }

    /// An output; without a name it is called as its type is.
    pub fn output<T: Output>(name: &str, about: &str) -> Self {
        let ty = T::type_name();
        let named = if name.is_empty() { snake_case(&ty) } else { name.to_owned() };
        let mut port = PortSpec::new(&named, ty, about);
        let mut of_type = PortSpec::new("", String::new(), "");
        T::describe(&mut of_type);
        port.types = of_type.types;
        port
    }

    fn literal(&self, value: Json) -> Json {
        match (self.keys["type"].as_str(), value.as_f64()) {
            (Some("Real"), Some(number)) => Json::from(number),
            _ => value,
        }
    }

    /// With what it takes unless it is fed.
    #[must_use]
    pub fn default_value(mut self, value: impl Literal) -> Self {
        let value = self.literal(value.json());
        if value.is_null() {
            self.fault = Some("its default is no finite number, or beyond 64 bits".into());
        }
        self.keys.insert("default".into(), value);
        self
    }

    /// With a range, both ends included.
    #[must_use]
    pub fn range(self, range: impl Bounds) -> Self {
        let (least, most) = range.ends();
        self.ends(least, most)
    }

    /// With a range, both ends included; null is no end. A whole number stays within its type.
    #[must_use]
    pub fn ends(mut self, least: Json, most: Json) -> Self {
        let mut ends = [self.literal(least), self.literal(most)];
        if let Some(Json::Array(of_type)) = self.keys.get("range") {
            let int =
                |end: &Json| end.as_i64().map(i128::from).or_else(|| end.as_u64().map(i128::from));
            for (end, of_type) in ends.iter_mut().zip(of_type) {
                // Those of 64 bits say little, and what lies beyond is refused by the type itself.
                let says = int(of_type).is_some_and(|end| end.unsigned_abs() <= 1 << 32);
                if end.is_null() && says {
                    *end = of_type.clone();
                }
            }
            if let [Some(least), Some(most)] = [int(&of_type[0]), int(&of_type[1])]
                && !ends.iter().filter_map(int).all(|end| (least..=most).contains(&end))
            {
                let [from, to] = &ends;
                self.fault = Some(format!(
                    "its range, {from} to {to}, leaves that of its type, {least} to {most}"
                ));
            }
        }
        self.keys.insert("range".into(), json!(ends));
        self
    }

    /// With the range of its type.
    pub fn add_range(&mut self, least: Json, most: Json) {
        self.keys.insert("range".into(), json!([least, most]));
    }

    /// With another key of the descriptor.
    #[must_use]
    pub fn key(mut self, key: &str, value: impl Into<Json>) -> Self {
        self.keys.insert(key.into(), value.into());
        self
    }

    /// With the texts that fit.
    pub fn add_choices(&mut self, choices: &[&str]) {
        self.keys.insert("choices".into(), json!(choices));
    }

    /// With a type of this plugin, and the types of its fields; one that holds itself is told once.
    pub fn add_type(&mut self, name: &str, about: &str, fields: fn() -> Vec<PortSpec>) {
        thread_local! {
            static UNDER_WAY: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
        }
        if UNDER_WAY.with_borrow(|types| types.iter().any(|under_way| under_way == name)) {
            return;
        }
        UNDER_WAY.with_borrow_mut(|types| types.push(name.to_owned()));
        let fields = fields();
        UNDER_WAY.with_borrow_mut(Vec::pop);
        let mut told = Vec::new();
        for mut field in fields {
            self.types.append(&mut field.types);
            told.push(Json::Object(field.keys));
        }
        let told = json!({"name": name, "about": about, "fields": told});
        self.types.push((name.into(), told));
    }

    pub(crate) fn name(&self) -> &str {
        self.keys["name"].as_str().unwrap_or_default()
    }
}

/// A type that can travel through a port.
pub trait Typed {
    /// Its name in graphs: `Frames`, `Real`, `example.depth`.
    fn type_name() -> String;

    /// Adds what the type itself says of a port: choices, range, fields.
    fn describe(_port: &mut PortSpec) {}
}

/// A type that an input can have.
pub trait FromValue: Typed + Sized {
    /// Takes it from a value.
    ///
    /// # Errors
    /// When the value is something else.
    fn from_value(value: Value) -> Result<Self>;
}

/// A type that an output can have.
pub trait IntoValue: Typed {
    /// Makes it a value.
    ///
    /// # Errors
    /// When the engine cannot.
    fn into_value(self) -> Result<Value>;
}

impl<T: Typed> Typed for &T {
    fn type_name() -> String {
        T::type_name()
    }

    fn describe(port: &mut PortSpec) {
        T::describe(port);
    }
}

impl<T: IntoValue + Clone> IntoValue for &T {
    fn into_value(self) -> Result<Value> {
        self.clone().into_value()
    }
}

/// What ports of one value, of perhaps one, and of lists say of their type `T`.
macro_rules! of_type {
    ($name:expr) => {
        fn type_name() -> String {
            $name
        }

        fn describe(port: &mut PortSpec) {
            T::describe(port);
        }
    };
}

/// An input: one value, an `Option` of it, or a `Vec`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an input of a node",
    label = "expected a port type",
    note = "ports are String, &str, i64 and other whole numbers, f64, bool, Path, Frames, Latent, \
            Patches, Conditioning, ImageConditioning, Sigmas, Mask, Tensor, parts of models, Any, \
            types with #[port_type] or #[derive(Choice)], and Option, Vec or Vec<(String, _)> of one"
)]
pub trait Input: Sized {
    /// `one`, `optional`, `list` or `optional_list`.
    const ARITY: &'static str;

    /// Whether items of a list are told apart by their names.
    const NAMED: bool = false;

    /// The type of each value.
    fn type_name() -> String;

    /// Adds what the type says of the port.
    fn describe(port: &mut PortSpec);

    /// Takes it from what feeds the port.
    ///
    /// # Errors
    /// When nothing does though something must, or something else does.
    fn take(value: Option<Value>) -> Result<Self>;
}

fn missing<T>() -> Result<T> {
    Err(Error::new("nothing feeds it"))
}

impl<T: FromValue> Input for T {
    const ARITY: &'static str = "one";

    of_type!(<T as Typed>::type_name());

    fn take(value: Option<Value>) -> Result<Self> {
        value.map_or_else(missing, T::from_value)
    }
}

impl<T: FromValue> Input for Option<T> {
    const ARITY: &'static str = "optional";

    of_type!(<T as Typed>::type_name());

    fn take(value: Option<Value>) -> Result<Self> {
        value.map(T::from_value).transpose()
    }
}

impl<T: FromValue> Input for Vec<T> {
    const ARITY: &'static str = "list";

    of_type!(<T as Typed>::type_name());

    fn take(value: Option<Value>) -> Result<Self> {
        let items = <Vec<(String, T)> as Input>::take(value)?;
        Ok(items.into_iter().map(|(_, item)| item).collect())
    }
}

impl<T: FromValue> Input for Vec<(String, T)> {
    const ARITY: &'static str = "list";
    const NAMED: bool = true;

    of_type!(<T as Typed>::type_name());

    fn take(value: Option<Value>) -> Result<Self> {
        let Some(value) = value else { return missing() };
        if value.kind() != ValueKind::List {
            return Ok(vec![(String::new(), T::from_value(value)?)]);
        }
        let take = |index| {
            let (name, item) = value.item(index)?;
            let item = T::from_value(item).map_err(|error| error.at(format!("item {index}")))?;
            Ok((name, item))
        };
        (0..value.len()).map(take).collect()
    }
}

impl<T: FromValue> Input for Option<Vec<T>> {
    const ARITY: &'static str = "optional_list";

    of_type!(<T as Typed>::type_name());

    fn take(value: Option<Value>) -> Result<Self> {
        value.map(|value| <Vec<T> as Input>::take(Some(value))).transpose()
    }
}

impl<T: FromValue> Input for Option<Vec<(String, T)>> {
    const ARITY: &'static str = "optional_list";
    const NAMED: bool = true;

    of_type!(<T as Typed>::type_name());

    fn take(value: Option<Value>) -> Result<Self> {
        value.map(|value| <Vec<(String, T)> as Input>::take(Some(value))).transpose()
    }
}

/// An output: a value, an `Option` of it (none where it is not wanted), or a `Vec`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an output of a node",
    label = "expected a port type",
    note = "outputs are of the same types as inputs; several are a tuple, or a struct with \
            #[derive(Outputs)]"
)]
pub trait Output: Sized {
    /// Its type.
    fn type_name() -> String;

    /// Adds what the type says of the port.
    fn describe(port: &mut PortSpec);

    /// Makes it a value.
    ///
    /// # Errors
    /// When the engine cannot.
    fn give(self) -> Result<Option<Value>>;
}

impl<T: IntoValue> Output for T {
    of_type!(<T as Typed>::type_name());

    fn give(self) -> Result<Option<Value>> {
        self.into_value().map(Some)
    }
}

impl<T: IntoValue> Output for Option<T> {
    of_type!(<T as Typed>::type_name());

    fn give(self) -> Result<Option<Value>> {
        self.map(T::into_value).transpose()
    }
}

impl<T: IntoValue> Output for Vec<T> {
    of_type!(format!("List({})", <T as Typed>::type_name()));

    fn give(self) -> Result<Option<Value>> {
        let unnamed = self.into_iter().map(|item| (String::new(), item)).collect();
        <Vec<(String, T)> as Output>::give(unnamed)
    }
}

impl<T: IntoValue> Output for Option<Vec<T>> {
    of_type!(<Vec<T> as Output>::type_name());

    fn give(self) -> Result<Option<Value>> {
        self.map_or(Ok(None), Output::give)
    }
}

impl<T: IntoValue> Output for Option<Vec<(String, T)>> {
    of_type!(<Vec<T> as Output>::type_name());

    fn give(self) -> Result<Option<Value>> {
        self.map_or(Ok(None), Output::give)
    }
}

impl<T: IntoValue> Output for Vec<(String, T)> {
    of_type!(format!("List({})", <T as Typed>::type_name()));

    fn give(self) -> Result<Option<Value>> {
        let items: Vec<_> = self
            .into_iter()
            .map(|(name, item)| Ok((name, item.into_value()?)))
            .collect::<Result<_>>()?;
        let items: Vec<_> = items.iter().map(|(name, item)| (name.as_str(), item)).collect();
        Value::list(&items).map(Some)
    }
}

/// All outputs of a node: one, a tuple, or a struct with `#[derive(Outputs)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be what a node gives",
    label = "expected a port type, a tuple of them, or a struct with #[derive(Outputs)]"
)]
pub trait Outputs: Sized {
    /// The ports, named as the node's attribute says, else by their types.
    fn ports(names: &[&str]) -> Vec<PortSpec>;

    /// Makes them values, in the order of the ports.
    ///
    /// # Errors
    /// When the engine cannot.
    fn give_all(self) -> Result<Vec<Option<Value>>>;
}

impl<T: Output> Outputs for T {
    fn ports(names: &[&str]) -> Vec<PortSpec> {
        vec![PortSpec::output::<T>(names.first().copied().unwrap_or_default(), "")]
    }

    fn give_all(self) -> Result<Vec<Option<Value>>> {
        Ok(vec![self.give()?])
    }
}

macro_rules! tuples {
    ($($($part:ident $index:tt),*;)*) => {$(
        impl<$($part: Output),*> Outputs for ($($part,)*) {
            fn ports(names: &[&str]) -> Vec<PortSpec> {
                let name = |index: usize| names.get(index).copied().unwrap_or_default();
                vec![$(PortSpec::output::<$part>(name($index), "")),*]
            }

            fn give_all(self) -> Result<Vec<Option<Value>>> {
                Ok(vec![$(self.$index.give()?),*])
            }
        }
    )*};
}

tuples! {
    A 0, B 1;
    A 0, B 1, C 2;
    A 0, B 1, C 2, D 3;
    A 0, B 1, C 2, D 3, E 4;
    A 0, B 1, C 2, D 3, E 4, F 5;
}

/// `ImageConditioning` as `image_conditioning`, `example.depth` as `depth`, a list as its items.
fn snake_case(ty: &str) -> String {
    let ty = ty.strip_prefix("List(").and_then(|ty| ty.strip_suffix(')')).unwrap_or(ty);
    let ty = ty.rsplit('.').next().unwrap_or(ty);
    let mut name = String::new();
    for letter in ty.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}
