//! kino-node.
