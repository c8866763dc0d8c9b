//! The user's file of settings: read with the place of everything, changed where it must be and
//! nowhere else, so that comments stay.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kino_graph::ron::{self, Ast, AstKind, Fields};
use kino_graph::{Diagnostic, Diagnostics, Location, Severity, SourceFile, Span, SyntaxError};
use kino_port::{path_of_text, path_to_text};
use kino_world::AtomicFile;

use super::{SETTINGS, Setting, SettingKind, SettingOrigin, SettingValue, Settings, meant};
use crate::error::{Error, Result};
use crate::inventory::model_places;

/// The name of the file in the user's config folder.
const NAME: &str = "settings.ron";

/// The longest file of settings, in bytes.
const LONGEST: u64 = 1 << 20;

/// What stands in a new file.
const NEW: &str = "\
// Settings of Kinograph: `kino config` shows them, `kino config set NAME VALUE` writes them.
Settings(
)
";

/// What to do about a file that does not read.
const MEND: &str = "mend the file, or remove it to go back to what is taken unless it is set";

/// The user's file of settings: `settings.ron` in KINO_CONFIG, else in `kinograph` in the user's
/// config folder.
pub fn settings_file() -> PathBuf {
    kino_world::config_dir().join(NAME)
}

/// A file of settings as it was read.
#[derive(Clone, Debug)]
pub struct SettingsFile {
    /// Where it lies, or would.
    pub path: PathBuf,
    /// What it sets.
    pub settings: Settings,
    /// Its text; none where there is no such file.
    text: Option<Arc<str>>,
}

impl Settings {
    /// What the environment of this process sets, and the user's file.
    ///
    /// # Errors
    /// When a variable or the file holds what a setting cannot be, or the file does not read.
    pub fn of_user() -> Result<Self> {
        SettingsFile::read(&settings_file())?.settings.with_environment()
    }
}

impl SettingsFile {
    /// Reads a file; one that is not there sets nothing.
    ///
    /// # Errors
    /// When it cannot be read, is no RON, names what is no setting, or sets one to what it cannot
    /// be: all of that with line and column.
    pub fn read(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        let text = match kino_node::read_regular_text(&path, LONGEST) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(SettingsFile { path, settings: Settings::default(), text: None });
            }
            Err(error) => return Err(unreadable(&path, &error)),
        };
        let text: Arc<str> = text.into();
        let settings = settings_in(&text, &path)?;
        Ok(SettingsFile { path, settings, text: Some(text) })
    }

    /// Sets a value in the file at `path`, which is made where there is none; what else stands in
    /// it stays. Relative paths are relative to the folder that the process works in.
    ///
    /// # Errors
    /// When there is no such setting, it cannot be that, or the file does not read or cannot be
    /// written.
    pub fn set(path: &Path, name: &str, values: &[impl AsRef<OsStr>]) -> Result<SettingValue> {
        let setting = Setting::named(name)?;
        let wrong = |message: String| Error::usage(message).advising(setting.advice());
        let here = std::path::absolute(".").map_err(|error| Error::world(error.to_string()))?;
        if let (SettingKind::Device, [value]) = (setting.kind, values)
            && let Ok(SettingValue::Device(device)) = setting.parse(value.as_ref(), &here)
        {
            // What would fail at every run is said now.
            device.open(None)?;
        }
        let (value, written) = match (setting.kind, values) {
            (SettingKind::Folders, _) => {
                let each = values.iter().map(|value| setting.parse(value.as_ref(), &here));
                let mut folders = Vec::new();
                for value in each.collect::<Result<Vec<_>, _>>().map_err(wrong)? {
                    if let SettingValue::Folders(some) = value {
                        folders.extend(some);
                    }
                }
                // Here likewise: a list that cannot be read.
                model_places(&folders)?;
                let list: Vec<_> = folders.iter().map(|folder| quoted(folder)).collect();
                let written = format!("[{}]", list.join(", "));
                (SettingValue::Folders(folders), written)
            }
            (kind, [value]) => {
                let value = value.as_ref();
                let parsed = setting.parse(value, &here).map_err(wrong)?;
                let written = match kind {
                    // As it was said: a size in a file is easier to read than its bytes.
                    SettingKind::Bytes => format!("{:?}", value.to_string_lossy().trim()),
                    _ => quoted(Path::new(&parsed.text())),
                };
                (parsed, written)
            }
            (_, values) => {
                let message = format!("`{name}` is one value, found {}", values.len());
                return Err(Error::usage(message));
            }
        };
        change(path, |text| {
            let fields = fields_of(text)?;
            Ok(match fields.fields.iter().find(|(key, _)| key.name == name) {
                Some((_, old)) => {
                    let (start, end) = (old.span.start as usize, old.span.end as usize);
                    format!("{}{written}{}", &text[..start], &text[end..])
                }
                None => {
                    let (head, rest) = text.split_at(fields.opening as usize);
                    let end = if rest.starts_with(['\n', '\r']) { "" } else { "\n    " };
                    format!("{head}\n    {name}: {written},{end}{}", rest)
                }
            })
        })?;
        Ok(value)
    }

    /// Takes a value out of the file at `path`; whether it was set there.
    ///
    /// # Errors
    /// When there is no such setting, or the file does not read or cannot be written.
    pub fn unset(path: &Path, name: &str) -> Result<bool> {
        Setting::named(name)?;
        if SettingsFile::read(path)?.settings.get(name).is_none() {
            return Ok(false);
        }
        let mut was_set = false;
        change(path, |text| {
            let fields = fields_of(text)?;
            let found = fields.fields.iter().find(|(key, _)| key.name == name);
            let Some((key, value)) = found else { return Ok(text.to_owned()) };
            was_set = true;
            let (mut start, mut end) = (key.span.start as usize, value.span.end as usize);
            let blank = |text: &str| text.len() - text.trim_start_matches([' ', '\t']).len();
            let behind = &text[end..];
            let comma = behind.trim_start();
            if comma.starts_with(',') {
                end += behind.len() - comma.len() + 1;
            }
            // A line of its own goes with it.
            let before = text[..start].trim_end_matches([' ', '\t']);
            let after = &text[end + blank(&text[end..])..];
            if before.ends_with('\n') && (after.starts_with('\n') || after.starts_with("\r\n")) {
                start = before.len();
                end = text.len() - after.len() + after.find('\n').map_or(0, |at| at + 1);
            }
            Ok(format!("{}{}", &text[..start], &text[end..]))
        })?;
        Ok(was_set)
    }
}

