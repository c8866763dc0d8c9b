//! Pulling from a hub that does all right, and from one that does not.

mod server;

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kino_hub::{BlobState, Error, HubAccess, PullEvent, PullRequest, Pulled, Token, pull, verify};
use kino_world::hub::{HubCache, HubModel};
use server::{Hub, Reply, sha256};

fn git_name(bytes: &[u8]) -> String {
    kino_hub::blob_name(bytes, false)
}

const INDEX: &str = r#"{"_class_name": "P", "vae": ["diffusers", "V"]}"#;
const CONFIG: &str = "{\"z\": 4}";

fn weights() -> Vec<u8> {
    (0..200_000_u32).map(|at| ((at * 31) >> 3) as u8).collect()
}

/// A hub with a model of one part, and a cache that is empty.
struct Rig {
    hub: Hub,
    access: HubAccess,
    folder: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let hub = Hub::with(&[
            ("model_index.json", INDEX.as_bytes()),
            ("README.md", b"about"),
            ("vae/config.json", CONFIG.as_bytes()),
            ("vae/diffusion_pytorch_model.safetensors", &weights()),
        ]);
        let folder = tempfile::tempdir().unwrap();
        let access = HubAccess {
            endpoint: hub.endpoint.clone(),
            token: Token::new("hf_secret"),
            cache: HubCache { folder: folder.path().join("hub"), is_offline: false },
            pause: Duration::from_millis(5),
            patience: Duration::from_secs(5),
        };
        Rig { hub, access, folder }
    }

    fn request(&self, source: &str) -> PullRequest {
        let model = HubModel::of_source(source).unwrap().unwrap();
        PullRequest { model, include: Vec::new(), variant: None, dry_run: false }
    }

    fn pull(&self) -> Result<Pulled, Error> {
        pull(&self.access, &self.request("hf:org/tiny"), &|_| {}, &|| false)
    }

    #[track_caller]
    fn fails(&self) -> String {
        let error = self.pull().unwrap_err();
        format!("{error}; {}", error.hint().unwrap_or_default())
    }

    fn at(&self, path: &str) -> PathBuf {
        self.access.cache.folder.join("models--org--tiny").join(path)
    }

    fn weights_blob(&self) -> PathBuf {
        self.at("blobs").join(sha256(&weights()))
    }

    fn partial(&self) -> PathBuf {
        self.weights_blob().with_extension("incomplete")
    }
}

const WEIGHTS: &str = "vae/diffusion_pytorch_model.safetensors";

#[test]
fn what_a_model_needs_lands_in_the_layout_of_the_hub() {
    let rig = Rig::new();
    let pulled = rig.pull().unwrap();
    assert_eq!(pulled.commit, "c".repeat(40));
    let paths: Vec<&str> = pulled.files.iter().map(|file| &*file.path).collect();
    assert_eq!(paths, ["model_index.json", "vae/config.json", WEIGHTS]);
    assert_eq!(fs::read_to_string(rig.at("refs/main")).unwrap(), "c".repeat(40));
    let snapshot = rig.at(&format!("snapshots/{}", "c".repeat(40)));
    assert_eq!(pulled.folder, snapshot);
    assert_eq!(fs::read(snapshot.join(WEIGHTS)).unwrap(), weights());
    assert_eq!(fs::read_to_string(snapshot.join("vae/config.json")).unwrap(), CONFIG);
    #[cfg(unix)]
    {
        let link = fs::read_link(snapshot.join(WEIGHTS)).unwrap();
        assert_eq!(link, PathBuf::from(format!("../../../blobs/{}", sha256(&weights()))));
        let link = fs::read_link(snapshot.join("model_index.json")).unwrap();
        assert_eq!(link, PathBuf::from(format!("../../blobs/{}", git_name(INDEX.as_bytes()))));
    }
    // Again: the hub is asked for the commit and nothing else, and nothing is fetched.
    rig.hub.taken();
    let again = rig.pull().unwrap();
    assert!(again.files.iter().all(|file| file.fetched == 0));
    let asked = rig.hub.taken();
    assert!(asked.iter().all(|request| !request.is_cdn), "{asked:?}");
    // By its commit, by a pull request's name, and one file that was not asked for before.
    let by = |source: &str| pull(&rig.access, &rig.request(source), &|_| {}, &|| false).unwrap();
    by(&format!("hf:org/tiny@{}", "c".repeat(40)));
    by("hf:org/tiny@refs/pr/1");
    assert!(rig.at("refs/refs/pr/1").is_file());
    let one = by("hf:org/tiny/README.md");
    assert_eq!(one.files.len(), 1);
    assert_eq!(fs::read_to_string(snapshot.join("README.md")).unwrap(), "about");
}

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let rig = Rig::new();
    rig.pull().unwrap();
    let asked = rig.hub.taken();
    let (cdn, hub): (Vec<_>, Vec<_>) = asked.iter().partition(|request| request.is_cdn);
    assert!(!cdn.is_empty() && !hub.is_empty());
    assert!(hub.iter().all(|r| r.header("authorization") == Some("Bearer hf_secret")));
    assert!(cdn.iter().all(|r| r.header("authorization").is_none()), "{cdn:?}");
}

