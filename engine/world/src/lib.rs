//! kino-world.
