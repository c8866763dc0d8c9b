//! What may be loaded, what is refused, and what the refusal says.

use std::path::{Path, PathBuf};

use kino_host::{
    BuildKind, Consent, LockFile, Manifest, PluginError, PluginIndex, TrustOptions, allowed_build,
    pin,
};

/// A graph's folder with one plugin in it.
struct Site {
    folder: tempfile::TempDir,
}

const MANIFEST: &str = r#"Plugin(id: "grain", version: "1.0.0", nodes: ["film.grain"],
    native: "grain", wasm: "grain.wasm", asks: (read: ["luts"], seconds: 5.0))"#;

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = Site { folder };
        site.write("plugins/grain/plugin.ron", MANIFEST);
        site.write("plugins/grain/grain.wasm", "component");
        let library = kino_host::library_name("grain");
        site.write(&format!("plugins/grain/{library}"), "library");
        site
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn trust(&self, options: &TrustOptions) -> Result<(), PluginError> {
        let shelf = PluginIndex::scan(self.path(), None)?;
        let mut lock = LockFile::read(self.path())?;
        let found = shelf.plugin("grain").unwrap();
        let entry = pin(found, options)?;
        Consent::grant(&self.data(), found, self.path(), &entry)?;
        lock.plugins.insert("grain".into(), entry);
        lock.write(self.path())
    }

    /// The folder of what belongs to the user.
    fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    fn consent(&self) -> Consent {
        Consent::read(&self.data()).unwrap()
    }

    /// What is decided, as a text with the folder's name taken out.
    fn decide(&self, locked: bool) -> String {
        let shelf = PluginIndex::scan(self.path(), None).unwrap();
        let lock = LockFile::read(self.path()).unwrap();
        match allowed_build(
            shelf.plugin("grain").unwrap(),
            self.path(),
            &lock,
            &self.consent(),
            locked,
        ) {
            Ok(allowed) => format!(
                "{} {} read {:?} isolate {} {:?}",
                allowed.kind,
                if allowed.sha256.is_some() { "pinned" } else { "dev" },
                allowed.read,
                allowed.isolate,
                allowed.limits.time,
            ),
            Err(error) => {
                let text = format!("{error} / {}", error.hint().unwrap_or_default());
                text.replace(&self.path().display().to_string(), "HERE")
            }
        }
    }
}

#[test]
fn what_is_not_pinned_is_refused_with_the_command_that_accepts_it() {
    let site = Site::new();
    assert_eq!(
        site.decide(false),
        "the plugin `grain` is not trusted: the lock file does not pin it / look at \
         HERE/plugins/grain, then `kino plugin trust grain --folder HERE` accepts it"
    );
    site.trust(&TrustOptions::default()).unwrap();
    assert_eq!(site.decide(true), "wasm pinned read [\"luts\"] isolate false 5s");
}

#[test]
fn a_changed_build_version_or_demand_is_refused() {
    let site = Site::new();
    site.trust(&TrustOptions::default()).unwrap();
    site.write("plugins/grain/grain.wasm", "another");
    assert!(
        site.decide(false).contains("its wasm build has another sha256"),
        "{}",
        site.decide(false)
    );
    site.trust(&TrustOptions::default()).unwrap();
    site.write("plugins/grain/plugin.ron", &MANIFEST.replace("luts", "home"));
    assert!(site.decide(false).contains("asks for something else than when"));
    site.write("plugins/grain/plugin.ron", &MANIFEST.replace("1.0.0", "1.1.0"));
    assert!(site.decide(false).contains("is version 1.1.0; version 1.0.0 was accepted"));
    std::fs::remove_file(site.path().join("plugins/grain/grain.wasm")).unwrap();
    assert!(site.decide(false).contains("`kino plugin build HERE/plugins/grain` builds it"));
}