#[test]
fn a_dry_run_says_how_much_and_writes_nothing() {
    let rig = Rig::new();
    let request = PullRequest { dry_run: true, ..rig.request("hf:org/tiny") };
    let pulled = pull(&rig.access, &request, &|_| {}, &|| false).unwrap();
    let bytes: u64 = pulled.files.iter().map(|file| file.fetched).sum();
    assert_eq!(bytes as usize, weights().len() + INDEX.len() + CONFIG.len());
    assert!(!rig.access.cache.folder.exists());
}

#[test]
fn what_is_cut_off_goes_on_where_it_ended() {
    let rig = Rig::new();
    // Every answer ends after a quarter.
    rig.hub.rule(|request, mut reply| {
        reply.cut = request.is_cdn.then_some(50_000);
        reply
    });
    rig.pull().unwrap();
    let ranges: Vec<_> = rig.hub.taken();
    let ranges: Vec<_> = ranges.iter().filter(|request| request.is_cdn).collect();
    let ranges: Vec<_> = ranges.iter().map(|request| request.header("range")).collect();
    assert_eq!(ranges[0], None);
    assert!(ranges.len() >= 4 && ranges[1..].iter().all(Option::is_some), "{ranges:?}");
    assert_eq!(fs::read(rig.weights_blob()).unwrap(), weights());
    assert!(!rig.partial().exists());

    // Where no more comes, it ends; the next time goes on.
    let rig = Rig::new();
    let first = AtomicBool::new(true);
    rig.hub.rule(move |request, mut reply| {
        if request.is_cdn {
            let cut = if first.swap(false, Ordering::Relaxed) { 70_000 } else { 0 };
            reply.cut = Some(cut);
        }
        reply
    });
    let told = rig.fails();
    assert!(told.contains("was cut off") && told.contains("goes on where it ended"), "{told}");
    assert_eq!(fs::metadata(rig.partial()).unwrap().len(), 70_000);
    let model = HubModel::of_source("hf:org/tiny").unwrap().unwrap();
    let gaps = rig.access.cache.gaps(&rig.access.cache.find(&model).unwrap());
    assert!(gaps.iter().any(|gap| gap.path == WEIGHTS && gap.bytes == Some(130_000)), "{gaps:?}");
    rig.hub.taken();
    rig.hub.rule(|_, reply| reply);
    let pulled = rig.pull().unwrap();
    assert_eq!(pulled.files[2].fetched, 130_000);
    let asked = rig.hub.taken();
    let range = asked.iter().find(|request| request.is_cdn).unwrap().header("range");
    assert_eq!(range, Some("bytes=70000-"));
}

/// A mirror that gives large files itself leads to another of its own paths.
#[test]
fn a_redirect_that_says_what_it_leads_to_is_described_by_that() {
    let rig = Rig::new();
    rig.hub.rule(|request, reply| match (request.path.as_str(), reply.status) {
        ("/own/blob", _) => Reply::new(200, weights()),
        (_, 302) => reply.with("Location", "/own/blob"),
        _ => reply,
    });
    rig.pull().unwrap();
    assert_eq!(fs::read(rig.weights_blob()).unwrap(), weights());
}

