//! How much memory the machine gives this process, before anybody has said anything.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What is assumed where the system does not say.
const UNKNOWN: u64 = 8 << 30;
/// At least so much is left to the system, and to what nobody counts.
const RESERVE: u64 = 512 << 20;

/// The bytes that a process should use by default: what the machine has, or what its control group
/// (cgroup v1 or v2) allows, less a reserve of an eighth.
pub fn memory_of_machine() -> u64 {
    let own = told("/proc/self/cgroup").unwrap_or_default();
    let machine = told("/proc/meminfo").ok().and_then(|text| total(&text));
    let group = group_limit(&own, Path::new("/sys/fs/cgroup"));
    let all = machine.unwrap_or(UNKNOWN).min(group.unwrap_or(u64::MAX));
    all - (all / 8).max(RESERVE.min(all / 2))
}

/// The bytes of this process that lie in memory, where the system says.
pub fn resident_of_process() -> Option<u64> {
    of_process("VmRSS:")
}

/// The most bytes of this process that ever lay in memory, where the system says.
pub fn peak_of_process() -> Option<u64> {
    of_process("VmHWM:")
}

/// A file that the system makes up when it is read, and whose size it therefore does not say: at
/// once, since each call for a part of it costs more than the part.
fn told(path: impl AsRef<Path>) -> io::Result<String> {
    const ALL: usize = 1 << 13;
    let mut text = String::with_capacity(ALL);
    File::open(path)?.take(1 << 20).read_to_string(&mut text)?;
    Ok(text)
}

fn of_process(field: &str) -> Option<u64> {
    kib(&told("/proc/self/status").ok()?, field)
}

/// `MemTotal:       24576000 kB`
fn total(meminfo: &str) -> Option<u64> {
    kib(meminfo, "MemTotal:")
}

/// The bytes of a field that counts kilobytes.
fn kib(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The least limit of a group and of those around it. Lines of `/proc/self/cgroup` are
/// `0::/path` (v2) and `4:memory:/path` (v1).
fn group_limit(own: &str, root: &Path) -> Option<u64> {
    let limits = own.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        least(&root, path, file)
    });
    limits.min()
}

/// The least number that files of this name hold, from `path` under `root` up to `root`. Within a
/// container the path is often that of the host, and only the root is there.
fn least(root: &Path, path: &str, file: &str) -> Option<u64> {
    let mut folder: PathBuf = root.join(path.trim_start_matches('/'));
    let mut least: Option<u64> = None;
    loop {
        let text = told(folder.join(file)).ok();
        if let Some(limit) = text.and_then(|text| text.trim().parse::<u64>().ok()) {
            least = Some(least.map_or(limit, |least| least.min(limit)));
        }
        if folder == root || !folder.pop() {
            return least;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_least_limit_of_the_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(group_limit("0::/a/b\n", root.path()), None);
        write("a/b/memory.max", "max\n");
        assert_eq!(group_limit("0::/a/b\n", root.path()), None);
        write("a/memory.max", "2000\n");
        write("memory.max", "3000\n");
        assert_eq!(group_limit("0::/a/b\n", root.path()), Some(2000));
        assert_eq!(group_limit("0::/elsewhere\n", root.path()), Some(3000));
        write("memory/c/memory.limit_in_bytes", "1000\n");
        let both = "5:cpu,memory:/c\n1:name=systemd:/x\n0::/a\n";
        assert_eq!(group_limit(both, root.path()), Some(1000));
    }

    #[test]
    fn this_machine_has_memory() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       2048 kB\n"), Some(2 << 20));
        assert!(memory_of_machine() > 0);
    }
}
