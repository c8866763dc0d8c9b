//! Models of the hub and of ComfyUI's folders through the command: fetched, listed, shown,
//! verified, and named by graphs. The hub is one of the tests' own.

mod common;
#[path = "../../hub/tests/server/mod.rs"]
mod server;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use common::{Place, Ran};
use serde_json::Value;
use server::{Hub, Reply};

fn git_name(bytes: &[u8]) -> String {
    kino_session::hub::blob_name(bytes, false)
}

/// The same with problems on one line, however they were broken.
fn flat(mut ran: Ran) -> Ran {
    let words = ran.err.replace('│', " ");
    ran.err = words.split_whitespace().collect::<Vec<_>>().join(" ");
    ran
}

/// A folder to work in, and a hub that has the embedded model as `org/tiny`.
struct Rig {
    place: Place,
    hub: Hub,
}

/// The files of the embedded model.
fn files() -> Vec<(&'static str, &'static [u8])> {
    kino_shapes::FILES.iter().map(|(path, bytes, ..)| (*path, *bytes)).collect()
}

/// The longest file of the model.
const DIT: &str = "transformer/diffusion_pytorch_model.safetensors";

impl Rig {
    fn new() -> Self {
        Rig { place: Place::new(), hub: Hub::with(&files()) }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(args);
        for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"] {
            command.env_remove(name);
        }
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command.env_remove("KINO_MODELS").env("HF_HOME", self.place.path("hf"));
        command.env("HF_ENDPOINT", &self.hub.endpoint);
        command
    }

    /// Runs the command; what it says of problems is on one line.
    fn kino(&self, args: &[&str]) -> Ran {
        flat(Ran::of(self.command(args).output().unwrap()))
    }

    #[track_caller]
    fn ends(&self, code: i32, args: &[&str]) -> String {
        let ran = self.kino(args);
        assert_eq!(ran.code, code, "{args:?}\n{}\n{}", ran.out, ran.err);
        ran.out + &ran.err
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let ran = self.kino(&[args, &["--json"]].concat());
        let last = ran.out.lines().last().unwrap_or_else(|| panic!("{args:?}: {}", ran.err));
        serde_json::from_str(last).unwrap()
    }

    /// A graph that makes a picture with the model of a source, and more nodes.
    fn graph(&self, name: &str, source: &str) {
        let text = format!(
            "Graph(version: 1, nodes: {{\n\
             \"model\": (op: \"model.load\", with: {{\"source\": {source:?}}}),\n\
             \"text\": (op: \"text.encode\", in: {{\"encoder\": \"model.text_encoder\"}},\n\
                 with: {{\"prompt\": \"a red circle stays still on a white background\"}}),\n\
             \"noise\": (op: \"latent.noise\", in: {{\"vae\": \"model.vae\"}},\n\
                 with: {{\"width\": 32, \"height\": 32, \"seed\": 1}}),\n\
             \"patches\": (op: \"patchify\", in: {{\"latents\": \"noise\", \"dit\": \"model.dit\"}}),\n\
             \"sample\": (op: \"dit.sample\", in: {{\"dit\": \"model.dit\", \"patches\": \"patches\", \
                 \"text\": \"text\"}}, with: {{\"steps\": 2}}),\n\
             \"latent\": (op: \"unpatchify\", in: {{\"patches\": \"sample.patches\"}}),\n\
             \"frame\": (op: \"vae.decode\", in: {{\"vae\": \"model.vae\", \"latent\": \"latent\"}}),\n\
             \"file\": (op: \"image.write\", in: {{\"frames\": \"frame\"}}, with: {{\"path\": \"{name}.png\"}}),\n\
             }}, outputs: {{\"file\": \"file\"}})"
        );
        self.place.write(&format!("{name}.ron"), text);
    }

    fn pixels(&self, name: &str) -> Vec<u8> {
        let file = std::io::BufReader::new(fs::File::open(self.place.path(name)).unwrap());
        let mut reader = png::Decoder::new(file).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        pixels
    }

    fn snapshot(&self) -> PathBuf {
        self.place.path(&format!("hf/hub/models--org--tiny/snapshots/{}", "c".repeat(40)))
    }
}

#[test]
fn a_graph_names_a_model_of_the_hub_which_is_fetched_by_pull_alone() {
    let rig = Rig::new();
    rig.graph("hub", "hf:org/tiny");
    rig.graph("embedded", "embedded:shapes");
    // Checking and planning reach no network, and say which command does.
    for (command, code) in [("check", 0), ("plan", 2), ("run", 2)] {
        let told = rig.ends(code, &[command, "hub.ron"]);
        assert!(told.contains("hf:org/tiny is not in the local Hugging Face cache"), "{told}");
        assert!(
            told.contains("`kino models pull hf:org/tiny` (or `hf download org/tiny`)"),
            "{told}"
        );
    }
    assert!(rig.hub.taken().is_empty(), "only a pull asks the hub");
    let told = rig.ends(0, &["models", "pull", "hf:org/tiny", "--dry-run"]);
    assert!(told.contains("would fetch") && told.contains(DIT), "{told}");
    assert!(!rig.place.path("hf").exists());
    let told = rig.ends(0, &["models", "pull", "hf:org/tiny"]);
    assert!(told.contains("11 files, ") && told.contains("; fetched "), "{told}");
    rig.hub.taken();
    rig.ends(0, &["run", "hub.ron", "--quiet"]);
    rig.ends(0, &["run", "embedded.ron", "--quiet"]);
    assert!(rig.hub.taken().is_empty());
    assert_eq!(rig.pixels("out/hub.png"), rig.pixels("out/embedded.png"));
    // By its commit, and by the older word for the hub.
    for source in [format!("hf:org/tiny@{}", "c".repeat(40)), "hub:org/tiny".to_owned()] {
        rig.graph("other", &source);
        rig.ends(0, &["plan", "other.ron", "--short"]);
    }
    assert!(rig.ends(0, &["models", "pull", "hf:org/tiny"]).contains("all was there"));
    let told = rig.ends(2, &["models", "pull", "org/tiny"]);
    assert!(told.contains("expected a model of the Hugging Face Hub, hf:OWNER/NAME"), "{told}");
}

