//! What a user sets once for every run: where caches lie, how much memory may be taken, where
//! models are. One table says each setting's name, variable and flag; what reads, checks, shows and
//! explains them reads it.
//!
//! A flag counts before the environment, that before the user's file, that before what is taken
//! unless something is said. An engine reads the environment of its process; the user's file only
//! where the program hands it over ([`EngineBuilder::settings`](crate::EngineBuilder::settings)),
//! as the command does: a program that embeds the engine decides for itself.

mod file;

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use kino_hub::address_error;
use kino_port::{did_you_mean, format_bytes, parse_bytes, path_to_text};
use kino_world::media::FfmpegChoice;

use crate::device::DeviceChoice;
use crate::error::{Error, Result};

pub use file::{SettingsFile, settings_file};

/// One thing that can be set.
#[derive(Debug)]
pub struct Setting {
    /// What the file and `kino config` call it.
    pub name: &'static str,
    /// The environment variable that sets it.
    pub variable: &'static str,
    /// The flag of the command that sets it, where there is one.
    pub flag: Option<&'static str>,
    /// What it is, in words.
    pub about: &'static str,
    /// What counts unless it is set, in words.
    pub default: &'static str,
    /// What its values are.
    pub kind: SettingKind,
}

/// What the values of a setting are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingKind {
    /// A number of bytes, such as `12GB`.
    Bytes,
    /// A folder.
    Folder,
    /// Folders; in the environment as in PATH.
    Folders,
    /// A program, by its path or as it is found on the PATH; nothing stands for none.
    Program,
    /// A device.
    Device,
    /// The address of a server.
    Address,
    /// A name.
    Name,
}

/// All settings, in the order in which they are listed.
pub static SETTINGS: &[Setting] = &[
    Setting {
        name: "cache",
        variable: "KINO_CACHE",
        flag: None,
        about: "the folder of the cache",
        default: "kinograph in your cache folder",
        kind: SettingKind::Folder,
    },
    Setting {
        name: "cache_limit",
        variable: "KINO_CACHE_LIMIT",
        flag: None,
        about: "how large the cache may grow",
        default: "20GB",
        kind: SettingKind::Bytes,
    },
    Setting {
        name: "memory",
        variable: "KINO_MEMORY",
        flag: Some("--memory"),
        about: "how much memory runs may take",
        default: "what the machine has, less an eighth",
        kind: SettingKind::Bytes,
    },
    Setting {
        name: "device_memory",
        variable: "KINO_DEVICE_MEMORY",
        flag: None,
        about: "how much memory of a GPU runs may take",
        default: "what is free there, less an eighth",
        kind: SettingKind::Bytes,
    },
    Setting {
        name: "spill",
        variable: "KINO_SPILL",
        flag: None,
        about: "how much frames may take of temporary files",
        default: "what is free of the disk, less an eighth",
        kind: SettingKind::Bytes,
    },
    Setting {
        name: "device",
        variable: "KINO_DEVICE",
        flag: Some("--device"),
        about: "where to compute: auto, cpu, cuda:N or metal",
        default: "auto",
        kind: SettingKind::Device,
    },
    Setting {
        name: "models",
        variable: "KINO_MODELS",
        flag: None,
        about: "folders of models such as ComfyUI's, or an extra_model_paths.yaml, for what does not lie beside the graph",
        default: "none",
        kind: SettingKind::Folders,
    },
    Setting {
        name: "ffmpeg",
        variable: "KINO_FFMPEG",
        flag: None,
        about: "the program for media that are not read and written here; empty for none",
        default: "ffmpeg on the PATH, if it is there",
        kind: SettingKind::Program,
    },
    Setting {
        name: "llm_url",
        variable: "KINO_LLM_URL",
        flag: None,
        about: "the address of the language model that `endpoint` stands for in text.generate",
        default: "none: nothing is sent",
        kind: SettingKind::Address,
    },
    Setting {
        name: "llm_model",
        variable: "KINO_LLM_MODEL",
        flag: None,
        about: "the model that is asked there",
        default: "none",
        kind: SettingKind::Name,
    },
    Setting {
        name: "llm_key",
        variable: "KINO_LLM_KEY",
        flag: None,
        about: "the environment variable that has the key for it",
        default: "KINO_LLM_API_KEY",
        kind: SettingKind::Name,
    },
    Setting {
        name: "data",
        variable: "KINO_DATA",
        flag: None,
        about: "the folder of your own plugins",
        default: "kinograph in your data folder",
        kind: SettingKind::Folder,
    },
    Setting {
        name: "sdk",
        variable: "KINO_SDK",
        flag: Some("--sdk"),
        about: "the SDK that plugins are built with",
        default: "the one inside kino",
        kind: SettingKind::Folder,
    },
];

