//! Nodes on frames of pixels, which they work on chunk by chunk.

mod area;
mod chunks;
mod info;
mod interpolate;
mod motion;
mod resize;
mod time;
mod upscale;

pub(crate) use area::{CROP, FIT};
pub(crate) use info::INFO;
pub(crate) use interpolate::INTERPOLATE;
pub(crate) use resize::RESIZE;
pub(crate) use time::{CONCAT, REVERSE, TRIM};
pub(crate) use upscale::UPSCALE;
