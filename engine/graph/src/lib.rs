//! kino-graph.