/// How large the cache on disk may grow unless something else is set.
const CACHE_LIMIT: u64 = 20_000_000_000;

/// A value of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingValue {
    /// A number of bytes.
    Bytes(u64),
    /// A folder.
    Folder(PathBuf),
    /// Folders.
    Folders(Vec<PathBuf>),
    /// A program; none where none is to be used.
    Program(Option<PathBuf>),
    /// A device.
    Device(DeviceChoice),
    /// An address or a name.
    Text(String),
}

/// Where a value comes from; what comes later counts less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SettingOrigin {
    /// A flag of the command.
    Flag,
    /// A variable of the environment.
    Environment,
    /// The user's file.
    File,
}

/// What is set, and where.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// By the index of the setting.
    set: Vec<(usize, SettingOrigin, SettingValue)>,
}

impl Setting {
    /// The setting of a name.
    ///
    /// # Errors
    /// When there is none; the error says which may have been meant.
    pub fn named(name: &str) -> Result<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.name == name).ok_or_else(|| {
            Error::usage(format!("there is no setting `{name}`")).advising(meant(name))
        })
    }

    /// Reads a value; a relative path in it is relative to `base`, and `~` is the home folder.
    ///
    /// # Errors
    /// When it is none; the message says what was expected.
    pub fn parse(&self, text: &OsStr, base: &Path) -> Result<SettingValue, String> {
        let shown = || text.to_string_lossy().into_owned();
        Ok(match self.kind {
            SettingKind::Bytes => {
                let bytes = parse_bytes(&shown());
                match bytes.map_err(|_| format!("{} is no size", shown()))? {
                    0 if self.is_for_runs() => {
                        return Err(format!("{} leaves runs no memory", shown()));
                    }
                    bytes => SettingValue::Bytes(bytes),
                }
            }
            SettingKind::Device => {
                SettingValue::Device(shown().parse().map_err(|expected: String| {
                    format!("there is no device `{}`: {expected}", shown())
                })?)
            }
            SettingKind::Address => match address_error(&shown()) {
                Some(wrong) => return Err(format!("{} is no address: {wrong}", shown())),
                None => SettingValue::Text(shown().trim_end_matches('/').to_owned()),
            },
            SettingKind::Name => match shown().trim() {
                "" => return Err("expected a name, found an empty text".to_owned()),
                name if name.contains(kino_port::is_hidden) => {
                    return Err(format!("{} is no name", kino_port::escape_line(name)));
                }
                name => SettingValue::Text(name.to_owned()),
            },
            SettingKind::Program => match text.is_empty() {
                true => SettingValue::Program(None),
                // A bare name is looked for on the PATH by the system.
                false if Path::new(text).components().count() == 1 && !text.eq("~") => {
                    SettingValue::Program(Some(text.into()))
                }
                false => SettingValue::Program(Some(place(text, base)?)),
            },
            _ if text.is_empty() => return Err("expected a folder, found an empty text".to_owned()),
            SettingKind::Folder => SettingValue::Folder(place(text, base)?),
            SettingKind::Folders => {
                let parts = env::split_paths(text).filter(|part| !part.as_os_str().is_empty());
                let parts = parts.map(|part| place(part.as_os_str(), base));
                SettingValue::Folders(parts.collect::<Result<_, String>>()?)
            }
        })
    }

    /// Whether it is memory that nothing runs without.
    fn is_for_runs(&self) -> bool {
        matches!(self.name, "memory" | "device_memory")
    }

    /// How a value is written that [`Setting::parse`] refuses.
    pub fn advice(&self) -> &'static str {
        match self.kind {
            SettingKind::Bytes => "write 20GB or 500MB",
            SettingKind::Device => "`nvidia-smi` lists the GPUs; `cpu` always works",
            SettingKind::Folder | SettingKind::Folders => "write the path of a folder",
            SettingKind::Program => "write the path of a program",
            SettingKind::Address => "write an address such as http://localhost:11434/v1",
            SettingKind::Name => "write a name",
        }
    }

    /// The value that counts unless one is set; none where there is no such value.
    pub fn default_value(&self) -> Option<SettingValue> {
        Some(match self.name {
            "cache" => SettingValue::Folder(kino_world::cache_dir()),
            "cache_limit" => SettingValue::Bytes(CACHE_LIMIT),
            "memory" => SettingValue::Bytes(kino_runtime::memory_of_machine()),
            "spill" => SettingValue::Bytes(kino_node::spill_room(&env::temp_dir())),
            "device" => SettingValue::Device(DeviceChoice::Auto),
            "models" => SettingValue::Folders(Vec::new()),
            "ffmpeg" => SettingValue::Program(FfmpegChoice::OnPath.find()),
            "data" => SettingValue::Folder(kino_world::data_dir()),
            _ => return None,
        })
    }
}

