//! kino.
fn main() {}
