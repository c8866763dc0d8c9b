//! kino-shapes.