#[test]
fn a_pull_that_was_cut_off_is_told_with_what_is_left() {
    let rig = Rig::new();
    rig.graph("hub", "hf:org/tiny");
    let weights = files().into_iter().find(|(path, _)| *path == DIT).unwrap().1;
    let (half, dit) = (weights.len() / 2, server::sha256(weights));
    let mut is_first = true;
    let blob = format!("/blob/{dit}");
    rig.hub.rule(move |request, mut reply| {
        if request.path == blob {
            reply.cut = Some(if std::mem::take(&mut is_first) { half } else { 0 });
        }
        reply
    });
    let told = rig.ends(1, &["models", "pull", "hf:org/tiny"]);
    assert!(told.contains("was cut off") && told.contains("goes on where it ended"), "{told}");
    let told = rig.ends(2, &["plan", "hub.ron"]);
    assert!(told.contains("`kino models pull hf:org/tiny`"), "{told}");
    assert!(told.contains("fetches ") && told.contains("MB"), "{told}");
    let offline = rig.command(&["plan", "hub.ron"]).env("HF_HUB_OFFLINE", "1").output();
    let told = flat(Ran::of(offline.unwrap())).err;
    assert!(told.contains("HF_HUB_OFFLINE is set: without it, `kino models pull"), "{told}");
    let shown = rig.json(&["models", "show", "hf:org/tiny"]);
    assert_eq!(shown["missing"][0]["path"], DIT);
    assert_eq!(shown["missing"][0]["begun"], half);
    let told = rig.ends(1, &["models", "show", "hf:org/tiny"]);
    assert!(told.contains("missing") && told.contains("lie there of a download"), "{told}");
    let offline =
        rig.command(&["models", "pull", "hf:org/tiny"]).env("HF_HUB_OFFLINE", "1").output();
    let ran = flat(Ran::of(offline.unwrap()));
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("HF_HUB_OFFLINE is set"), "{}", ran.err);
    rig.hub.rule(|_, reply| reply);
    rig.ends(0, &["models", "pull", "hf:org/tiny"]);
    rig.ends(0, &["plan", "hub.ron"]);
}

#[cfg(unix)]
#[test]
fn links_that_lead_nowhere_and_damage_are_found_and_mended() {
    let rig = Rig::new();
    rig.graph("hub", "hf:org/tiny");
    rig.ends(0, &["models", "pull", "hf:org/tiny"]);
    assert!(rig.ends(0, &["models", "verify"]).contains("11 files, "));
    let dit = rig.snapshot().join(DIT).canonicalize().unwrap();
    let mut bytes = fs::read(&dit).unwrap();
    let at = bytes.len() - 5;
    bytes[at] ^= 1;
    fs::write(&dit, &bytes).unwrap();
    let vae = rig.snapshot().join("vae/diffusion_pytorch_model.safetensors");
    fs::remove_file(vae.canonicalize().unwrap()).unwrap();
    let told = rig.ends(2, &["plan", "hub.ron"]);
    assert!(told.contains("its link leads nowhere"), "{told}");
    assert!(told.contains("`kino models pull hf:org/tiny`"), "{told}");
    let shown = rig.json(&["models", "list"]);
    let models = shown["models"].as_array().unwrap();
    let tiny = models.iter().find(|model| model["source"] == "hf:org/tiny").unwrap();
    assert_eq!(tiny["missing"][0]["broken_link"], true);
    let told = rig.ends(1, &["models", "verify", "hf:org/tiny"]);
    assert!(told.contains("2 files not good"), "{told}");
    assert!(told.contains(&format!("damaged {DIT}")), "{told}");
    let found = rig.json(&["models", "verify", "hf:org/tiny", "--remove"]);
    let files = found["models"][0]["files"].as_array().unwrap();
    let states: Vec<_> = files.iter().filter(|file| file["state"] != "good").collect();
    assert_eq!(states.len(), 2, "{states:?}");
    rig.ends(0, &["models", "pull", "hf:org/tiny"]);
    rig.ends(0, &["models", "verify", "hf:org/tiny"]);
    rig.ends(0, &["plan", "hub.ron"]);
}

