//! One build of a native plugin: copied, examined, loaded, asked what it is, and its instances.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kino_abi::host_table::{from_raw, into_raw, lend, lent_bytes};
use kino_abi::{KinoEntry, KinoHost, KinoInstance, KinoPlugin, KinoStr, KinoValue};
use kino_host::{CallCx, Descriptor, Instance, Module, PluginError, PluginValue};
use kino_node::{Error, Result, Value};
use libloading::Library;

use crate::allocator::remember;
use crate::table::{ActiveCall, EngineValues, entry_error, host};
use crate::{inspect, negotiate};

/// A statement that the user trusts the native code of one file: whoever makes one answers for it.
#[derive(Clone, Copy, Debug)]
pub struct TrustedLibrary<'a> {
    /// The library.
    pub path: &'a Path,
    /// The sha256 of the file that was trusted, in hexadecimal; none trusts whatever stands there,
    /// for dev mode.
    pub sha256: Option<&'a str>,
}

/// A loaded build of a native plugin.
pub struct NativePlugin {
    loaded: Arc<Loaded>,
    descriptor: Descriptor,
    json: String,
    sha256: String,
}

/// What the table of a plugin says, whose code is mapped for ever.
struct Loaded {
    plugin: KinoPlugin,
}

// SAFETY: the contract lets functions of the table be called from any thread; the texts it points
// to never change.
unsafe impl Send for Loaded {}
// SAFETY: as above.
unsafe impl Sync for Loaded {}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: no instance is left, as each holds this; it is called once.
        unsafe { (self.plugin.shutdown)() };
    }
}

impl NativePlugin {
    /// Loads a build. Its code runs from here on.
    ///
    /// # Errors
    /// When the file is not the one that was trusted, is no plugin, was cut off, speaks another
    /// version of the contract, or does not describe itself.
    pub fn load(trusted: TrustedLibrary<'_>) -> Result<Self, PluginError> {
        Ok(Self::load_trusted(trusted)?)
    }

    /// As [`NativePlugin::load`], in the words of a worker.
    pub(crate) fn load_trusted(trusted: TrustedLibrary<'_>) -> Result<Self> {
        Self::load_by(trusted, host())
    }

    fn load_by(trusted: TrustedLibrary<'_>, host: &'static KinoHost) -> Result<Self> {
        let path = trusted.path;
        let at = |error: Error| error.within(path.display());
        let contents = kino_host::read_artifact(path);
        let contents = contents.map_err(|error| Error::failed(error.to_string()))?;
        let sha256 = kino_host::sha256_of(&contents);
        if trusted.sha256.is_some_and(|expected| expected != sha256) {
            return Err(at(Error::advised(
                "the file is another than the one that was trusted",
                "if that is meant, `kino plugin trust` accepts it",
            )));
        }
        inspect::inspect(&contents).map_err(at)?;
        let library = open_copy(path, &contents, &copy_folders()).map_err(at)?;
        let plugin = enter(library, host).map_err(at)?;
        // SAFETY: the descriptor lives as long as the library, which stays mapped.
        let json = unsafe { lent_bytes(plugin.descriptor) };
        let loaded = Arc::new(Loaded { plugin });
        let json = std::str::from_utf8(json)
            .map_err(|_| at(Error::failed("the plugin's descriptor is no UTF-8")))?;
        let descriptor = Descriptor::read(json).map_err(Error::failed).map_err(at)?;
        Ok(NativePlugin { loaded, descriptor, json: json.to_owned(), sha256 })
    }