/// Which setting may have been meant.
fn meant(name: &str) -> String {
    let names = SETTINGS.iter().map(|setting| setting.name);
    did_you_mean(name, names.clone())
        .unwrap_or_else(|| format!("there is {}", names.collect::<Vec<_>>().join(", ")))
}

/// A path with `~` for the home folder, else relative to `base`.
fn place(text: &OsStr, base: &Path) -> Result<PathBuf, String> {
    let path = Path::new(text);
    match path.strip_prefix("~") {
        Ok(rest) => match env::home_dir() {
            Some(home) => Ok(home.join(rest)),
            None => Err("`~` is no folder: this user has no home folder".to_owned()),
        },
        Err(_) => Ok(base.join(path)),
    }
}

impl SettingValue {
    /// The value as a text that [`Setting::parse`] reads, but for sizes, which are rounded.
    pub fn text(&self) -> OsString {
        match self {
            SettingValue::Bytes(bytes) => format_bytes(*bytes).into(),
            SettingValue::Folder(path) | SettingValue::Program(Some(path)) => path.into(),
            SettingValue::Folders(paths) => {
                let separator = if cfg!(windows) { ";" } else { ":" };
                let paths: Vec<_> = paths.iter().map(|path| path.as_os_str()).collect();
                paths.join(OsStr::new(separator))
            }
            SettingValue::Program(None) => OsString::new(),
            SettingValue::Device(device) => device.to_string().into(),
            SettingValue::Text(text) => text.into(),
        }
    }

    /// The value as a text for people.
    pub fn shown(&self) -> String {
        match self {
            SettingValue::Program(None) => "none".to_owned(),
            SettingValue::Folders(paths) if paths.is_empty() => "none".to_owned(),
            value => path_to_text(Path::new(&value.text())).into_owned(),
        }
    }
}

impl SettingOrigin {
    /// Its name: `flag`, `environment`, `file`.
    pub fn name(self) -> &'static str {
        match self {
            SettingOrigin::Flag => "flag",
            SettingOrigin::Environment => "environment",
            SettingOrigin::File => "file",
        }
    }
}

impl Settings {
    /// What the environment of this process sets.
    ///
    /// # Errors
    /// When a variable holds what its setting cannot be.
    pub fn of_environment() -> Result<Self> {
        Settings::default().with_environment()
    }

    /// With what the environment sets, which counts before what a file says.
    pub(super) fn with_environment(mut self) -> Result<Self> {
        for (index, setting) in SETTINGS.iter().enumerate() {
            let Some(text) = env::var_os(setting.variable) else { continue };
            if text.is_empty() && setting.kind != SettingKind::Program {
                continue;
            }
            // As the system reads them: relative to the folder that the process works in.
            let value = setting.parse(&text, Path::new("")).map_err(|message| {
                let shown = text.to_string_lossy();
                let value = format!("{}={shown}", setting.variable);
                Error::usage(message.replacen(&*shown, &value, 1)).advising(setting.advice())
            })?;
            self.put(index, SettingOrigin::Environment, value);
        }
        Ok(self)
    }

    /// With the value of a flag, which counts before all else.
    ///
    /// # Errors
    /// When there is no such setting, or it cannot be that.
    pub fn with_flag(mut self, name: &str, value: &OsStr) -> Result<Self> {
        let setting = Setting::named(name)?;
        let index = SETTINGS.iter().position(|other| other.name == name).unwrap_or_default();
        let parsed = setting
            .parse(value, Path::new(""))
            .map_err(|message| Error::usage(message).advising(setting.advice()))?;
        self.put(index, SettingOrigin::Flag, parsed);
        Ok(self)
    }

    fn put(&mut self, index: usize, origin: SettingOrigin, value: SettingValue) {
        self.set.retain(|(of, other, _)| *of != index || *other < origin);
        if !self.set.iter().any(|(of, ..)| *of == index) {
            self.set.push((index, origin, value));
        }
    }

    /// The value that is set for a name, and where.
    pub fn get(&self, name: &str) -> Option<(&SettingValue, SettingOrigin)> {
        let found = self.set.iter().find(|(index, ..)| SETTINGS[*index].name == name);
        found.map(|(_, origin, value)| (value, *origin))
    }