#[test]
fn a_hub_that_knows_no_ranges_begins_anew() {
    let rig = Rig::new();
    rig.pull().unwrap();
    fs::remove_file(rig.weights_blob()).unwrap();
    fs::write(rig.partial(), &weights()[..1000]).unwrap();
    rig.hub.rule(|request, reply| match request.is_cdn {
        true => Reply::new(200, weights()),
        false => reply,
    });
    rig.pull().unwrap();
    assert_eq!(fs::read(rig.weights_blob()).unwrap(), weights());
}

#[test]
fn what_an_earlier_time_left_damaged_is_fetched_anew() {
    let rig = Rig::new();
    fs::create_dir_all(rig.at("blobs")).unwrap();
    for left in [vec![7; 1000], vec![7; 200_000], vec![7; 300_000]] {
        fs::write(rig.partial(), left).unwrap();
        rig.pull().unwrap();
        assert_eq!(fs::read(rig.weights_blob()).unwrap(), weights());
        fs::remove_file(rig.weights_blob()).unwrap();
    }
}

#[test]
fn contents_of_another_hash_never_stand_at_their_place() {
    for is_large in [true, false] {
        let rig = Rig::new();
        rig.hub.rule(move |request, mut reply| {
            let is_config = request.path.ends_with("vae/config.json") && request.method == "GET";
            if is_large && request.is_cdn || !is_large && is_config {
                reply.body[3] ^= 1;
            }
            reply
        });
        let told = rig.fails();
        assert!(told.contains("what arrived has the hash"), "{told}");
        assert!(told.contains("was thrown away"), "{told}");
        let blob = if is_large {
            rig.weights_blob()
        } else {
            rig.at("blobs").join(git_name(CONFIG.as_bytes()))
        };
        assert!(!blob.exists() && !blob.with_extension("incomplete").exists());
        let path = if is_large { WEIGHTS } else { "vae/config.json" };
        assert!(!rig.at(&format!("snapshots/{}/{path}", "c".repeat(40))).exists());
    }
}

#[test]
fn failures_that_pass_are_waited_for() {
    let rig = Rig::new();
    let mut seen = std::collections::BTreeMap::new();
    rig.hub.rule(move |request, reply| {
        let times = seen.entry((request.method.clone(), request.path.clone())).or_insert(0);
        *times += 1;
        match *times {
            1 => Reply::new(500, "down"),
            2 => Reply::new(429, "slow down"),
            _ => reply,
        }
    });
    let retries = Mutex::new(0);
    let tell = |event: PullEvent<'_>| {
        if let PullEvent::Retrying { reason } = event {
            assert!(reason.contains("the hub answers 500") || reason.contains("429"), "{reason}");
            *retries.lock().unwrap() += 1;
        }
    };
    pull(&rig.access, &rig.request("hf:org/tiny"), &tell, &|| false).unwrap();
    assert!(*retries.lock().unwrap() >= 8);
    rig.hub.rule(|_, _| Reply::new(503, "down"));
    let told = rig.fails();
    assert!(told.contains("the hub answers 503"), "{told}");
}

#[test]
fn who_may_not_read_is_told_how_to_say_who_it_is() {
    let rig = Rig::new();
    rig.hub.rule(|_, _| Reply::new(403, "").with("X-Error-Message", "Access is restricted."));
    let told = rig.fails();
    assert!(told.contains("does not give it (403: Access is restricted."), "{told}");
    assert!(told.contains("its token must be allowed"), "{told}");
    assert!(told.contains(&format!("says so on {}/org/tiny", rig.hub.endpoint)), "{told}");
    let mut rig = rig;
    rig.access.token = None;
    rig.hub.rule(|_, _| Reply::new(401, "").with("X-Error-Message", "Invalid username"));
    let told = rig.fails();
    assert!(told.contains("(401: Invalid username); no token was sent"), "{told}");
    assert!(told.contains("HF_TOKEN"), "{told}");
}