/// What another program left of a download says nothing of what is missing, but what it is.
#[test]
fn a_snapshot_of_another_program_that_is_incomplete_names_the_command_that_completes_it() {
    let rig = Rig::new();
    rig.graph("hub", "hf:org/tiny");
    rig.ends(0, &["models", "pull", "hf:org/tiny"]);
    fs::remove_dir_all(rig.place.path("hf/hub/models--org--tiny/.kino")).unwrap();
    for path in ["transformer/config.json", "vae/diffusion_pytorch_model.safetensors"] {
        fs::remove_file(rig.snapshot().join(path)).unwrap();
        for args in [["plan", "hub.ron"].as_slice(), &["models", "show", "hf:org/tiny"]] {
            let ran = rig.kino(args);
            let told = ran.out + &ran.err;
            assert!(ran.code != 0 && told.contains("is missing"), "{told}");
            assert!(told.contains("`kino models pull hf:org/tiny`"), "{told}");
        }
        rig.ends(0, &["models", "pull", "hf:org/tiny"]);
        rig.ends(0, &["plan", "hub.ron"]);
        fs::remove_dir_all(rig.place.path("hf/hub/models--org--tiny/.kino")).unwrap();
    }
}

/// A repository that lacks what its own indexes name is told as such when it is pulled, and no
/// later command says to pull it again.
#[test]
fn a_repository_that_is_not_whole_is_told_when_it_is_pulled_and_never_asked_for_again() {
    let rig = Rig::new();
    rig.graph("hub", "hf:org/tiny");
    let index = "transformer/diffusion_pytorch_model.safetensors.index.json";
    let shard =
        |n: u32| format!("transformer/diffusion_pytorch_model-0000{n}-of-00002.safetensors");
    let name = |n: u32| shard(n)["transformer/".len()..].to_owned();
    let mut repo = rig.hub.repo.lock().unwrap();
    let weights = repo.files.remove(DIT).unwrap();
    let map = serde_json::json!({ "weight_map": { "a": name(1), "b": name(2) } });
    repo.files.insert(index.to_owned(), map.to_string().into_bytes());
    repo.files.insert(shard(1), weights);
    repo.files.retain(|path, _| !path.starts_with("vae/"));
    drop(repo);
    let lacks = format!("it lacks {}, vae/, which its indexes name", shard(2));
    for args in [
        ["models", "pull", "hf:org/tiny", "--dry-run"].as_slice(),
        &["models", "pull", "hf:org/tiny"],
    ] {
        let told = rig.ends(1, args);
        assert!(
            told.contains("hf:org/tiny is not whole on the hub") && told.contains(&lacks),
            "{told}"
        );
    }
    let pulled = rig.kino(&["models", "pull", "hf:org/tiny", "--json"]).out;
    let pulled: Value = serde_json::from_str(pulled.lines().next().unwrap()).unwrap();
    assert_eq!(pulled["fetched"], 0, "what there is stays in the cache: {pulled}");
    assert_eq!(pulled["lacking"], serde_json::json!([shard(2), "vae/"]));
    for args in [["plan", "hub.ron"].as_slice(), &["models", "show", "hf:org/tiny"]] {
        let ran = rig.kino(args);
        let told = ran.out + &ran.err;
        assert!(ran.code != 0 && told.contains("itself lacks it on the hub"), "{told}");
        assert!(!told.contains("kino models pull"), "{told}");
    }
    // Files that are named are had as before.
    rig.ends(0, &["models", "pull", &format!("hf:org/tiny/{}", shard(1))]);
    // Its author adds what it lacked.
    let mut repo = rig.hub.repo.lock().unwrap();
    repo.commit = "d".repeat(40);
    let map = serde_json::json!({ "weight_map": { "a": name(1) } });
    repo.files.insert(index.to_owned(), map.to_string().into_bytes());
    let vae = files().into_iter().filter(|(path, _)| path.starts_with("vae/"));
    repo.files.extend(vae.map(|(path, bytes)| (path.to_owned(), bytes.to_vec())));
    drop(repo);
    rig.ends(0, &["models", "pull", "hf:org/tiny"]);
    rig.ends(0, &["plan", "hub.ron"]);
}

#[test]
fn several_processes_pull_at_once() {
    let rig = Rig::new();
    rig.hub.rule(|request, mut reply| {
        if request.is_cdn {
            reply.slow = std::time::Duration::from_millis(20);
        }
        reply
    });
    let started: Vec<_> =
        (0..3).map(|_| rig.command(&["models", "pull", "hf:org/tiny"]).spawn().unwrap()).collect();
    for mut process in started {
        assert!(process.wait().unwrap().success());
    }
    let large = files().into_iter().filter(|(path, _)| path.ends_with(".safetensors"));
    let fetched = rig.hub.taken().iter().filter(|request| request.is_cdn).count();
    assert_eq!(fetched, large.count(), "each file is fetched by one of them");
    rig.ends(0, &["models", "verify"]);
}