    /// A number of bytes that is set.
    pub fn bytes(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            Some((SettingValue::Bytes(bytes), _)) => Some(*bytes),
            _ => None,
        }
    }

    /// A folder that is set.
    pub fn folder(&self, name: &str) -> Option<PathBuf> {
        match self.get(name) {
            Some((SettingValue::Folder(folder), _)) => Some(folder.clone()),
            _ => None,
        }
    }

    /// Where to compute, if that is set.
    pub fn device(&self) -> Option<DeviceChoice> {
        match self.get("device") {
            Some((SettingValue::Device(device), _)) => Some(*device),
            _ => None,
        }
    }

    /// An address or a name that is set.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some((SettingValue::Text(text), _)) => Some(text),
            _ => None,
        }
    }

    /// The folders of models.
    pub fn models(&self) -> Vec<PathBuf> {
        match self.get("models") {
            Some((SettingValue::Folders(folders), _)) => folders.clone(),
            _ => Vec::new(),
        }
    }

    /// Which program `ffmpeg` is used.
    pub fn ffmpeg(&self) -> FfmpegChoice {
        match self.get("ffmpeg") {
            Some((SettingValue::Program(Some(program)), _)) => {
                FfmpegChoice::Program(program.clone())
            }
            Some((SettingValue::Program(None), _)) => FfmpegChoice::None,
            _ => FfmpegChoice::OnPath,
        }
    }

    /// The folder of the cache on disk.
    pub fn cache_folder(&self) -> PathBuf {
        self.folder("cache").unwrap_or_else(kino_world::cache_dir)
    }

    /// How many bytes the cache on disk may hold.
    pub fn cache_limit(&self) -> u64 {
        self.bytes("cache_limit").unwrap_or(CACHE_LIMIT)
    }

    /// The folder of what belongs to the user: plugins, and which of them the user trusts.
    pub fn data_folder(&self) -> PathBuf {
        self.folder("data").unwrap_or_else(kino_world::data_dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_named_once_and_reads_what_it_shows() {
        let base = Path::new("/base");
        for (index, setting) in SETTINGS.iter().enumerate() {
            let twice = SETTINGS[..index]
                .iter()
                .any(|other| other.name == setting.name || other.variable == setting.variable);
            assert!(!twice, "{}", setting.name);
            assert_eq!(setting.variable, format!("KINO_{}", setting.name.to_uppercase()));
            let value = match setting.kind {
                SettingKind::Bytes => "2.5GB",
                SettingKind::Device => "cuda:1",
                SettingKind::Folder | SettingKind::Folders | SettingKind::Program => "/a/b",
                SettingKind::Address => "http://localhost:11434/v1",
                SettingKind::Name => "qwen3:4b",
            };
            let parsed = setting.parse(OsStr::new(value), base).unwrap();
            assert_eq!(setting.parse(&parsed.text(), base), Ok(parsed));
        }
    }

    #[test]
    fn paths_are_those_of_the_file_and_of_the_user() {
        let (base, models) = (Path::new("/base"), Setting::named("models").unwrap());
        let home = env::home_dir().unwrap();
        let found = models.parse(OsStr::new("one:/two:~/three"), base).unwrap();
        let expected = vec!["/base/one".into(), "/two".into(), home.join("three")];
        assert_eq!(found, SettingValue::Folders(expected));
        let ffmpeg = Setting::named("ffmpeg").unwrap();
        let parse = |text: &str| ffmpeg.parse(OsStr::new(text), base).unwrap();
        assert_eq!(parse(""), SettingValue::Program(None));
        assert_eq!(parse("ffmpeg7"), SettingValue::Program(Some("ffmpeg7".into())));
        assert_eq!(parse("bin/ffmpeg"), SettingValue::Program(Some("/base/bin/ffmpeg".into())));
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_is_expected() {
        let error = |name: &str, value: &str| {
            Settings::default().with_flag(name, OsStr::new(value)).unwrap_err()
        };
        assert_eq!(error("memory", "much").to_string(), "much is no size");
        assert_eq!(error("memory", "much").hint(), Some("write 20GB or 500MB"));
        assert!(error("device", "gpu").to_string().contains("expected auto, cpu, cuda:N or metal"));
        assert_eq!(error("memroy", "1GB").hint(), Some("did you mean `memory`?"));
        assert_eq!(error("cache", "").to_string(), "expected a folder, found an empty text");
        let address = error("llm_url", "localhost:11434");
        assert!(address.to_string().contains("begins with neither https:// nor http://"));
        assert_eq!(address.hint(), Some("write an address such as http://localhost:11434/v1"));
        assert_eq!(error("llm_model", " ").to_string(), "expected a name, found an empty text");
    }

    #[test]
    fn a_flag_counts_before_the_environment_and_that_before_the_file() {
        let value = |bytes: u64| SettingValue::Bytes(bytes);
        let origins = [SettingOrigin::File, SettingOrigin::Environment, SettingOrigin::Flag];
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [0, 2, 1]] {
            let mut settings = Settings::default();
            for at in order {
                settings.put(2, origins[at], value(at as u64));
            }
            assert_eq!(settings.get("memory"), Some((&value(2), SettingOrigin::Flag)));
            assert_eq!(settings.bytes("cache_limit"), None);
        }
    }
}