#[test]
fn what_is_not_there_is_told_by_its_name() {
    let rig = Rig::new();
    let fails = |source: &str| {
        pull(&rig.access, &rig.request(source), &|_| {}, &|| false).unwrap_err().to_string()
    };
    assert_eq!(fails("hf:org/none"), "hf:org/none is not on the hub (404)");
    assert_eq!(fails("hf:org/tiny@v9"), "hf:org/tiny@v9 is not on the hub (404)");
    assert_eq!(fails("hf:org/tiny/vae/x.json"), "no file of it fits `vae/x.json`");
    let offline = HubCache { is_offline: true, ..rig.access.cache.clone() };
    let access = HubAccess { cache: offline, ..rig.access.clone() };
    rig.hub.taken();
    let error = pull(&access, &rig.request("hf:org/tiny"), &|_| {}, &|| false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "HF_HUB_OFFLINE is set, so that nothing of hf:org/tiny is fetched"
    );
    assert!(rig.hub.taken().is_empty());
    let access = HubAccess { endpoint: "http://127.0.0.1:9".into(), ..rig.access.clone() };
    let error = pull(&access, &rig.request("hf:org/tiny"), &|_| {}, &|| false).unwrap_err();
    assert!(error.to_string().contains("http://127.0.0.1:9 cannot be reached"), "{error}");
}

#[test]
fn what_a_hostile_hub_says_leads_nowhere() {
    // Names of files, of blobs and of commits; lengths that no disk has; where to go on.
    type Change = fn(&server::Request, Reply) -> Reply;
    let cases: [(&str, Change); 9] = [
        ("cannot be a file's name", |r, reply| match r.path.ends_with("vae/config.json") {
            true => reply.with("ETag", "\"../../../../x\""),
            false => reply,
        }),
        ("which is none", |r, reply| match r.path.starts_with("/api/") {
            true => Reply::new(200, r#"{"sha": "../../x", "siblings": []}"#),
            false => reply,
        }),
        ("does not read", |r, reply| match r.path.starts_with("/api/") {
            true => Reply::new(200, "<html>"),
            false => reply,
        }),
        ("free, and", |r, reply| match r.path.ends_with(".safetensors") {
            true => reply.with("X-Linked-Size", u64::MAX - 1),
            false => reply,
        }),
        ("does not say how long", |r, reply| match r.path.ends_with(".safetensors") {
            true => reply.with("X-Linked-Size", "-7"),
            false => reply,
        }),
        ("leads on more than 5 times", |r, reply| match r.path.ends_with("vae/config.json") {
            true => Reply::new(307, "").with("Location", &r.path),
            false => reply,
        }),
        ("no address to follow", |r, reply| match r.path.ends_with("vae/config.json") {
            true => Reply::new(302, "").with("Location", "file:///etc/passwd"),
            false => reply,
        }),
        ("asked for cccc", |r, reply| match r.path.ends_with("vae/config.json") {
            true => reply.with("X-Repo-Commit", "d".repeat(40)),
            false => reply,
        }),
        ("longer than 16777216 bytes", |r, reply| match r.path.ends_with("model_index.json") {
            true => reply.with("Content-Length", 1_u64 << 40),
            false => reply,
        }),
    ];
    for (expected, change) in cases {
        let rig = Rig::new();
        rig.hub.rule(change);
        let told = rig.fails();
        assert!(told.contains(expected), "{expected}: {told}");
        let outside: Vec<_> = fs::read_dir(rig.folder.path()).unwrap().flatten().collect();
        assert!(outside.iter().all(|entry| entry.file_name() == "hub"), "{outside:?}");
    }
    let rig = Rig::new();
    let mut repo = rig.hub.repo.lock().unwrap();
    repo.files.insert("vae/../../../../x.json".into(), b"x".to_vec());
    drop(repo);
    let told = rig.fails();
    assert!(told.contains("which could lead elsewhere"), "{told}");
    // More than was said: only so much is taken, and its hash is wrong.
    let rig = Rig::new();
    rig.hub.rule(|request, reply| match request.is_cdn {
        true => Reply::new(200, [&weights()[1..], &[0; 100_000]].concat()),
        false => reply,
    });
    assert!(rig.fails().contains("what arrived has the hash"));
}

#[test]
fn a_connection_that_says_nothing_more_is_given_up() {
    let mut rig = Rig::new();
    rig.access.patience = Duration::from_millis(100);
    let mut times = 0;
    rig.hub.rule(move |request, mut reply| {
        times += usize::from(request.is_cdn);
        if request.is_cdn && times == 1 {
            reply.slow = Duration::from_millis(400);
        }
        reply
    });
    rig.pull().unwrap();
    assert_eq!(fs::read(rig.weights_blob()).unwrap(), weights());
}

#[test]
fn several_at_once_fetch_each_file_once() {
    let rig = Rig::new();
    rig.hub.rule(|request, mut reply| {
        if request.is_cdn {
            reply.slow = Duration::from_millis(15);
        }
        reply
    });
    std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..5).map(|_| scope.spawn(|| rig.pull().map(drop))).collect();
        pulls.into_iter().for_each(|pull| pull.join().unwrap().unwrap());
    });
    let asked = rig.hub.taken();
    assert_eq!(asked.iter().filter(|request| request.is_cdn).count(), 1);
    assert_eq!(fs::read(rig.weights_blob()).unwrap(), weights());
}