#[test]
fn a_token_is_taken_from_the_environment_or_its_file_and_never_shown() {
    let rig = Rig::new();
    rig.hub.rule(|request, reply| match request.header("authorization") {
        Some("Bearer hf_mine") => reply,
        _ if request.is_cdn => reply,
        _ => Reply::new(401, "").with("X-Error-Message", "Access to model org/tiny is restricted."),
    });
    let told = rig.ends(1, &["models", "pull", "hf:org/tiny"]);
    assert!(told.contains("Access to model org/tiny is restricted."), "{told}");
    assert!(told.contains("put a token of yours into HF_TOKEN"), "{told}");
    let args = ["models", "pull", "hf:org/tiny", "-vv"];
    let wrong = Ran::of(rig.command(&args).env("HF_TOKEN", "hf_wrong").output().unwrap());
    assert_eq!(wrong.code, 1);
    assert!(!(wrong.out + &wrong.err).contains("hf_wrong"));
    rig.place.write("hf/token", "hf_mine\n");
    rig.ends(0, &["models", "pull", "hf:org/tiny"]);
    assert_eq!(rig.json(&["models", "where"])["token"], true);
}

/// TLS to the hub goes through the proxy that the environment names: it sees where to, no more.
#[test]
fn a_proxy_is_asked_for_the_hub() {
    let rig = Rig::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let seen = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
            head.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").unwrap();
        String::from_utf8_lossy(&head).into_owned()
    });
    let mut command = rig.command(&["models", "pull", "hf:org/tiny"]);
    command.env("HTTPS_PROXY", proxy).env("HF_ENDPOINT", "https://hub.invalid");
    let mut process = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let head = seen.join().unwrap();
    assert!(head.starts_with("CONNECT hub.invalid:443 HTTP/1.1\r\n"), "{head}");
    process.wait().unwrap();
}

#[test]
fn files_are_found_in_the_folders_of_comfyui() {
    let rig = Rig::new();
    let place = &rig.place;
    place.write("in.png", common::picture(10));
    place.write("comfy/models/upscale_models/x4.safetensors", kino_shapes::VIDEO_X4);
    place.write("more/scalers/other.safetensors", kino_shapes::VIDEO_X4);
    place.write(
        "comfy/extra_model_paths.yaml",
        "mine:\n    base_path: ../more\n    upscale_models: |\n        scalers\n",
    );
    let enlarge = |model: &str| {
        let text = format!(
            "Graph(version: 1, nodes: {{\"in\": (op: \"image.read\", with: {{\"path\": \"in.png\"}}),\n\
             \"large\": (op: \"upscale\", in: {{\"frames\": \"in\"}}, with: {{\"factor\": 4, \"model\": \
             {model:?}}}),\n\"file\": (op: \"image.write\", in: {{\"frames\": \"large\"}}, with: \
             {{\"path\": \"large.png\"}})}}, outputs: {{\"file\": \"file\"}})"
        );
        place.write("large.ron", text);
        rig.kino(&["plan", "large.ron"])
    };
    let told = enlarge("x4.safetensors").err;
    assert!(told.contains("x4.safetensors does not exist"), "{told}");
    rig.ends(0, &["config", "set", "models", "comfy/models", "comfy/extra_model_paths.yaml"]);
    for name in ["x4.safetensors", "other.safetensors"] {
        let ran = enlarge(name);
        assert_eq!((ran.code, &*ran.err), (0, ""), "{name}");
    }
    // Another ending, another case, another kind's folder, a folder in there, a slip.
    place.write("comfy/models/loras/only.safetensors", kino_shapes::VIDEO_X4);
    place.write("comfy/models/upscale_models/deep/net.safetensors", kino_shapes::VIDEO_X4);
    for (written, meant) in [
        ("x4.pth", "x4.safetensors"),
        ("x4.safetensor", "x4.safetensors"),
        ("Other.safetensors", "other.safetensors"),
        ("only.safetensors", "loras/only.safetensors"),
        ("net.safetensors", "deep/net.safetensors"),
    ] {
        if place.path(&format!("more/scalers/{written}")).exists() {
            continue; // A disk that does not tell cases apart.
        }
        let told = enlarge(written).err;
        assert!(told.contains(&format!("did you mean `{meant}`?")), "{written}: {told}");
        assert_eq!(enlarge(meant).code, 0, "{meant}");
    }
    let told = rig.ends(2, &["models", "show", "x4.gguf"]);
    assert!(told.contains("did you mean `x4.safetensors`?"), "{told}");
    let told = enlarge("none.safetensors").err;
    assert!(told.contains("models and there in upscale_models"), "{told}");
    assert!(told.contains("more/scalers, too") && !told.contains("did you mean"), "{told}");
    let told = rig.ends(1, &["models", "show", "comfy/models"]);
    assert!(told.contains("the folder holds several models or files of them"), "{told}");
    assert!(
        told.contains("loras/only.safetensors") && told.contains("config set models"),
        "{told}"
    );
    // Two of one name.
    place.write("more/scalers/x4.safetensors", [kino_shapes::VIDEO_X4, b""].concat());
    let ran = enlarge("x4.safetensors");
    assert_eq!(ran.code, 0);
    let expected = "two models are called x4.safetensors: ";
    assert!(ran.err.contains(expected), "{}", ran.err);
    assert!(
        ran.err.contains("comfy/models/upscale_models/x4.safetensors is taken, not "),
        "{}",
        ran.err
    );
    let listed = rig.json(&["models", "list"]);
    let listed = listed["models"].as_array().unwrap();
    let named: Vec<_> = listed.iter().filter(|one| one["source"] == "x4.safetensors").collect();
    assert_eq!(named.len(), 2, "{listed:?}");
    assert_eq!((&named[0]["shadowed"], &named[1]["shadowed"]), (&false.into(), &true.into()));
    assert_eq!(named[0]["parts"][0]["part"], "upscaler");
    let folders = rig.json(&["models", "where"]);
    assert_eq!(folders["folders"][1]["kind"], "upscale_models");
    // A file of the hub does as well.
    rig.hub.repo.lock().unwrap().files =
        [("nets/x4.safetensors".to_owned(), kino_shapes::VIDEO_X4.to_vec())].into();
    let told = enlarge("hf:org/tiny/nets/x4.safetensors").err;
    assert!(told.contains("`kino models pull hf:org/tiny/nets/x4.safetensors`"), "{told}");
    rig.ends(0, &["models", "pull", "hf:org/tiny/nets/x4.safetensors"]);
    assert_eq!(enlarge("hf:org/tiny/nets/x4.safetensors").code, 0);
    let shown = rig.json(&["models", "show", "hf:org/tiny/nets/x4.safetensors"]);
    assert_eq!(shown["parts"][0]["types"][0]["type"], "F16");

    // Endings in capitals are read, so they are listed; a link to a folder above leads nowhere.
    let upscalers = place.path("comfy/models/upscale_models");
    place.write("comfy/models/upscale_models/LOUD.SAFETENSORS", kino_shapes::VIDEO_X4);
    #[cfg(unix)]
    std::os::unix::fs::symlink("../upscale_models", upscalers.join("again")).unwrap();
    let listed = rig.json(&["models", "list"]);
    let listed: Vec<_> =
        listed["models"].as_array().unwrap().iter().map(|one| &one["source"]).collect();
    let count = |name: &str| listed.iter().filter(|source| ***source == name).count();
    assert_eq!((count("LOUD.SAFETENSORS"), count("x4.safetensors")), (1, 2), "{listed:?}");

    // Folders that are not there are told when they are set; a list that cannot be read is not set.
    let ran = rig.kino(&["config", "set", "models", "comfy/models", "nowhere"]);
    assert!(ran.code == 0 && ran.err.contains("nowhere is not there"), "{}", ran.err);
    place.write("bad.yaml", "comfyui:\n\tx: y\n");
    let told = rig.ends(2, &["config", "set", "models", "bad.yaml"]);
    assert!(told.contains("bad.yaml"), "{told}");
    assert!(rig.ends(0, &["config"]).contains("nowhere"), "what was set before stays");
    rig.ends(0, &["config", "set", "models", "comfy/models", "comfy/extra_model_paths.yaml"]);

    // What is no such file is told with its line by whatever command.
    place.write("comfy/extra_model_paths.yaml", "mine:\n    vae: [a, b]\n");
    let told = rig.ends(2, &["plan", "large.ron"]);
    assert!(told.contains("line 2: expected a folder, found [a, b]"), "{told}");
}

