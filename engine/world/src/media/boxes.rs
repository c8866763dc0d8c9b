//! The boxes of ISO base media files (ISO/IEC 14496-12): length, four letters, contents.

/// A box of contents.
pub(crate) fn boxed(kind: &[u8; 4], contents: &[&[u8]]) -> Vec<u8> {
    let length = 8 + contents.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend(kind);
    contents.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// A box with version 0 and flags.
pub(crate) fn full(kind: &[u8; 4], flags: u32, contents: &[&[u8]]) -> Vec<u8> {
    boxed(kind, &[&[&flags.to_be_bytes()[..]], contents].concat())
}

/// A box with a version and flags.
pub(crate) fn full_version(kind: &[u8; 4], version: u8, flags: u32, contents: &[&[u8]]) -> Vec<u8> {
    let head = (u32::from(version) << 24 | flags).to_be_bytes();
    boxed(kind, &[&[&head[..]], contents].concat())
}

/// The contents of the first box of this kind among `bytes`; broken lengths end the search.
pub(crate) fn find<'a>(mut bytes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    while bytes.len() >= 8 {
        let (head, _) = bytes.split_at(8);
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if length < 8 || length > bytes.len() {
            return None;
        }
        if head[4..] == *kind {
            return Some(&bytes[8..length]);
        }
        bytes = &bytes[length..];
    }
    None
}
