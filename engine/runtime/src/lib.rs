//! kino-runtime.
