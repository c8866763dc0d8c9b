//! What a plugin is, may do, and who said so: what `show`, `list` and `trust` tell.

use std::path::{Path, PathBuf};

use kino_host::{
    Accepted, AllowedBuild, Beyond, BuildKind, Consent, FoundPlugin, LockEntry, LockFile,
    PluginError, places_of,
};
use serde_json::Value;

use crate::failure::Failure;
use crate::json::json;
use crate::render::quantity::bytes;
use crate::screen::Paint;

/// A plugin as graphs of a folder see it.
pub(crate) struct About<'a> {
    pub(crate) found: &'a FoundPlugin,
    /// What its lock file says of it.
    pub(crate) entry: Option<LockEntry>,
    /// What may be loaded, or what stands against it.
    pub(crate) decided: Result<AllowedBuild, PluginError>,
    /// What it may read, and where that lies.
    reads: Vec<(String, Beyond)>,
    /// What this user has accepted.
    accepted: Option<Accepted>,
    /// It is one of the user's own.
    is_own: bool,
    /// The folder of one of the user's own that is not used, since this one lies with the graph.
    shadows: Option<&'a Path>,
}

impl<'a> About<'a> {
    /// Looks at a plugin for graphs of the folder `graphs`.
    ///
    /// # Errors
    /// When its lock file does not read.
    pub(crate) fn of(
        found: &'a FoundPlugin,
        graphs: &Path,
        consent: &Consent,
        shadowed: &'a [(FoundPlugin, PathBuf)],
    ) -> Result<Self, Failure> {
        let lock = LockFile::read(&found.lock)?;
        let decided = kino_host::allowed_build(found, graphs, &lock, consent, false);
        let entry = lock.plugins.get(&found.manifest.id).cloned();
        let accepted = consent.of(&found.manifest.id, graphs).last().cloned();
        let reads = entry.as_ref().map(|entry| places_of(graphs, &entry.grants.read));
        let reads = reads.unwrap_or_default();
        let shadows = shadowed.iter().find(|(_, used)| *used == found.folder);
        let shadows = shadows.map(|(own, _)| &*own.folder);
        let is_own = consent.owns(found);
        Ok(About { found, entry, decided, reads, accepted, is_own, shadows })
    }

    /// How it is loaded, or why not.
    pub(crate) fn state(&self) -> String {
        match &self.decided {
            Ok(allowed) => {
                let how = if allowed.sha256.is_some() { "pinned" } else { "dev mode" };
                let isolated = if allowed.isolate { ", isolated" } else { "" };
                format!("{}, {how}{isolated}", allowed.kind)
            }
            Err(error) => {
                let whole = format!("the plugin `{}` ", self.found.manifest.id);
                error.to_string().replace(&whole, "")
            }
        }
    }

    /// What it may read: `luts -> /real/place`.
    pub(crate) fn reads(&self) -> Vec<String> {
        self.reads.iter().map(|(grant, place)| shown(grant, place)).collect()
    }

    /// Its limits, where they are not the usual ones.
    pub(crate) fn limits(&self) -> Option<String> {
        let limits = &self.entry.as_ref()?.limits;
        let memory = limits.memory.as_ref().map(|memory| format!("{memory} of memory"));
        let seconds = limits.seconds.map(|seconds| format!("{seconds} s"));
        let said: Vec<String> = memory.into_iter().chain(seconds).collect();
        (!said.is_empty()).then(|| format!("{} in one call", said.join(" and ")))
    }

    /// What it may use up in one call.
    fn limits_in_force(&self) -> String {
        let limits = self.decided.as_ref().map(|allowed| allowed.limits).unwrap_or_default();
        let usual = if self.limits().is_none() { ", as usual" } else { "" };
        let (memory, seconds) = (bytes(limits.memory), limits.time.as_secs_f64());
        format!("{memory} of memory and {seconds} s in one call{usual}")
    }

    /// Who said that it may be loaded.
    fn consent(&self) -> String {
        match &self.accepted {
            Some(accepted) => {
                let who = if accepted.by.is_empty() { "you" } else { &accepted.by };
                format!("accepted by {who} on {}", day(accepted.at))
            }
            None if self.is_own && self.entry.is_some() => "installed by you".to_owned(),
            None if self.entry.is_some() => {
                "pinned by the lock file that lies with the graph; you have not looked at it here"
                    .to_owned()
            }
            None => "nobody has accepted it".to_owned(),
        }
    }

