//! Reads the table of a plugin, of whatever version it is.

use kino_abi::{KINO_MAGIC, KINO_MAJOR, KINO_MINOR, KinoPlugin, PLUGIN_SIZE_2_0};
use kino_node::{Error, Result};

/// What a table says. Nothing is believed before it was looked at, and nothing is read that lies
/// beyond the size that the table gives.
///
/// # Errors
/// When it is no table, of another major version, or one of its functions is missing.
///
/// # Safety
/// `table` points to memory that begins with the magic of a plugin or something else of eight
/// bytes. Where it is the magic, the table is as large as it says.
pub(crate) unsafe fn read(table: *const KinoPlugin) -> Result<KinoPlugin> {
    // SAFETY: the table begins with the magic in every version; it is read alone.
    let magic = unsafe { table.cast::<u64>().read_unaligned() };
    if magic != KINO_MAGIC || !table.is_aligned() {
        return Err(Error::failed("its entry gives no table of a Kinograph plugin"));
    }
    // SAFETY: `major` and `minor` follow the magic, `size` follows them, in every version.
    let (major, minor, size) = unsafe {
        (
            (&raw const (*table).major).read(),
            (&raw const (*table).minor).read(),
            (&raw const (*table).size).read(),
        )
    };
    if major != KINO_MAJOR {
        return Err(other_version(major, minor));
    }
    if size < PLUGIN_SIZE_2_0 {
        return Err(Error::failed(format!(
            "its table has {size} bytes, version 2.0 has {PLUGIN_SIZE_2_0}"
        )));
    }
    /// A function of version 2.0, which is read as a number before anything takes it for one.
    macro_rules! function {
        ($name:ident) => {{
            // SAFETY: the table is at least as large as that of version 2.0, which has it.
            let at = unsafe { &raw const (*table).$name };
            // SAFETY: as above; a number is whatever stands there.
            if unsafe { at.cast::<usize>().read() } == 0 {
                return Err(missing(stringify!($name)));
            }
            // SAFETY: as above; it is not null, and by the contract of this type.
            unsafe { at.read() }
        }};
    }
    // A field of a later version is read where `size` reaches it, and has a default elsewhere.
    Ok(KinoPlugin {
        magic,
        major,
        minor,
        size,
        // SAFETY: both are in the table of version 2.0.
        capabilities: unsafe { (&raw const (*table).capabilities).read() },
        // SAFETY: as above.
        descriptor: unsafe { (&raw const (*table).descriptor).read() },
        open: function!(open),
        run: function!(run),
        save: function!(save),
        close: function!(close),
        shutdown: function!(shutdown),
    })
}

fn missing(name: &str) -> Error {
    Error::advised(
        format!("its table has no `{name}`"),
        "a plugin has all functions of its table, also those that have nothing to do",
    )
}

fn other_version(major: u32, minor: u32) -> Error {
    Error::advised(
        format!(
            "it is built for version {major}.{minor} of the plugin contract, this Kinograph has \
             {KINO_MAJOR}.{KINO_MINOR}"
        ),
        if major > KINO_MAJOR {
            "use a newer Kinograph, or build the plugin with this one's SDK"
        } else {
            "build it again with this Kinograph's SDK (`kino plugin build`); a plugin in C or C++ \
             takes the kino_plugin.h that `kino plugin new --c` writes"
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: usize = PLUGIN_SIZE_2_0 / size_of::<usize>();

    /// The table of a plugin, as long as `words` say, whose functions are all there but for one.
    fn table(words: usize, size: usize, missing: Option<usize>) -> Vec<usize> {
        let mut table = vec![8; words];
        table[0] = KINO_MAGIC as usize;
        table[1] = KINO_MAJOR as usize;
        table[2] = size;
        if let Some(missing) = missing {
            table[WORDS - 5 + missing] = 0;
        }
        table
    }

    fn told(table: &[usize]) -> String {
        // SAFETY: it has magic and size, and is as large as it says, or says too little.
        match unsafe { read(table.as_ptr().cast()) } {
            Ok(plugin) => format!("{} bytes", plugin.size),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_table_is_read_as_far_as_it_goes() {
        let size = PLUGIN_SIZE_2_0;
        assert_eq!(size, 96, "the table of 2.0 never changes");
        assert_eq!(told(&table(WORDS, size, None)), "96 bytes");
        assert_eq!(told(&table(WORDS + 7, size + 56, None)), "152 bytes");
        assert_eq!(told(&table(3, 24, None)), "its table has 24 bytes, version 2.0 has 96");
        assert_eq!(told(&table(WORDS, 95, None)), "its table has 95 bytes, version 2.0 has 96");
        for (at, name) in ["open", "run", "save", "close", "shutdown"].iter().enumerate() {
            let found = told(&table(WORDS, size, Some(at)));
            assert_eq!(found, format!("its table has no `{name}`"));
        }
    }
}
