//! How much of a disk frames may take.

use std::path::Path;

/// At least so much of a disk is left to others, or half of what is free.
const SPILL_RESERVE: u64 = 1 << 30;

/// What frames may take of the disk that `folder` lies on: what is free there, less an eighth and
/// at least a gigabyte, but no more than half. Without a limit where the system does not say.
pub fn spill_room(folder: &Path) -> u64 {
    let Some(free) = folder.ancestors().find_map(free_bytes) else { return u64::MAX };
    free - (free / 8).max(SPILL_RESERVE.min(free / 2))
}

/// The bytes that are free on the disk that a folder lies on; none where there is no such folder.
#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_folder: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_files_leave_a_part_of_the_disk_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let room = spill_room(folder.path());
        assert!(spill_room(Path::new("/no/such/folder")) > 0);
        #[cfg(unix)]
        {
            let free = free_bytes(folder.path()).unwrap();
            assert!(room < free, "{room} of {free}");
        }
    }
}