#[test]
fn what_is_at_hand_is_listed_and_shown() {
    let rig = Rig::new();
    let listed = rig.ends(0, &["models", "list"]);
    assert!(listed.starts_with("embedded:shapes  Wan: text_encoder, transformer, vae"), "{listed}");
    let shown = rig.json(&["models", "show", "embedded:shapes"]);
    assert_eq!(shown["family"], "Wan");
    assert_eq!(shown["parts"].as_array().unwrap().len(), 3);
    assert!(shown["parts"][1]["tensors"].as_u64().unwrap() > 10);
    let told = rig.ends(2, &["models", "show", "nowhere"]);
    assert!(told.contains("nowhere is neither a file nor a folder here"), "{told}");
    // Parts whose weights lack something say what.
    for (path, bytes) in files() {
        rig.place.write(&format!("tiny/{path}"), bytes);
    }
    rig.ends(0, &["models", "show", "tiny"]);
    // A table of words that stands there under both of its names is one.
    let encoder = rig.place.path("tiny/text_encoder/model.safetensors");
    let mut tensors = candle_core::safetensors::load(&encoder, &candle_core::Device::Cpu).unwrap();
    let table = |name: &str| tensors.get(name).cloned();
    let table = table("shared.weight").or_else(|| table("encoder.embed_tokens.weight")).unwrap();
    tensors.insert("shared.weight".to_owned(), table.clone());
    tensors.insert("encoder.embed_tokens.weight".to_owned(), table);
    candle_core::safetensors::save(&tensors, &encoder).unwrap();
    rig.ends(0, &["models", "show", "tiny"]);
    // A model that lacks its index is no folder of others.
    let (index, away) = (rig.place.path("tiny/model_index.json"), rig.place.path("away.json"));
    fs::rename(&index, &away).unwrap();
    let told = rig.ends(1, &["models", "show", "tiny"]);
    assert!(told.contains("is missing: the folder is not a complete model"), "{told}");
    fs::rename(&away, &index).unwrap();
    // An encoder without a config whose heads nobody can know.
    let encoder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/ref/wan_i2v/model/image_encoder/model.safetensors"
    );
    rig.place.write("clip.safetensors", fs::read(encoder).unwrap());
    let told = rig.ends(1, &["models", "show", "clip.safetensors"]);
    assert!(told.contains("known are the widths 768, 1024, 1280, 1664"), "{told}");
    // A part of it is no model.
    let told = rig.ends(1, &["models", "show", "tiny/transformer"]);
    assert!(told.contains("one part of a model alone, its transformer (WanTransf"), "{told}");
    assert!(told.contains("the folder above it is the model"), "{told}");
    for name in ["config.json", "diffusion_pytorch_model.safetensors"] {
        let bytes = fs::read(rig.place.path(&format!("tiny/vae/{name}"))).unwrap();
        rig.place.write(&format!("alone/{name}"), bytes);
    }
    rig.graph("alone", "alone");
    let told = rig.ends(2, &["plan", "alone.ron"]);
    assert!(
        told.contains("its file diffusion_pytorch_model.safetensors goes to the port `vae`"),
        "{told}"
    );
    // An index that names another scheduler.
    let index = rig.place.path("tiny/model_index.json");
    let mut text: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    text["scheduler"][1] = "FlowMatchEulerDiscreteScheduler".into();
    fs::write(&index, text.to_string()).unwrap();
    rig.graph("tiny", "tiny");
    let told = rig.ends(0, &["plan", "tiny.ron"]);
    assert!(
        told.contains("names the scheduler FlowMatchEulerDiscreteScheduler, scheduler/"),
        "{told}"
    );
    let config = rig.place.path("tiny/transformer/config.json");
    let mut text: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    text["num_layers"] = (text["num_layers"].as_u64().unwrap() + 1).into();
    fs::write(&config, text.to_string()).unwrap();
    let told = rig.ends(1, &["models", "show", "tiny"]);
    assert!(told.contains("fault transformer: ") && told.contains("has no weight `"), "{told}");
    // Nothing is converted that is not whole.
    let convert = ["models", "convert", "tiny", "tiny.gguf", "--part", "transformer"];
    let told = rig.ends(2, &convert);
    assert!(told.contains("has no weight `") && !rig.place.path("tiny.gguf").exists(), "{told}");
    // Nor is a weight passed over that the config does not know of.
    text["num_layers"] = (text["num_layers"].as_u64().unwrap() - 2).into();
    fs::write(&config, text.to_string()).unwrap();
    let told = rig.ends(1, &["models", "show", "tiny"]);
    assert!(told.contains("weights that it does not read: `blocks."), "{told}");
}

