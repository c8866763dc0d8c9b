//! kino-tests.
