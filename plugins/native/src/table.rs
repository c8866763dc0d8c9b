//! The table of functions that plugins call. Every function holds its own panics: nothing unwinds
//! into a plugin.

mod call;
mod pass;
mod tensors;
mod values;

use std::sync::OnceLock;

use kino_abi::{KINO_MAJOR, KINO_MINOR, KinoHost};

pub(crate) use call::{ActiveCall, entry_error};
pub(crate) use pass::{bytes, from_raw, into_raw};

use call::{cancelled, error, fail, log, progress, read_file, stream, wants};
use pass::lent;
use tensors::{
    new_frames, new_tensor, new_tensor_unwritten, op, push_frames, view_tensor, write_tensor,
};
use values::{
    field, get_bytes, get_int, get_real, item, kind, len, new_bool, new_bytes, new_int, new_list,
    new_real, new_record, new_text, release, retain, type_name,
};

/// The table; it lives as long as the process.
pub(crate) fn host() -> &'static KinoHost {
    static WORDS: OnceLock<String> = OnceLock::new();
    static HOST: OnceLock<Host> = OnceLock::new();
    let words = WORDS.get_or_init(|| {
        let ops = kino_host::ops::NAMES.iter().map(|name| format!("op.{name}"));
        ops.collect::<Vec<_>>().join(" ")
    });
    &HOST
        .get_or_init(|| {
            Host(KinoHost {
                size: size_of::<KinoHost>(),
                major: KINO_MAJOR,
                minor: KINO_MINOR,
                capabilities: lent(words.as_bytes()),
                fail,
                error,
                log,
                progress,
                cancelled,
                wants,
                stream,
                read_file,
                retain,
                release,
                kind,
                type_name,
                get_int,
                get_real,
                get_bytes,
                len,
                item,
                field,
                new_text,
                new_bytes,
                new_int,
                new_real,
                new_bool,
                new_list,
                new_record,
                new_frames,
                push_frames,
                new_tensor,
                view_tensor,
                write_tensor,
                op,
                new_tensor_unwritten,
            })
        })
        .0
}

/// The table holds pointers to texts that never change.
struct Host(KinoHost);
// SAFETY: the table is never written after it was made, and its texts are static.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}
