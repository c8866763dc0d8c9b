//! What travels through ports: Rust types, and how they become values of the engine and back.

use crate::node::PortSpec;
use crate::{Error, Result, Value, ValueKind};

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
