//! Units as types, so that a noise level is never taken for a timestep.

use std::fmt;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
        pub struct $name(pub f64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

unit! {
    /// A noise level of a rectified flow, unitless: 1 is pure noise, 0 is data.
    Sigma
}
unit! {
    /// What the transformer is told of the noise level: sigma × 1000.
    Timestep
}
unit! {
    /// How far the velocity is pushed from "without text" towards "with text"; 1 is not at all.
    Guidance
}
unit! {
    /// Frames a second.
    Fps
}
