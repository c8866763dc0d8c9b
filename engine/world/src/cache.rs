//! Where caches lie, what belongs to the user, and where the user sets things.

use std::path::PathBuf;

/// The folder of all caches: `KINO_CACHE`, else `kinograph` in the user's cache folder, else in the
/// temporary folder.
pub fn cache_dir() -> PathBuf {
    match std::env::var_os("KINO_CACHE") {
        Some(folder) if !folder.is_empty() => PathBuf::from(folder),
        _ => dirs::cache_dir().unwrap_or_else(std::env::temp_dir).join("kinograph"),
    }
}

/// The folder of what the user sets: `KINO_CONFIG`, else `kinograph` in the user's config folder,
/// else in the temporary folder.
pub fn config_dir() -> PathBuf {
    match std::env::var_os("KINO_CONFIG") {
        Some(folder) if !folder.is_empty() => PathBuf::from(folder),
        _ => dirs::config_dir().unwrap_or_else(std::env::temp_dir).join("kinograph"),
    }
}

/// The folder of what belongs to the user: `KINO_DATA`, else `kinograph` in the user's data folder,
/// else in the temporary folder.
pub fn data_dir() -> PathBuf {
    match std::env::var_os("KINO_DATA") {
        Some(folder) if !folder.is_empty() => PathBuf::from(folder),
        _ => dirs::data_dir().unwrap_or_else(std::env::temp_dir).join("kinograph"),
    }
}