    /// Everything, line by line.
    pub(crate) fn text(&self, paint: Paint) -> String {
        let manifest = &self.found.manifest;
        let mut text = format!("{} {}", paint.bold(&manifest.id), manifest.version);
        if !manifest.about.is_empty() {
            text += &format!("  {}", manifest.about);
        }
        text.push('\n');
        let mut line = |name: &str, value: &str| text += &format!("  {name:<9} {value}\n");
        line("state", &self.state());
        line("nodes", &manifest.nodes.join(", "));
        line("folder", &self.found.folder.display().to_string());
        line("code", self.code());
        if let Some(sha256) =
            self.entry.as_ref().map(|entry| &*entry.sha256).filter(|s| !s.is_empty())
        {
            line("sha256", sha256);
        }
        let asks = &manifest.asks;
        let asked = [
            (!asks.read.is_empty()).then(|| format!("to read {}", asks.read.join(", "))),
            asks.memory.as_ref().map(|memory| format!("for {memory} of memory")),
            asks.seconds.map(|seconds| format!("for {seconds} s")),
        ];
        let asked: Vec<String> = asked.into_iter().flatten().collect();
        if !asked.is_empty() {
            line("asks", &asked.join(", "));
        }
        match self.reads().as_slice() {
            [] => line("may read", "nothing"),
            some => some.iter().enumerate().for_each(|(index, place)| {
                line(if index == 0 { "may read" } else { "" }, place);
            }),
        }
        line("limits", &self.limits_in_force());
        if let Some(own) = self.shadows {
            line("shadows", &format!("your own in {}, which is not used here", own.display()));
        }
        line("consent", &self.consent());
        text
    }

    /// What its code can do.
    fn code(&self) -> &'static str {
        let kind = self.entry.as_ref().map(|entry| (entry.kind, entry.isolate));
        match kind.unwrap_or((self.found.manifest.preferred(), false)) {
            (BuildKind::Wasm, _) => "a component: it runs in a sandbox",
            (BuildKind::Native, true) => {
                "native, in a process of its own: it can do whatever you can, but not crash kino"
            }
            (BuildKind::Native, false) => "native: it can do whatever you can",
        }
    }

    /// The same for machines.
    pub(crate) fn json(&self) -> Value {
        let manifest = &self.found.manifest;
        let reads = self.reads.iter().map(|(grant, place)| {
            let (real, inside) = match place {
                Beyond::Inside => (None, true),
                Beyond::Elsewhere(real) | Beyond::OfTheSystem(real) => (Some(real), false),
            };
            json!({ "path": grant, "inside": inside, "leads_to": real })
        });
        json!({
            "id": manifest.id, "version": manifest.version, "about": manifest.about,
            "nodes": manifest.nodes, "folder": self.found.folder, "lock": self.found.lock,
            "allowed": self.decided.is_ok(), "state": self.state(), "asks": manifest.asks,
            "kind": self.entry.as_ref().map(|entry| entry.kind.to_string()),
            "sha256": self.entry.as_ref().map(|entry| &entry.sha256),
            "dev": self.entry.as_ref().and_then(|entry| entry.dev.as_ref()),
            "isolate": self.entry.as_ref().is_some_and(|entry| entry.isolate),
            "reads": reads.collect::<Vec<_>>(),
            "limits": self.decided.as_ref().ok().map(|allowed| json!({
                "memory": allowed.limits.memory, "seconds": allowed.limits.time.as_secs_f64(),
            })),
            "own": self.is_own, "shadows": self.shadows,
            "accepted": self.accepted.as_ref().map(|accepted| json!({
                "by": accepted.by, "at": accepted.at, "graphs": accepted.graphs,
            })),
        })
    }
}

/// A grant and where it leads, where that is elsewhere.
pub(crate) fn shown(grant: &str, place: &Beyond) -> String {
    match place {
        Beyond::Inside => grant.to_owned(),
        Beyond::Elsewhere(real) => {
            format!("{grant} -> {} (outside of the graph's folder)", real.display())
        }
        Beyond::OfTheSystem(real) => format!("{grant} -> {} (never read)", real.display()),
    }
}

/// A time as a day of the calendar, UTC: the algorithm of H. Hinnant's "chrono-compatible low-level
/// date algorithms" (`civil_from_days`).
fn day(seconds: u64) -> String {
    let days = i64::try_from(seconds / 86_400).unwrap_or(0) + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::day;

    #[test]
    fn a_time_is_a_day() {
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(951_782_400), "2000-02-29");
        assert_eq!(day(1_764_201_600), "2025-11-27");
    }
}
