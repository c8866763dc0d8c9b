//! `kino cache`: how much lies on disk, and removing it.

use crate::args::{self, CacheAction};
use crate::failure::{Exit, Failure};
use crate::json::json;
use crate::render::quantity::bytes;
use crate::screen::Screen;
use crate::setup;

/// Measures or empties the cache.
///
/// # Errors
/// When an entry cannot be removed, or the settings do not read.
pub(crate) fn run(args: &args::Cache, screen: &Screen) -> Result<Exit, Failure> {
    let settings = setup::settings()?;
    let folder = settings.cache_folder();
    let cache = kino_session::disk_cache(&settings);
    let shown = folder.display();
    match args.action {
        CacheAction::Size => {
            let size = cache.size();
            match screen.json {
                true => screen.print_json(&json!({ "folder": folder, "bytes": size }))?,
                false => screen.print(&format!("{}  {shown}\n", bytes(size)))?,
            }
        }
        CacheAction::Clear => {
            let freed = cache.clear().map_err(|error| {
                Failure::world(format!("the cache in {shown} cannot be emptied: {error}"))
            })?;
            match screen.json {
                true => screen.print_json(&json!({ "folder": folder, "freed": freed }))?,
                false => screen.print(&format!("freed {} in {shown}\n", bytes(freed)))?,
            }
        }
    }
    Ok(Exit::Good)
}