#[test]
fn a_pull_that_is_cancelled_leaves_what_arrived() {
    let rig = Rig::new();
    let stopped = AtomicBool::new(false);
    rig.hub.rule(|request, mut reply| {
        if request.is_cdn {
            reply.slow = Duration::from_millis(30);
        }
        reply
    });
    let tell = |event: PullEvent<'_>| {
        if matches!(event, PullEvent::Arrived { bytes } if bytes > 10_000) {
            stopped.store(true, Ordering::Relaxed);
        }
    };
    let is_cancelled = || stopped.load(Ordering::Relaxed);
    let error = pull(&rig.access, &rig.request("hf:org/tiny"), &tell, &is_cancelled).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert!(fs::metadata(rig.partial()).unwrap().len() > 0);
    rig.hub.taken();
    rig.pull().unwrap();
    let asked = rig.hub.taken();
    assert!(asked.iter().any(|request| request.header("range").is_some()));
}

#[test]
fn a_new_commit_takes_the_place_of_the_old_when_it_is_there() {
    let rig = Rig::new();
    rig.pull().unwrap();
    rig.hub.repo.lock().unwrap().commit = "d".repeat(40);
    rig.hub.repo.lock().unwrap().files.insert("vae/config.json".into(), b"{}".to_vec());
    rig.hub.rule(|request, reply| match request.path.ends_with("vae/config.json") {
        true if request.method == "GET" => Reply::new(503, ""),
        _ => reply,
    });
    assert!(rig.fails().contains("503"));
    assert_eq!(fs::read_to_string(rig.at("refs/main")).unwrap(), "c".repeat(40));
    rig.hub.rule(|_, reply| reply);
    rig.hub.taken();
    rig.pull().unwrap();
    assert_eq!(fs::read_to_string(rig.at("refs/main")).unwrap(), "d".repeat(40));
    // The weights are the same blob.
    assert!(rig.hub.taken().iter().all(|request| !request.is_cdn));
}

#[test]
fn what_lies_there_is_held_against_its_names() {
    let rig = Rig::new();
    let pulled = rig.pull().unwrap();
    let model = HubModel::of_source("hf:org/tiny").unwrap().unwrap();
    let snapshot = rig.access.cache.find(&model).unwrap();
    let look =
        |remove| verify(&rig.access.cache, &snapshot, remove, &|_, _| {}, &|| false).unwrap();
    assert_eq!(look(false).len(), 3);
    assert!(look(false).iter().all(|file| file.state == BlobState::Good));
    let mut bad = weights();
    bad[100] ^= 1;
    fs::write(rig.weights_blob(), &bad).unwrap();
    fs::remove_file(rig.at("blobs").join(git_name(CONFIG.as_bytes()))).unwrap();
    let found = look(true);
    assert_eq!(found[1].state, BlobState::Missing);
    assert_eq!(found[2].state, BlobState::Damaged { found: sha256(&bad) });
    // What was damaged is gone, and is fetched again.
    assert!(!rig.weights_blob().exists());
    rig.pull().unwrap();
    assert!(look(false).iter().all(|file| file.state == BlobState::Good));
    assert_eq!(pulled.files.len(), 3);
}
