//! The space that a latent lies in.

use serde::{Deserialize, Serialize};

/// The latent space of one autoencoder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatentSpace {
    /// The fingerprint of the autoencoder's configuration and weights.
    pub id: [u8; 32],
    /// Channels of a latent.
    pub channels: usize,
    /// Frames a latent frame stands for, but for the first, which stands for one.
    pub temporal: usize,
    /// Pixels a side that a latent pixel stands for.
    pub spatial: usize,
}