/// Why a file of settings cannot be read.
fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    match path.parent() {
        Some(folder) if folder.is_file() => Error::usage(format!(
            "{} is a file; settings lie in a folder, as {NAME}",
            folder.display()
        ))
        .advising("name a folder in KINO_CONFIG, or unset it for your own"),
        _ => Error::world(format!("{}: {error}", path.display())).advising(MEND),
    }
}

/// Whether nothing stands in a text but blanks and comments of whole lines.
fn is_blank(text: &str) -> bool {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty()).all(|line| line.starts_with("//"))
}

/// A path as a text of RON.
fn quoted(path: &Path) -> String {
    format!("{:?}", path_to_text(path))
}

/// Changes the file at `path`, whole or not at all. Two that do so at once do not lose each
/// other's, where the system locks folders.
fn change(path: &Path, change: impl FnOnce(&str) -> Result<String, SyntaxError>) -> Result<()> {
    let world = |error: std::io::Error| Error::world(format!("{}: {error}", path.display()));
    // A link stays one: the file that it leads to is written.
    let place = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = place.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|error| unreadable(path, &error))?;
    let held = File::open(folder).ok().filter(|folder| folder.lock().is_ok());
    let before = SettingsFile::read(path)?.text;
    let filled;
    let before = match before.as_deref() {
        None => NEW,
        Some(text) if is_blank(text) => {
            let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            filled = format!("{text}{end}Settings(\n)\n");
            &filled
        }
        Some(text) => text,
    };
    let after = change(before).map_err(|error| broken(before, path, error))?;
    // What was written in a way that is not foreseen here is left to its author.
    settings_in(&after, path).map_err(|_| {
        let message = format!("{} cannot be changed as it is written", path.display());
        Error::usage(message).advising("change it in an editor")
    })?;
    let failed = |error: kino_world::Error| Error::world(error.to_string());
    let mut file = AtomicFile::create(&place).map_err(failed)?;
    file.write_all(after.as_bytes()).map_err(world)?;
    file.finish().map_err(failed)?;
    drop(held);
    Ok(())
}

