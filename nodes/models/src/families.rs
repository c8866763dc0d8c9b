//! Families of models, each with its networks and configs.

pub mod wan;