/// What a file was made with names what has changed since, and not what was copied or touched.
#[test]
fn a_record_tells_which_model_has_changed() {
    let rig = Rig::new();
    let place = &rig.place;
    for (path, bytes) in files() {
        place.write(&format!("tiny/{path}"), bytes);
    }
    place.write("nets/x4.safetensors", kino_shapes::VIDEO_X4);
    place.write(
        "graph.ron",
        "Graph(version: 1, nodes: {\"model\": (op: \"model.load\", with: {\"source\": \"tiny\"}),
            \"noise\": (op: \"latent.noise\", in: {\"vae\": \"model.vae\"}, with: {\"width\": 32, \"height\": 32,
                \"frames\": 1, \"seed\": 1}),
            \"frames\": (op: \"vae.decode\", in: {\"vae\": \"model.vae\", \"latent\": \"noise\"}),
            \"large\": (op: \"upscale\", in: {\"frames\": \"frames\"}, with: {\"factor\": 4,
                \"model\": \"nets/x4.safetensors\"}),
            \"file\": (op: \"image.write\", in: {\"frames\": \"large\"}, with: {\"path\": \"large.png\"})})",
    );
    rig.ends(0, &["run", "graph.ron"]);
    let shown = rig.ends(0, &["show", "out/large.png"]);
    place.write("again.ron", &shown);
    let changed = || {
        let ran = rig.kino(&["run", "again.ron", "--out", "again", "--overwrite"]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let of = |name: &str| ran.err.contains(&format!("`{name}` has changed since"));
        (of("tiny"), of("nets/x4.safetensors"))
    };
    assert_eq!(changed(), (false, false));
    // The same bytes, written anew.
    for (path, bytes) in files() {
        place.write(&format!("tiny/{path}"), bytes);
    }
    place.write("nets/x4.safetensors", kino_shapes::VIDEO_X4);
    assert_eq!(changed(), (false, false));
    let weights = place.path("tiny/vae/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    // Of long files samples of every tensor are looked at.
    let end = bytes.len() - 65_536..;
    bytes[end].iter_mut().for_each(|byte| *byte ^= 1);
    fs::write(&weights, bytes).unwrap();
    assert_eq!(changed(), (true, false));
}

/// A file of the reference values.
fn reference(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/ref")).join(path)
}

/// LTX-Video as its authors and ComfyUI share it, all in one file.
fn all_in_one() -> Vec<u8> {
    let mut all = std::collections::HashMap::new();
    for (part, prefix, file) in [
        ("transformer", "model.diffusion_model.", "diffusion_pytorch_model"),
        ("vae", "vae.", "diffusion_pytorch_model"),
        ("text_encoder", "text_encoders.t5xxl.transformer.", "model"),
    ] {
        let file = reference(&format!("ltx/v090/model/{part}/{file}.safetensors"));
        let tensors = candle_core::safetensors::load(file, &candle_core::Device::Cpu).unwrap();
        all.extend(tensors.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.safetensors");
    candle_core::safetensors::save(&all, &path).unwrap();
    let plain = fs::read(&path).unwrap();
    // How many heads there are, the header says.
    let end = 8 + u64::from_le_bytes(plain[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&plain[8..end]).unwrap();
    let said = r#"{"transformer": {"num_attention_heads": 2}}"#;
    header["__metadata__"] = serde_json::json!({ "config": said });
    let header = header.to_string();
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &plain[end..]].concat()
}

/// A file that holds several parts is told part by part, found among ComfyUI's checkpoints, written
/// as a folder, and is the model of a graph.
#[test]
fn a_file_of_several_parts_is_a_model() {
    let rig = Rig::new();
    let bytes = all_in_one();
    rig.place.write("ComfyUI/models/checkpoints/all.safetensors", &bytes);
    rig.ends(0, &["config", "set", "models", rig.place.path("ComfyUI/models").to_str().unwrap()]);
    let shown = rig.json(&["models", "show", "all.safetensors"]);
    let parts = shown["parts"].as_array().unwrap();
    let names: Vec<&str> = parts.iter().map(|part| part["part"].as_str().unwrap()).collect();
    assert_eq!(names, ["transformer", "vae", "text_encoder"]);
    assert_eq!((&shown["family"], &shown["problem"]), (&"LTX-Video".into(), &Value::Null));
    assert!(parts.iter().all(|part| part["problem"].is_null()), "{parts:?}");
    let sum: u64 = parts.iter().map(|part| part["bytes"].as_u64().unwrap()).sum();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(sum, bytes.len() as u64 - 8 - header, "all of the data, once");
    let listed = rig.ends(0, &["models", "list"]);
    assert!(listed.contains("LTX-Video: transformer, vae, text_encoder"), "{listed}");
    rig.place.write(
        "noise.ron",
        r#"Graph(version: 1, nodes: {
            "model": (op: "model.load", with: {"source": "all.safetensors"}),
            "noise": (op: "latent.noise", in: {"vae": "model.vae"}, with: {"seed": 1, "width": 32, "height": 32}),
            "patches": (op: "patchify", in: {"latents": "noise", "dit": "model.dit"}),
            "frame": (op: "vae.decode", in: {"vae": "model.vae", "latent": "noise"}),
            "file": (op: "image.write", in: {"frames": "frame"}, with: {"path": "noise.png"}),
            "tensors": (op: "tensor.write", in: {"tensors": {"patches": "patches"}},
                with: {"path": "patches.safetensors"}),
        }, outputs: {"file": "file", "tensors": "tensors"})"#,
    );
    rig.ends(0, &["run", "noise.ron"]);
    rig.ends(0, &["models", "convert", "all.safetensors", "folder"]);
    let shown = rig.json(&["models", "show", "folder"]);
    assert_eq!(shown["parts"].as_array().unwrap().len(), 3, "{shown}");
}

/// The text encoder of the reference model with as many words as UMT5 has, in half precision.
fn encoder_of_all_words() -> Vec<u8> {
    use candle_core::{DType, Device, Tensor};
    let file = reference("wan_t2v/model/text_encoder/model.safetensors");
    let mut tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let words = Tensor::arange(0f32, 256_384.0, &Device::Cpu).unwrap();
    let table = (words.reshape(((), 1)).unwrap() * 1e-5).unwrap().repeat((1, 40)).unwrap();
    tensors.insert("shared.weight".to_owned(), table.to_dtype(DType::F16).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("encoder.safetensors");
    candle_core::safetensors::save(&tensors, &path).unwrap();
    fs::read(&path).unwrap()
}

/// A model without a tokenizer has the one of its encoder, where that is the published one by its
/// family and its words, and it is said; else the file that is missing is named.
#[test]
fn a_model_that_lacks_the_tokenizer_of_umt5_has_the_one_that_is_brought() {
    let rig = Rig::new();
    for path in [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "transformer/config.json",
        DIT,
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
    ] {
        let bytes = fs::read(reference(&format!("wan_t2v/model/{path}"))).unwrap();
        rig.place.write(&format!("wan/{path}"), bytes);
    }
    rig.place.write(
        "g.ron",
        r#"Graph(version: 1, nodes: {
            "model": (op: "model.load", with: {"source": "wan"}),
            "text": (op: "text.encode", in: {"encoder": "model.text_encoder"}, with: {"prompt": "a red fox"}),
            "file": (op: "tensor.write", in: {"tensors": {"text": "text"}}, with: {"path": "t.safetensors"}),
        }, outputs: {"file": "file"})"#,
    );
    let missing = "wan/tokenizer/tokenizer_config.json is missing";
    assert!(rig.ends(1, &["models", "show", "wan"]).contains(missing));
    assert!(rig.ends(2, &["plan", "g.ron"]).contains(missing));
    let config = rig.place.path("wan/text_encoder/config.json");
    let mut text: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    text["vocab_size"] = 256_384.into();
    fs::write(&config, text.to_string()).unwrap();
    rig.place.write("wan/text_encoder/model.safetensors", encoder_of_all_words());
    let shown = rig.ends(0, &["models", "show", "wan"]);
    assert!(shown.contains("the tokenizer of UMT5 is the one that kino brings"), "{shown}");
    let shown = rig.json(&["models", "show", "wan"]);
    assert_eq!(shown["brought_tokenizers"], serde_json::json!(["UMT5"]), "{shown}");
    rig.ends(0, &["run", "g.ron"]);
    let written = rig.place.path("out/t.safetensors");
    let first = fs::read(&written).unwrap();
    // Its own, once it has one: another model, which is computed anew.
    for path in ["tokenizer/tokenizer_config.json", "tokenizer/tokenizer.json"] {
        let bytes = fs::read(reference(&format!("wan_t2v/model/{path}"))).unwrap();
        rig.place.write(&format!("wan/{path}"), bytes);
    }
    assert_eq!(rig.json(&["models", "show", "wan"])["brought_tokenizers"], serde_json::json!([]));
    rig.ends(0, &["run", "g.ron"]);
    assert_ne!(fs::read(&written).unwrap(), first);
}

/// Every type of a part is shown, and whether scales stand beside numbers of eight bits.
#[test]
fn types_are_shown_with_their_shares() {
    use candle_core::{DType, Device, Tensor};
    let rig = Rig::new();
    let file = reference("wan_t2v/model/text_encoder/model.safetensors");
    let mut tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let place = rig.place.path("umt5.safetensors");
    let mut shown = |with: Option<f32>| {
        for (name, tensor) in tensors.clone() {
            let Some(layer) = name.strip_suffix("wo.weight") else { continue };
            tensors.insert(name.clone(), tensor.to_dtype(DType::F8E4M3).unwrap());
            if let Some(scale) = with {
                let scale = Tensor::new(scale, &Device::Cpu).unwrap();
                tensors.insert(format!("{layer}wo.scale_weight"), scale);
            }
        }
        candle_core::safetensors::save(&tensors, &place).unwrap();
        let told = rig.ends(0, &["models", "show", "umt5.safetensors"]);
        (told, rig.json(&["models", "show", "umt5.safetensors"]))
    };
    let (told, json) = shown(None);
    assert!(told.contains("%, F8_E4M3 without scales 1"), "{told}");
    // A file has no tokenizer beside it.
    assert!(told.contains("the tokenizer of UMT5 is the one that kino brings"), "{told}");
    assert_eq!(json["parts"][0]["fp8_scales"], false, "{json}");
    let (told, json) = shown(Some(0.5));
    assert!(told.contains("%, F8_E4M3 with scales 1"), "{told}");
    assert_eq!(json["parts"][0]["fp8_scales"], true, "{json}");
}

/// A language model is told by its family, sizes and types, and what a base model lacks is said.
#[test]
fn language_models_are_told() {
    let rig = Rig::new();
    let file = reference("language/qwen3.gguf");
    let file = file.to_str().unwrap();
    let shown = rig.json(&["models", "show", file]);
    assert_eq!(
        (&shown["family"], &shown["parts"][0]["part"]),
        (&"Qwen3".into(), &"language_model".into())
    );
    let own = &shown["language"];
    assert_eq!((&own["architecture"], &own["chat_template"]), (&"qwen3".into(), &true.into()));
    for size in ["layers", "width", "heads", "vocabulary", "context"] {
        assert!(own[size].as_u64().unwrap() > 0, "{size}: {own}");
    }
    assert_eq!(shown["problem"], Value::Null);
    let told = rig.ends(0, &["models", "show", file]);
    assert!(told.contains("Qwen3: language_model") && told.contains("; a chat template"), "{told}");
    // A base model: the key of its template is another.
    let bytes = fs::read(file).unwrap();
    let key = b"tokenizer.chat_template";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap();
    let mut base = bytes.clone();
    base[at..at + key.len()].copy_from_slice(b"tokenizer.xhat_template");
    rig.place.write("base.gguf", &base);
    let told = rig.ends(1, &["models", "show", "base.gguf"]);
    assert!(told.contains("no chat template") && told.contains("a base model follows"), "{told}");
    // One of an architecture that is not read: what is, and what to do.
    let key = b"general.architecture";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap();
    let mut other = bytes.clone();
    let at = at + key.len() + 4 + 8; // behind the type of the value and its length
    assert_eq!(&other[at..at + 5], b"qwen3");
    other[at..at + 5].copy_from_slice(b"gemma");
    rig.place.write("gemma.gguf", &other);
    let told = rig.ends(1, &["models", "show", "gemma.gguf"]);
    assert!(told.contains("language_model") && told.contains("architecture `gemma`"), "{told}");
    rig.place.write(
        "g.ron",
        r#"Graph(version: 1, nodes: {
            "full": (op: "text.generate", with: {"model": "gemma.gguf", "prompt": "a fox"}),
        }, outputs: {"text": "full"})"#,
    );
    let told = rig.ends(2, &["check", "g.ron"]);
    let told = told.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
    let expected = "a language model of the architecture `gemma` (known are llama, qwen2, qwen3: Llama, \
                    Mistral, SmolLM, Qwen2.5, Qwen3) is not supported yet";
    assert!(told.contains(expected), "{told}");
    assert!(
        told.contains("or have a server run this one (llama.cpp, Ollama): `kino config"),
        "{told}"
    );
}