/// The fields that stand in a text.
fn fields_of(text: &str) -> Result<Fields<'_>, SyntaxError> {
    let tree = ron::read(text, Span { start: 0, end: text.len() as u32 })?;
    match tree.kind {
        AstKind::Struct(fields) if fields.name.is_none_or(|name| name == "Settings") => Ok(*fields),
        other => Err(SyntaxError {
            message: format!("expected Settings(name: value, …), found {}", other.noun()),
            span: tree.span,
            hint: None,
        }),
    }
}

/// What a text sets.
fn settings_in(text: &str, path: &Path) -> Result<Settings> {
    if is_blank(text) {
        return Ok(Settings::default());
    }
    let fields = fields_of(text).map_err(|error| broken(text, path, error))?;
    let base = path.parent().unwrap_or(Path::new("."));
    let (mut settings, mut errors) = (Settings::default(), Vec::new());
    for (key, value) in fields.fields {
        let Some(index) = SETTINGS.iter().position(|setting| setting.name == key.name) else {
            let message = format!("there is no setting `{}`", key.name);
            errors.push(SyntaxError { message, span: key.span, hint: Some(meant(key.name)) });
            continue;
        };
        if settings.get(key.name).is_some() {
            let message = format!("`{}` is written twice", key.name);
            errors.push(SyntaxError { message, span: key.span, hint: None });
            continue;
        }
        match read_value(&SETTINGS[index], &value, base) {
            Ok(value) => settings.put(index, SettingOrigin::File, value),
            Err(message) => {
                let hint = Some(SETTINGS[index].advice().to_owned());
                errors.push(SyntaxError { message, span: value.span, hint });
            }
        }
    }
    match errors.is_empty() {
        true => Ok(settings),
        false => Err(diagnostics(text, path, errors)),
    }
}

/// One value as the file says it.
fn read_value(setting: &Setting, value: &Ast<'_>, base: &Path) -> Result<SettingValue, String> {
    let of_text = |text: &str| setting.parse(path_of_text(text).as_os_str(), base);
    match (&value.kind, setting.kind) {
        (AstKind::Text(text), _) => of_text(text),
        (AstKind::Number(number), SettingKind::Bytes) => of_text(&number.replace('_', "")),
        (AstKind::List(items), SettingKind::Folders) => {
            let mut folders = Vec::new();
            for item in items {
                let AstKind::Text(text) = &item.kind else {
                    return Err(format!("expected folders, found {}", item.kind.noun()));
                };
                // An entry of a list is one folder, whatever characters it has.
                let path = path_of_text(text);
                if path.as_os_str().is_empty() {
                    return Err("expected a folder, found an empty text".to_owned());
                }
                folders.push(super::place(path.as_os_str(), base)?);
            }
            Ok(SettingValue::Folders(folders))
        }
        (other, kind) => {
            let expected = match kind {
                SettingKind::Bytes => "a size such as \"12GB\"",
                SettingKind::Folder | SettingKind::Program => "a path in quotes",
                SettingKind::Folders => "a list of paths such as [\"/models\"]",
                SettingKind::Device => "a device such as \"cpu\"",
                SettingKind::Address => "an address in quotes",
                SettingKind::Name => "a name in quotes",
            };
            Err(format!("expected {expected}, found {}", other.noun()))
        }
    }
}

fn broken(text: &str, path: &Path, mut error: SyntaxError) -> Error {
    error.hint.get_or_insert_with(|| MEND.to_owned());
    diagnostics(text, path, vec![error])
}

/// Problems of a file, each with its place.
fn diagnostics(text: &str, path: &Path, errors: Vec<SyntaxError>) -> Error {
    let list = errors.into_iter().map(|error| Diagnostic {
        severity: Severity::Error,
        code: "settings",
        message: error.message,
        location: Some(Location { file: 0, span: error.span }),
        related: Vec::new(),
        hint: error.hint,
    });
    let files = vec![SourceFile { name: path.display().to_string(), text: text.into() }];
    Error::Graph(Diagnostics { list: list.collect(), files })
}
