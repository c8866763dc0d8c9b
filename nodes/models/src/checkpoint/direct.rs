//! Reading past the system's cache (`O_DIRECT`), where system and file system know how: the disk
//! writes into memory of ours, and no page is filled, copied and dropped on the way. It knows
//! nothing of what it reads.

use std::cell::RefCell;
use std::fs::File;
use std::io::ErrorKind;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use bytemuck::{Pod, Zeroable};

/// What places, lengths and memory are multiples of: enough for every disk that there is.
const PAGE: usize = 4096;
/// The most pages that are asked for at a time.
const MOST_PAGES: usize = 1024;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

thread_local! {
    /// What was read, before it is copied to where it is wanted, which may begin anywhere.
    static ROOM: RefCell<Vec<Page>> = const { RefCell::new(Vec::new()) };
}

/// A file that is read past the cache, opened when it first is.
#[derive(Debug, Default)]
pub(super) struct DirectFile {
    file: OnceLock<Option<File>>,
    refused: AtomicBool,
}

impl DirectFile {
    /// Fills `buffer` with the bytes of `file` from `offset` on; says whether that could be done. It
    /// is always the same `file`, opened again.
    ///
    /// # Errors
    /// When the file ends before, or the disk fails.
    pub(super) fn read(
        &self,
        file: &File,
        offset: u64,
        buffer: &mut [u8],
    ) -> std::io::Result<bool> {
        let Some(direct) = self.file.get_or_init(|| reopened(file)) else { return Ok(false) };
        if self.refused.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match read_at(direct, offset, buffer) {
            // Some file systems open such files, and then read nothing of them.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                self.refused.store(true, Ordering::Relaxed);
                Ok(false)
            }
            read => read.map(|()| true),
        }
    }
}

/// The same file, whatever its name leads to by now; none where it is not read this way.
#[cfg(target_os = "linux")]
fn reopened(file: &File) -> Option<File> {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = File::options();
    options.read(true).custom_flags(rustix::fs::OFlags::DIRECT.bits().cast_signed());
    options.open(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()
}

/// The same file, whatever its name leads to by now; none where it is not read this way.
#[cfg(not(target_os = "linux"))]
fn reopened(_: &File) -> Option<File> {
    None
}

fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
    let most = (MOST_PAGES - 1) * PAGE; // with what lies before it in its first page: whole pages
    for (index, part) in buffer.chunks_mut(most).enumerate() {
        let first = offset + (index * most) as u64;
        let skipped = (first % PAGE as u64) as usize;
        let needed = skipped + part.len();
        ROOM.with_borrow_mut(|room| {
            let pages = needed.div_ceil(PAGE);
            room.resize(room.len().max(pages), Page::zeroed());
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut room[..pages]);
            read_pages(file, first - skipped as u64, needed, bytes)?;
            part.copy_from_slice(&bytes[skipped..needed]);
            Ok::<(), std::io::Error>(())
        })?;
    }
    Ok(())
}

/// Fills `pages` from `offset` on, at least `needed` bytes of them: the file may end in the last.
#[cfg(unix)]
fn read_pages(file: &File, offset: u64, needed: usize, pages: &mut [u8]) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let mut filled = 0;
    while filled < needed {
        match file.read_at(&mut pages[filled..], offset + filled as u64) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Never called, since nothing is opened.
#[cfg(not(unix))]
fn read_pages(_: &File, _: u64, _: usize, _: &mut [u8]) -> std::io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_read_past_the_cache_as_they_are() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("weights");
        let bytes: Vec<u8> = (0..3 * MOST_PAGES * PAGE / 2 + 77).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = File::open(&path).unwrap();
        let direct = DirectFile::default();
        let end = bytes.len();
        for (from, to) in
            [(0, 1), (4095, 4097), (4096, 8192), (1, end), (end - 1, end), (end - 5000, end)]
        {
            let mut found = vec![0; to - from];
            if direct.read(&file, from as u64, &mut found).unwrap() {
                assert!(found == bytes[from..to], "{from}..{to}");
            }
        }
        let past = direct.read(&file, end as u64 - 1, &mut [0; 2]);
        assert!(past.map_or_else(|e| e.kind() == ErrorKind::UnexpectedEof, |read| !read));
    }

    #[test]
    fn a_file_that_is_not_read_this_way_says_so() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("weights"), [7; 9000]).unwrap();
        let file = File::open(place.path().join("weights")).unwrap();
        let refused = DirectFile { refused: true.into(), ..DirectFile::default() };
        let never_opened = DirectFile { file: OnceLock::from(None), ..DirectFile::default() };
        for direct in [refused, never_opened] {
            assert!(!direct.read(&file, 0, &mut [0; 10]).unwrap());
        }
    }
}
