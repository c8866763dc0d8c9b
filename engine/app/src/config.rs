//! `kino config`: what is set and where, and changing the user's file.

use std::env;
use std::path::Path;

use kino_session::inventory::{ModelFolders, ModelPlace, model_places};
use kino_session::settings::{
    SETTINGS, Setting, SettingOrigin, SettingValue, SettingsFile, settings_file,
};

use crate::args::{self, ConfigAction};
use crate::failure::{Exit, Failure};
use crate::json::{Value, json};
use crate::render::diagnostics::warn_plain;
use crate::render::table::{Align, Table};
use crate::screen::Screen;
use crate::setup;

/// Shows the settings, or changes one.
///
/// # Errors
/// When there is no such setting, it cannot be that, or the file does not read or cannot be
/// written.
pub(crate) fn run(args: &args::Config, screen: &Screen) -> Result<Exit, Failure> {
    let file = settings_file();
    match &args.action {
        None => show(args, &file, screen)?,
        Some(ConfigAction::Set { name, values }) => {
            let value = SettingsFile::set(&file, name, values)?;
            warn_of_environment(name, screen);
            if let SettingValue::Folders(paths) = &value {
                warn_of_missing(&model_places(paths)?, screen);
            }
            match screen.json {
                true => screen
                    .print_json(&json!({ "file": file, "name": name, "value": as_json(&value) }))?,
                false => {
                    screen.print(&format!(
                        "{name} is {} in {}\n",
                        value.shown(),
                        file.display()
                    ))?;
                }
            }
        }
        Some(ConfigAction::Unset { name }) => {
            let was_set = SettingsFile::unset(&file, name)?;
            warn_of_environment(name, screen);
            let is = if was_set { "is not set any more" } else { "was not set" };
            match screen.json {
                true => {
                    screen.print_json(&json!({ "file": file, "name": name, "was_set": was_set }))?
                }
                false => screen.print(&format!("{name} {is} in {}\n", file.display()))?,
            }
        }
    }
    Ok(Exit::Good)
}

/// Says which folders of models are not there: they may come, as a disk does that is not mounted.
fn warn_of_missing(places: &ModelFolders, screen: &Screen) {
    for place in &places.0 {
        let folder = match place {
            ModelPlace::Root(folder) => folder,
            ModelPlace::Kind(of) => &of.folder,
        };
        if !folder.exists() {
            let message = format!("{} is not there; no model is found in it", folder.display());
            warn_plain(screen, &message, None);
        }
    }
}

/// Says that what was changed does not count, where the environment says something else.
fn warn_of_environment(name: &str, screen: &Screen) {
    let setting = SETTINGS.iter().find(|setting| setting.name == name);
    let variable = setting.map(|setting| setting.variable);
    if let Some(variable) = variable.filter(|variable| env::var_os(variable).is_some()) {
        warn_plain(screen, &format!("{variable} is set, and counts before the file"), None);
    }
}

fn show(args: &args::Config, file: &Path, screen: &Screen) -> Result<(), Failure> {
    let settings = setup::settings_with(&args.flags)?;
    let rows = SETTINGS.iter().map(|setting| (setting, settings.get(setting.name)));
    if screen.json {
        let rows = rows.map(|(setting, set)| {
            let default = setting.default_value();
            let value = set.map(|(value, _)| value).or(default.as_ref());
            json!({
                "name": setting.name, "value": value.map(as_json),
                "origin": set.map_or("default", |(_, origin)| origin.name()),
                "variable": setting.variable, "flag": setting.flag.map(str::to_owned),
                "about": setting.about, "default": setting.default,
            })
        });
        let rows: Vec<Value> = rows.collect();
        screen.print_json(&json!({ "file": file, "settings": rows }))?;
        return Ok(());
    }
    let mut table = Table::new(&[Align::Left, Align::Left, Align::Left]);
    for (setting, set) in rows {
        let name = screen.out.name(setting.name);
        let (value, from) = match set {
            Some((value, origin)) => (value.shown(), came_from(setting, origin)),
            None => (by_default(setting), "default".to_owned()),
        };
        table.row([name, value, screen.out.dim(&from)]);
    }
    let there = if file.is_file() { "" } else { " (not there yet)" };
    let hint = format!("file: {}{there}; `kino config set NAME VALUE` writes it", file.display());
    screen.print(&format!("{}\n{}\n", table.render(), screen.out.dim(&hint)))?;
    Ok(())
}

/// Where a value comes from.
fn came_from(setting: &Setting, origin: SettingOrigin) -> String {
    match origin {
        SettingOrigin::Flag => setting.flag.unwrap_or_default().to_owned(),
        SettingOrigin::Environment => setting.variable.to_owned(),
        SettingOrigin::File => "file".to_owned(),
    }
}

/// What counts unless it is set, with the value that it comes to.
fn by_default(setting: &Setting) -> String {
    match setting.default_value() {
        Some(value) if value.shown() == setting.default => value.shown(),
        Some(value) => format!("{} ({})", value.shown(), setting.default),
        None => setting.default.to_owned(),
    }
}

/// A value for programs: sizes in bytes.
fn as_json(value: &SettingValue) -> Value {
    match value {
        SettingValue::Bytes(bytes) => json!(bytes),
        SettingValue::Folder(path) => json!(path),
        SettingValue::Folders(paths) => json!(paths),
        SettingValue::Program(program) => json!(program),
        SettingValue::Device(device) => json!(device.to_string()),
        SettingValue::Text(text) => json!(text),
    }
}
