//! What both tables begin with, in numbers.

/// What a plugin's table begins with: `KINOPLUG` in ASCII, read as a little-endian number.
pub const KINO_MAGIC: u64 = 0x47554C504F4E494B;
/// The major version of the contract: host and plugin must have the same.
pub const KINO_MAJOR: u32 = 2;
/// The minor version of the contract: it only adds.
pub const KINO_MINOR: u32 = 0;
