//! kino-nodes.
