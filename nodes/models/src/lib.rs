//! kino-models.