#[test]
fn native_code_is_trusted_by_name_alone() {
    let site = Site::new();
    let native = TrustOptions { native: true, isolate: true, ..TrustOptions::default() };
    site.trust(&native).unwrap();
    assert_eq!(site.decide(true), "native pinned read [\"luts\"] isolate true 5s");
    let mut lock = LockFile::read(site.path()).unwrap();
    lock.plugins.get_mut("grain").unwrap().trust = None;
    lock.write(site.path()).unwrap();
    assert_eq!(
        site.decide(false),
        "the plugin `grain` is native code, which is not trusted by name / look at \
         HERE/plugins/grain, then `kino plugin trust grain --native --isolate --folder HERE` accepts it"
    );
    site.write("plugins/grain/plugin.ron", &MANIFEST.replace("wasm: \"grain.wasm\",", ""));
    let refused = site.trust(&TrustOptions::default()).unwrap_err();
    assert!(refused.to_string().contains("native code, which can do whatever you can"));
}

#[test]
fn what_a_lock_says_of_native_code_counts_where_the_user_has_said_it() {
    let site = Site::new();
    let native = TrustOptions { native: true, ..TrustOptions::default() };
    for dev in [false, true] {
        site.trust(&TrustOptions { dev, ..native.clone() }).unwrap();
        assert!(site.decide(false).starts_with("native"));
        // The folder with its lock comes to somebody else.
        std::fs::remove_dir_all(site.data()).unwrap();
        // The pin is advised, not every later build.
        assert_eq!(
            site.decide(false),
            "the plugin `grain` is native code, which the lock file trusts, but you have not \
             accepted it here / look at HERE/plugins/grain, then `kino plugin trust grain \
             --native --folder HERE` accepts it"
        );
    }
    let lock = r#"(version: 1, plugins: {"grain": (kind: wasm, dev: "x", grants: (read: ["/"]))})"#;
    site.write("kino.lock.ron", lock);
    let said = LockFile::read(site.path()).unwrap_err().to_string();
    assert!(said.contains("the grants of `grain`: what a plugin reads is a path"), "{said}");
}

#[test]
fn a_folder_at_work_takes_every_build_but_not_under_locked() {
    let site = Site::new();
    site.trust(&TrustOptions { dev: true, ..TrustOptions::default() }).unwrap();
    site.write("plugins/grain/grain.wasm", "another");
    assert!(site.decide(false).starts_with("wasm dev"));
    assert!(site.decide(true).contains("is trusted in dev mode, which --locked refuses"));
    let lock = LockFile::read(site.path()).unwrap();
    assert_eq!(lock.plugins["grain"].dev.as_deref(), Some("plugins/grain"));
    assert_eq!(lock.plugins["grain"].kind, BuildKind::Wasm);
}

#[test]
fn two_plugins_that_claim_one_node_are_both_named() {
    let site = Site::new();
    site.write("plugins/other/plugin.ron", &MANIFEST.replace("\"grain\"", "\"other\""));
    let shelf = PluginIndex::scan(site.path(), None).unwrap();
    let conflicts = shelf.conflicts(|_| false).join("\n");
    let conflicts = conflicts.replace(&site.path().display().to_string(), "HERE");
    assert_eq!(
        conflicts,
        "two plugins claim the node `film.grain`: `grain` (HERE/plugins/grain) and `other` \
         (HERE/plugins/other)"
    );
    assert!(shelf.conflicts(|node| node == "film.grain")[0].contains("which is built in"));
}