    /// The descriptor as the plugin gave it.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The sha256 of the build, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

/// The folders where copies are made: that for temporary files, and the user's cache where nothing
/// in the first may be executed.
fn copy_folders() -> Vec<PathBuf> {
    let own = std::env::var_os("KINO_CACHE").filter(|folder| !folder.is_empty());
    let cache = own.map(PathBuf::from);
    let cache = cache.or_else(|| dirs::cache_dir().map(|folder| folder.join("kinograph")));
    [Some(std::env::temp_dir()), cache].into_iter().flatten().collect()
}

/// Loads a copy under a name that nothing else has had.
fn open_copy(path: &Path, contents: &[u8], folders: &[PathBuf]) -> Result<Library> {
    let name = path.file_name().map_or_else(Default::default, |name| name.to_string_lossy());
    let mut refused = None;
    for folder in folders {
        match open_copy_in(folder, &name, contents) {
            Ok(library) => return Ok(library),
            Err(reason) => _ = refused.get_or_insert(reason),
        }
    }
    Err(Error::advised(
        format!("it cannot be loaded: {}", refused.unwrap_or_default()),
        "a library that it needs may be missing on this machine; where the folder for temporary \
         files lets nothing be executed, TMPDIR or KINO_CACHE can name one that does",
    ))
}

fn open_copy_in(
    folder: &Path,
    name: &str,
    contents: &[u8],
) -> std::result::Result<Library, String> {
    let write = || {
        std::fs::create_dir_all(folder)?;
        let folder = tempfile::Builder::new().prefix("kino-plugin-").tempdir_in(folder)?;
        std::fs::write(folder.path().join(name), contents)?;
        Ok(folder)
    };
    let written: std::io::Result<_> = write();
    let folder = written.map_err(|error| format!("{}: {error}", folder.display()))?;
    let copy = folder.path().join(name);
    // SAFETY: loading runs the library's initialisers; the user trusts the file (`TrustedLibrary`).
    let library = unsafe { Library::new(&copy) };
    // The loader names the copy, which says nothing to anybody. What is mapped stays, where the
    // system lets a file in use be removed; elsewhere the folder for temporary files is emptied by
    // the system.
    library.map_err(|error| error.to_string().replace(&copy.display().to_string(), name))
}

/// Calls the entry and looks at what it says. The library stays mapped.
fn enter(library: Library, host: &'static KinoHost) -> Result<KinoPlugin> {
    // SAFETY: the contract fixes the type behind the symbol for all versions.
    let entry = unsafe { library.get::<KinoEntry>(kino_abi::ENTRY) };
    let entry = *entry.map_err(|error| Error::failed(format!("it has no entry: {error}")))?;
    // Threads, thread-locals and values may point into it for as long as the process lives.
    std::mem::forget(library);
    let _ = entry_error();
    // SAFETY: the entry takes the host's table, which is static.
    let plugin = unsafe { entry(host) };
    if plugin.is_null() {
        let (message, hint) = entry_error().unwrap_or_else(|| ("no reason".into(), String::new()));
        let hint = Some(hint).filter(|hint| !hint.is_empty());
        let message = format!("the plugin refuses to start: {message}");
        return Err(Error::failed(message).with_hint(hint));
    }
    // SAFETY: by the contract, what an entry gives is a table, static and as large as it says.
    unsafe { negotiate::read(plugin) }
}

impl Module for NativePlugin {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn open(
        &self,
        node: &str,
        saved: Option<&[u8]>,
        call: &CallCx<'_>,
    ) -> Result<Box<dyn Instance>> {
        Ok(Box::new(self.instance(node, saved, call)?))
    }
}

impl NativePlugin {
    /// Opens an instance of a node.
    pub(crate) fn instance(
        &self,
        node: &str,
        saved: Option<&[u8]>,
        call: &CallCx<'_>,
    ) -> Result<NativeInstance> {
        let current = ActiveCall::new(call);
        let saved = saved.map_or(KinoStr { data: std::ptr::null(), len: 0 }, lend);
        let mut instance = std::ptr::null_mut();
        // SAFETY: all arguments live through the call, as the contract wants.
        unsafe {
            let (call, node) = (current.raw(), lend(node.as_bytes()));
            current.ended((self.loaded.plugin.open)(call, node, saved, &raw mut instance))?;
        }
        let outputs = self.descriptor.node(node).map_or(0, |spec| spec.signature.outputs.len());
        let loaded = Arc::clone(&self.loaded);
        Ok(NativeInstance { loaded, instance, outputs })
    }
}

/// An instance of a node of a native plugin.
pub(crate) struct NativeInstance {
    loaded: Arc<Loaded>,
    instance: *mut KinoInstance,
    outputs: usize,
}

// SAFETY: the contract lets an instance be used from different threads, one at a time.
unsafe impl Send for NativeInstance {}

impl Instance for NativeInstance {
    fn run(&mut self, call: &CallCx<'_>, inputs: &[Option<Value>]) -> Result<Vec<Option<Value>>> {
        let inputs = inputs.iter().map(|value| value.clone().map(PluginValue::Value));
        let outputs = self.run_items(call, inputs.collect())?;
        let value = |item: Option<PluginValue>| item.map(PluginValue::into_value).transpose();
        outputs.into_iter().map(value).collect()
    }

