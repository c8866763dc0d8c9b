//! Runs nodes in plain tests, without the engine.