#[test]
fn a_manifest_says_what_is_wrong_and_where() {
    let parse =
        |text: &str| Manifest::parse(text, Path::new("plugin.ron")).unwrap_err().to_string();
    let cases = [
        ("Plugin(id: \"a\",", "plugin.ron:1:"),
        ("Plugin(id: \"a\", version: \"1\", nodes: [], colour: 1)", "colour"),
        (
            "Plugin(\n  id: \"A b\", version: \"1\", nodes: [\"x.y\"])",
            "plugin.ron:2:7: `id` is letters",
        ),
        (
            "Plugin(id: \"a\", version: \"1\\u{1b}\", nodes: [\"x.y\"])",
            "without control characters",
        ),
        ("Plugin(id: \"a\", version: \"1\", nodes: [])", "at least one"),
        ("Plugin(id: \"a\", version: \"1\", nodes: [\"x\"], wasm: \"a\")", "such as `film.grain`"),
        ("Plugin(id: \"a\", version: \"1\", nodes: [\"x.y\"])", "neither a `native`"),
        ("Plugin(id: \"a\", version: \"1\", nodes: [\"x.y\"], wasm: \"../a\")", "no file name"),
        (
            "Plugin(id: \"a\", version: \"1\", nodes: [\"x.y\"], wasm: \"a\", asks: (memory: \"1X\"))",
            "`1X` is no size",
        ),
    ];
    for (text, expected) in cases {
        assert!(parse(text).contains(expected), "{text}: {}", parse(text));
    }
}

#[test]
fn a_lock_keeps_what_it_does_not_touch_and_is_the_same_text_again() {
    let site = Site::new();
    let other = r#"Lock(version: 1, plugins: {"other": (kind: "wasm", sha256: "00")})"#;
    site.write("kino.lock.ron", other);
    let error = LockFile::read(site.path()).unwrap_err().to_string();
    assert!(error.contains("kino.lock.ron:1:"), "{error}");
    site.write("kino.lock.ron", &other.replace("\"wasm\"", "wasm"));
    site.trust(&TrustOptions::default()).unwrap();
    let first = std::fs::read_to_string(site.path().join("kino.lock.ron")).unwrap();
    site.trust(&TrustOptions::default()).unwrap();
    assert_eq!(first, std::fs::read_to_string(site.path().join("kino.lock.ron")).unwrap());
    assert_eq!(LockFile::read(site.path()).unwrap().plugins["other"].sha256, "00");
    site.write("kino.lock.ron", "(version: 2)");
    assert!(LockFile::read(site.path()).unwrap_err().to_string().contains("its version is 2"));
}

#[test]
fn the_command_repeats_what_was_accepted_beyond_the_asking() {
    let site = Site::new();
    let options = TrustOptions {
        native: true,
        read: vec!["my luts".into(), "luts".into()],
        memory: Some("2GB".into()),
        seconds: Some(5.0),
        ..TrustOptions::default()
    };
    site.trust(&options).unwrap();
    site.write(&format!("plugins/grain/{}", kino_host::library_name("grain")), "another");
    let said = site.decide(false);
    assert!(
        said.contains("trust grain --native --read 'my luts' --memory 2GB --folder HERE`"),
        "{said}"
    );
}