    fn save(&mut self, call: &CallCx<'_>) -> Result<Option<Vec<u8>>> {
        let current = ActiveCall::new(call);
        let mut state = std::ptr::null_mut();
        // SAFETY: the instance is open, and nobody else uses it; the plugin gives the state away, or
        // leaves null.
        let (ended, state) = unsafe {
            let error = (self.loaded.plugin.save)(current.raw(), self.instance, &raw mut state);
            (current.ended(error), from_raw::<EngineValues>(state))
        };
        ended?;
        state.map(|item| Ok(item.bytes()?.to_vec())).transpose()
    }

    fn is_broken(&self) -> bool {
        false
    }
}

impl NativeInstance {
    /// Runs the node on items.
    pub(crate) fn run_items(
        &mut self,
        call: &CallCx<'_>,
        inputs: Vec<Option<PluginValue>>,
    ) -> Result<Vec<Option<PluginValue>>> {
        let current = ActiveCall::new(call);
        remember(call.ledger);
        let raw = |item| into_raw::<EngineValues>(item).cast_const();
        let given: Vec<*const KinoValue> =
            inputs.into_iter().map(|item| item.map_or(std::ptr::null(), raw)).collect();
        let mut outputs = vec![std::ptr::null_mut::<KinoValue>(); self.outputs];
        // SAFETY: inputs live through the call; as many places for outputs as the descriptor
        // promises; the instance is open, and nobody else uses it.
        let ended = unsafe {
            current.ended((self.loaded.plugin.run)(
                current.raw(),
                self.instance,
                given.as_ptr(),
                given.len(),
                outputs.as_mut_ptr(),
                outputs.len(),
            ))
        };
        for input in given {
            // SAFETY: they were lent: the count is still ours.
            drop(unsafe { from_raw::<EngineValues>(input.cast_mut()) });
        }
        // SAFETY: the plugin gave them away, or left null.
        let outputs =
            outputs.into_iter().map(|output| unsafe { from_raw::<EngineValues>(output) }).collect();
        ended.map(|()| outputs)
    }
}

impl Drop for NativeInstance {
    fn drop(&mut self) {
        // SAFETY: it is open, and closed once.
        unsafe { (self.loaded.plugin.close)(self.instance) };
    }
}

#[cfg(test)]
mod tests {
    use kino_host::NoFiles;
    use kino_node::{Cancel, Ledger};

    use super::*;

    unsafe extern "C" fn never() -> ! {
        std::process::abort()
    }

    /// A host of a later version has more at the end of its table, which a library of 2.0 neither
    /// sees nor needs.
    #[test]
    fn a_library_of_2_0_loads_on_a_later_host() {
        #[repr(C)]
        struct Later {
            known: KinoHost,
            more: unsafe extern "C" fn() -> !,
        }
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/2.0");
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join(kino_host::library_name("blend"));
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
        let built = std::process::Command::new(compiler)
            .args(["-std=c11", "-fPIC", "-shared", "-o"])
            .args([&library, &tests.join("blend.c")])
            .status();
        assert!(built.unwrap().success());
        // SAFETY: the table is plain data.
        let known = unsafe { std::ptr::read(host()) };
        let size = size_of::<Later>();
        let known = KinoHost { size, minor: known.minor + 1, ..known };
        let later: &'static Later = Box::leak(Box::new(Later { known, more: never }));
        let trusted = TrustedLibrary { path: &library, sha256: None };
        let plugin = NativePlugin::load_by(trusted, &later.known).unwrap();
        let (ledger, cancel) = (Ledger::new(1 << 20), Cancel::default());
        let call = CallCx::outside("test", &ledger, &cancel, &NoFiles);
        let mut instance = plugin.instance("c.count", None, &call).unwrap();
        let counted = instance.run(&call, &[]).unwrap();
        assert!(matches!(counted[..], [Some(Value::Int(1))]), "{counted:?}");
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_not_the_only_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "no folder").unwrap();
        let folders = [file.join("below"), folder.path().join("cache")];
        let error = open_copy(Path::new("x.so"), b"no library", &folders[..1]).unwrap_err();
        assert!(error.to_string().contains("below"), "{error}");
        assert!(error.hint().unwrap().contains("TMPDIR or KINO_CACHE"));
        let _ = open_copy(Path::new("x.so"), b"no library", &folders).unwrap_err();
        assert!(folders[1].is_dir(), "the second was not tried");
    }
}
