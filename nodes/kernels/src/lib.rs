//! kino-kernels.
