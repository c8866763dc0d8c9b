//! Faults of model files that users of other programs report: what `kino plan` says of each, which
//! names the file or the tensor and the way out.

mod common;

use std::fs;

use common::Place;

/// A graph that needs every part of the model that `given` names.
fn graph(given: &str) -> String {
    format!(
        "Graph(version: 1, nodes: {{\n\
         \"model\": (op: \"model.load\", with: {{{given}}}),\n\
         \"text\": (op: \"text.encode\", in: {{\"encoder\": \"model.text_encoder\"}}, with: {{\"prompt\": \"a\"}}),\n\
         \"noise\": (op: \"latent.noise\", in: {{\"vae\": \"model.vae\"}}, with: {{\"width\": 32, \"height\": 32, \"seed\": 1}}),\n\
         \"patches\": (op: \"patchify\", in: {{\"latents\": \"noise\", \"dit\": \"model.dit\"}}),\n\
         \"sample\": (op: \"dit.sample\", in: {{\"dit\": \"model.dit\", \"patches\": \"patches\", \"text\": \"text\"}}),\n\
         \"latent\": (op: \"unpatchify\", in: {{\"patches\": \"sample.patches\"}}),\n\
         \"frame\": (op: \"vae.decode\", in: {{\"vae\": \"model.vae\", \"latent\": \"latent\"}}),\n\
         \"file\": (op: \"image.write\", in: {{\"frames\": \"frame\"}}, with: {{\"path\": \"a.png\"}}),\n\
         }}, outputs: {{\"file\": \"file\"}})"
    )
}

/// A folder with the embedded model as `tiny`.
struct Rig(Place);

impl Rig {
    fn new() -> Self {
        let rig = Rig(Place::new());
        rig.whole();
        rig
    }

    /// Puts every file of the model back.
    fn whole(&self) {
        let _ = fs::remove_dir_all(self.0.path("tiny"));
        for (path, bytes, _) in kino_shapes::FILES {
            self.0.write(&format!("tiny/{path}"), bytes);
        }
    }

    /// What planning says with a model, on one line.
    fn plan(&self, given: &str) -> (i32, String) {
        self.0.write("graph.ron", graph(given));
        let ran = self.0.kino(&["plan", "graph.ron", "--short"]);
        (ran.code, ran.err)
    }

    #[track_caller]
    fn refused(&self, given: &str, expected: &[&str]) {
        let (code, told) = self.plan(given);
        assert_eq!(code, 2, "{told}");
        for expected in expected {
            assert!(told.contains(expected), "{expected}: {told}");
        }
    }
}

const TINY: &str = "\"source\": \"tiny\"";
const DIT: &str = "transformer/diffusion_pytorch_model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";

#[test]
fn what_was_downloaded_wrongly_is_told_by_what_it_is() {
    let rig = Rig::new();
    assert_eq!(rig.plan(TINY), (0, String::new()));
    let half = |path: &str| {
        let bytes = fs::read(rig.0.path(&format!("tiny/{path}"))).unwrap();
        bytes[..bytes.len() / 2].to_vec()
    };
    for path in [DIT, VAE, "text_encoder/model.safetensors"] {
        for (bytes, expected) in [
            (Vec::new(), "is truncated: expected 8 bytes, found 0; download it again"),
            (half(path), "is truncated: expected "),
            (vec![0; 5000], "it begins with zeros, as a file does whose download was not finished"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:00".to_vec(),
                "`git lfs pull`",
            ),
            (
                b"<!DOCTYPE html><html></html>".to_vec(),
                "it is a web page; download the file itself",
            ),
            (br#"{"error":"Repository not found"}"#.to_vec(), "Repository not found"),
            (b"PK\x03\x04archive/data.pkl".to_vec(), "is a Python pickle"),
            (b"GGUF\x03\0\0\0".to_vec(), "is truncated: expected "),
        ] {
            rig.0.write(&format!("tiny/{path}"), bytes);
            rig.refused(TINY, &[path, expected]);
        }
        rig.whole();
    }
}

#[test]
fn what_is_missing_is_told_by_its_name() {
    let rig = Rig::new();
    for (gone, expected) in [
        ("tokenizer", "tiny/tokenizer/tokenizer_config.json is missing"),
        ("tokenizer/tokenizer.json", "tiny/tokenizer/tokenizer.json is missing"),
        ("model_index.json", "tiny/model_index.json is missing"),
        ("vae/config.json", "tiny/vae/config.json is missing"),
        (DIT, "looked for diffusion_pytorch_model.safetensors"),
    ] {
        let place = rig.0.path(&format!("tiny/{gone}"));
        match place.is_dir() {
            true => fs::remove_dir_all(place).unwrap(),
            false => fs::remove_file(place).unwrap(),
        }
        rig.refused(TINY, &[expected]);
        rig.whole();
    }
    // An index that names files which are not there.
    let index = r#"{"weight_map": {"proj_out.weight": "diffusion-00001-of-00002.safetensors"}}"#;
    rig.0.write(&format!("tiny/{DIT}.index.json"), index);
    rig.refused(TINY, &["transformer/diffusion-00001-of-00002.safetensors is missing"]);
}

#[test]
fn a_file_in_the_place_of_another_is_told() {
    let rig = Rig::new();
    let (dit, vae) = (rig.0.path(&format!("tiny/{DIT}")), rig.0.path(&format!("tiny/{VAE}")));
    fs::copy(&vae, &dit).unwrap();
    rig.refused(TINY, &[DIT, "has no weight `"]);
    rig.whole();
    fs::copy(&dit, &vae).unwrap();
    rig.refused(TINY, &[VAE, "has no weight `"]);
    rig.whole();
    let part = |port: &str, path: &str| format!("{TINY}, {port:?}: {path:?}");
    let vae = format!("tiny/{VAE}");
    rig.refused(&part("transformer", &vae), &["this is a VAE, not a transformer"]);
    rig.refused(&part("text_encoder", &vae), &["this is a VAE, not a text encoder"]);
    rig.0.write("x4.safetensors", kino_shapes::VIDEO_X4);
    let expected = "no part of a model that is known has weights of these names (its first is `";
    rig.refused(&part("vae", "x4.safetensors"), &["x4.safetensors: ", expected]);
    for name in ["old.ckpt", "old.pt", "old.pth", "old.bin"] {
        rig.0.write(name, b"PK\x03\x04archive/data.pkl");
        let expected = [name, "is a Python pickle", "convert it to safetensors"];
        rig.refused(&format!("\"source\": {name:?}"), &expected);
        rig.refused(&part("vae", name), &expected);
    }
}

/// Of two models of one name the first is taken, and both are told.
#[test]
fn two_folders_of_one_name_are_told() {
    let rig = Rig::new();
    for root in ["one", "two"] {
        for (path, bytes, _) in kino_shapes::FILES {
            rig.0.write(&format!("{root}/same/{path}"), bytes);
        }
    }
    rig.0.good(&["config", "set", "models", "one", "two"]);
    let (code, told) = rig.plan("\"source\": \"same\"");
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("two models are called same: "), "{told}");
    assert!(told.contains("one/same is taken, not ") && told.contains("two/same"), "{told}");
    assert_eq!(rig.plan("\"source\": \"one/same\""), (0, String::new()));
}