#[test]
fn a_plugin_that_was_at_work_is_found_when_it_is_pinned() {
    for place in [".", "mine", "deep/mine"] {
        let site = Site::new();
        std::fs::remove_dir_all(site.path().join("plugins")).unwrap();
        site.write(&format!("{place}/plugin.ron"), MANIFEST);
        site.write(&format!("{place}/grain.wasm"), "component");
        site.write(
            "kino.lock.ron",
            &format!(r#"(version: 1, plugins: {{"grain": (kind: wasm, dev: "{place}")}})"#),
        );
        // A lock file that travelled says nothing for this user.
        let said = site.decide(false);
        assert!(said.contains("is in dev mode by its lock file, but you have not"), "{said}");
        site.trust(&TrustOptions { dev: true, ..TrustOptions::default() }).unwrap();
        assert!(site.decide(false).starts_with("wasm dev"), "{place}");
        site.trust(&TrustOptions::default()).unwrap();
        assert!(site.decide(true).starts_with("wasm pinned"), "{place}");
        site.trust(&TrustOptions { dev: true, ..TrustOptions::default() }).unwrap();
        let lock = LockFile::read(site.path()).unwrap();
        assert_eq!(lock.plugins["grain"].folder_path(), Some(place));
        assert_eq!(lock.plugins["grain"].folder, None);
    }
}

#[test]
fn a_word_of_trust_that_is_none_is_told() {
    let site = Site::new();
    let write = |trust: &str| {
        let lock = format!(r#"(version: 1, plugins: {{"grain": (kind: native, trust: {trust})}})"#);
        site.write("kino.lock.ron", &lock);
        LockFile::read(site.path())
    };
    assert_eq!(write("native").unwrap().plugins["grain"].trust, Some(BuildKind::Native));
    let error = write("isolated").unwrap_err().to_string();
    assert!(error.contains("`trust` is `native` or left out (`isolate: true`"), "{error}");
    assert!(error.contains("found `isolated`") && error.contains("kino.lock.ron:1:"), "{error}");
}

#[test]
fn trust_in_a_folder_at_work_is_not_trust_in_another() {
    let site = Site::new();
    site.write("kino.lock.ron", r#"(version: 1, plugins: {"grain": (kind: wasm, dev: "mine")})"#);
    let said = site.decide(false);
    assert!(said.contains("is trusted in dev mode in the folder mine, not in this one"), "{said}");
}

#[test]
fn a_copy_of_the_users_gives_way_to_the_one_that_the_lock_names() {
    let site = Site::new();
    let user = site.path().join("user/plugins");
    site.write("user/plugins/grain/plugin.ron", MANIFEST);
    site.write("user/plugins/.new-a1b2c3/plugin.ron", MANIFEST);
    site.write("user/plugins/other/plugin.ron", &MANIFEST.replace("grain", "other"));
    let folders = |shelf: &PluginIndex| {
        let folders = shelf.found.iter().map(|found| found.folder.strip_prefix(site.path()));
        folders.map(|folder| folder.unwrap().display().to_string()).collect::<Vec<_>>()
    };
    let both = PluginIndex::scan(site.path(), Some(&user)).unwrap();
    assert_eq!(folders(&both), ["plugins/grain", "user/plugins/grain", "user/plugins/other"]);
    let said = both.conflicts(|_| false).join("\n");
    let said = said.replace(&site.path().display().to_string(), "HERE");
    let expected = "two plugins are called `grain`: in HERE/plugins/grain and in \
                    HERE/user/plugins/grain";
    assert_eq!(said, expected);
    site.trust(&TrustOptions::default()).unwrap();
    let one = PluginIndex::scan(site.path(), Some(&user)).unwrap();
    assert_eq!(folders(&one), ["plugins/grain", "user/plugins/other"]);
    assert_eq!(one.conflicts(|_| false), [""; 0]);
    let other = one.plugin("other").unwrap();
    let refused =
        allowed_build(other, site.path(), &LockFile::default(), &Consent::default(), false)
            .unwrap_err();
    let hint = refused.hint().unwrap();
    assert!(hint.ends_with("then `kino plugin trust other` accepts it"), "{hint}");
}

#[test]
fn what_can_never_be_read_is_not_granted() {
    let site = Site::new();
    for path in ["", "/etc", "../home", "luts/..", "a\\b", "a\u{1b}[2K"] {
        let options = TrustOptions { read: vec![path.into()], ..TrustOptions::default() };
        assert!(site.trust(&options).is_err(), "{path:?}");
        let asks = MANIFEST.replace("\"luts\"", &format!("{path:?}"));
        let said = Manifest::parse(&asks, Path::new("plugin.ron")).unwrap_err().to_string();
        assert!(said.starts_with("plugin.ron:2:"), "{said}");
    }
}

#[test]
fn a_name_that_stands_twice_in_a_lock_is_refused() {
    let site = Site::new();
    let one = r#""grain": (kind: wasm, sha256: "00")"#;
    site.write("kino.lock.ron", &format!("(version: 1,\nplugins: {{{one},\n{one}}})"));
    let said = LockFile::read(site.path()).unwrap_err().to_string();
    assert!(said.ends_with("`grain` is written twice") && said.contains("ron:3:"), "{said}");
}
