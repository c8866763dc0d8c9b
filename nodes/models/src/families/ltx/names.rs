//! What the authors of LTX-Video call layers and weights, in the single files that they and ComfyUI
//! publish, and what diffusers calls them.

use std::collections::BTreeMap;

use crate::checkpoint::PartFiles;

/// Words in the names of a transformer: diffusers', and the authors'.
const WORDS: [(&str, &str); 4] = [
    ("proj_in", "patchify_proj"),
    ("time_embed", "adaln_single"),
    ("norm_q", "q_norm"),
    ("norm_k", "k_norm"),
];

/// What the authors call a layer or weight of the transformer that diffusers calls `name`; none
/// where it has the same name.
pub(super) fn original(name: &str) -> Option<String> {
    translated(name, |(diffusers, original)| (diffusers, original))
}

/// The same the other way round.
pub(super) fn diffusers(name: &str) -> Option<String> {
    translated(name, |(diffusers, original)| (original, diffusers))
}

fn translated(
    name: &str,
    turn: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str),
) -> Option<String> {
    let word = |word| {
        let names = WORDS.into_iter().map(&turn);
        names.into_iter().find_map(|(from, to)| (from == word).then_some(to)).unwrap_or(word)
    };
    let renamed = name.split('.').map(word).collect::<Vec<_>>().join(".");
    (renamed != name).then_some(renamed)
}

/// Words in the names of an autoencoder.
const VAE_WORDS: [(&str, &str); 3] = [
    ("res_blocks", "resnets"),
    ("last_time_embedder", "time_embedder"),
    ("last_scale_shift_table", "scale_shift_table"),
];

/// The names of an autoencoder in the authors' files, by which diffusers' are found: those name the
/// entries of a flat list, these the blocks that several of them are.
#[derive(Debug, Clone)]
pub(super) struct VaeNames {
    wrapper: &'static str,
    /// Where each entry of the encoder's list, and of the decoder's, stands.
    places: [BTreeMap<usize, String>; 2],
}

/// What an entry of such a list is.
#[derive(Clone, Copy, PartialEq)]
enum Entry {
    /// Residual blocks of one width.
    Group,
    /// What halves or doubles the sides.
    Sampler,
    /// A residual block that changes the width.
    Single,
}

impl VaeNames {
    /// Reads the lists of a file whose names begin with `wrapper`; none where it has none.
    pub(super) fn read(files: &PartFiles, wrapper: &'static str) -> Option<Self> {
        let list = |side: &str, blocks: &str| {
            let before = format!("{wrapper}{side}.{blocks}.");
            let mut entries: BTreeMap<usize, Entry> = BTreeMap::new();
            for name in files.names() {
                let Some(rest) = name.strip_prefix(&before) else { continue };
                let Some((index, inner)) = rest.split_once('.') else { continue };
                let Ok(index) = index.parse() else { continue };
                let entry = match inner.split('.').next() {
                    Some("res_blocks" | "time_embedder") => Entry::Group,
                    Some("conv") => Entry::Sampler,
                    _ => Entry::Single,
                };
                entries.insert(index, entry);
            }
            entries
        };
        let (down, up) = (list("encoder", "down_blocks"), list("decoder", "up_blocks"));
        // In the diffusers layout an entry holds `resnets`.
        if !down.values().any(|entry| *entry == Entry::Group) || up.is_empty() {
            return None;
        }
        Some(Self { wrapper, places: [encoder(&down), decoder(&up)] })
    }

    /// What diffusers calls a weight of the file; none where it is none of the autoencoder's.
    pub(super) fn diffusers(&self, name: &str) -> Option<String> {
        let own = name.strip_prefix(self.wrapper)?;
        match own {
            "per_channel_statistics.mean-of-means" => return Some("latents_mean".to_owned()),
            "per_channel_statistics.std-of-means" => return Some("latents_std".to_owned()),
            _ => {}
        }
        let listed = [("encoder.down_blocks.", "encoder"), ("decoder.up_blocks.", "decoder")];
        let listed = listed.into_iter().zip(&self.places).find_map(|((before, side), places)| {
            let (index, inner) = own.strip_prefix(before)?.split_once('.')?;
            let place = places.get(&index.parse().ok()?)?;
            Some(format!("{side}.{place}.{inner}"))
        });
        let own = listed.unwrap_or_else(|| own.to_owned());
        let word = |word| {
            let found = VAE_WORDS.iter().find(|(original, _)| *original == word);
            found.map_or(word, |(_, diffusers)| *diffusers)
        };
        let renamed = own.split('.').map(word).collect::<Vec<_>>().join(".");
        let renamed = renamed.replace("norm3.norm.", "norm3.");
        match renamed.contains("conv_shortcut.conv.") {
            true => Some(renamed),
            false => Some(renamed.replace("conv_shortcut.", "conv_shortcut.conv.")),
        }
    }
}

/// Blocks begin with a group; what halves, and what widens, follow it. The last group is the
/// middle.
fn encoder(entries: &BTreeMap<usize, Entry>) -> BTreeMap<usize, String> {
    let last = entries.iter().rev().find(|(_, entry)| **entry == Entry::Group).map(|(i, _)| *i);
    let mut block = 0;
    let mut began = false;
    let place = |(index, entry): (&usize, &Entry)| {
        if *entry == Entry::Group {
            block += usize::from(began);
            began = true;
        }
        let place = match entry {
            Entry::Group if Some(*index) == last => "mid_block".to_owned(),
            Entry::Group => format!("down_blocks.{block}"),
            Entry::Sampler => format!("down_blocks.{block}.downsamplers.0"),
            Entry::Single => format!("down_blocks.{block}.conv_out"),
        };
        (*index, place)
    };
    entries.iter().map(place).collect()
}

/// The first group is the middle. Blocks end with a group; what widens, and what doubles, precede
/// it.
fn decoder(entries: &BTreeMap<usize, Entry>) -> BTreeMap<usize, String> {
    let first = entries.iter().find(|(_, entry)| **entry == Entry::Group).map(|(i, _)| *i);
    let mut block = 0;
    let place = |(index, entry): (&usize, &Entry)| {
        let place = match entry {
            Entry::Group if Some(*index) == first => "mid_block".to_owned(),
            Entry::Group => {
                block += 1;
                format!("up_blocks.{}", block - 1)
            }
            Entry::Sampler => format!("up_blocks.{block}.upsamplers.0"),
            Entry::Single => format!("up_blocks.{block}.conv_in"),
        };
        (*index, place)
    };
    entries.iter().map(place).collect()
}

/// The way back: the blocks of an autoencoder in the diffusers layout that are the entries of the
/// flat lists, in order.
pub(super) struct VaePlaces([Vec<String>; 2]);

impl VaePlaces {
    /// Those of an autoencoder whose names are diffusers'.
    pub(super) fn of(files: &PartFiles) -> Self {
        Self::of_names(&files.names())
    }

    pub(super) fn of_names(names: &[&str]) -> Self {
        let has = |side: &str, place: &str| {
            let begin = format!("{side}.{place}.");
            names.iter().any(|name| name.starts_with(&begin))
        };
        let blocks = |side: &'static str, kind: &'static str, inner: [&'static str; 3]| {
            let is_there = move |index: &usize| has(side, &format!("{kind}.{index}.resnets"));
            let places = move |index: usize| {
                let own = inner.map(|inner| match inner {
                    "" => format!("{kind}.{index}"),
                    inner => format!("{kind}.{index}.{inner}"),
                });
                own.into_iter().filter(move |place| has(side, place))
            };
            (0..).take_while(is_there).flat_map(places)
        };
        let middle = || std::iter::once("mid_block".to_owned());
        let encoder = blocks("encoder", "down_blocks", ["", "downsamplers.0", "conv_out"]);
        let decoder = blocks("decoder", "up_blocks", ["conv_in", "upsamplers.0", ""]);
        Self([encoder.chain(middle()).collect(), middle().chain(decoder).collect()])
    }

    /// What the authors call a weight that diffusers calls `name`.
    pub(super) fn original(&self, name: &str) -> String {
        match name {
            "latents_mean" => return "per_channel_statistics.mean-of-means".to_owned(),
            "latents_std" => return "per_channel_statistics.std-of-means".to_owned(),
            _ => {}
        }
        let Some((side, rest)) = name.split_once('.') else { return name.to_owned() };
        let (places, list) = match side {
            "encoder" => (&self.0[0], "down_blocks"),
            _ => (&self.0[1], "up_blocks"),
        };
        let inside = |place: &String| rest.strip_prefix(place.as_str())?.strip_prefix('.');
        let found = places.iter().enumerate().filter_map(|(at, place)| Some((at, inside(place)?)));
        // What lies in a block's sampler lies in the block, too.
        match found.min_by_key(|(_, inner)| inner.len()) {
            Some((at, inner)) => {
                let inner =
                    inner.replace("resnets.", "res_blocks.").replace("norm3.", "norm3.norm.");
                let inner = inner.replace("conv_shortcut.conv.", "conv_shortcut.");
                format!("{side}.{list}.{at}.{inner}")
            }
            // Those of the whole decoder.
            None => {
                let last = ["time_embedder", "scale_shift_table"];
                match last.iter().any(|begin| rest.starts_with(begin)) {
                    true => format!("{side}.last_{rest}"),
                    false => name.to_owned(),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of every form of autoencoder, there and back.
    #[test]
    fn names_of_an_autoencoder_lead_back() {
        for model in ["v090", "v095", "vae091", "vae_causal"] {
            let path = format!("../../tests/ref/ltx/{model}/model/vae");
            let path = format!("{path}/diffusion_pytorch_model.safetensors");
            let open = |path: &std::path::Path| {
                let file = crate::checkpoint::DataFile::open(path, "vae").unwrap();
                PartFiles::of_file(file).unwrap()
            };
            let own = open(std::path::Path::new(&path));
            let places = VaePlaces::of(&own);
            let there = {
                let as_it_is = Box::new(|name: &str| vec![name.to_owned()]);
                own.clone().renamed(|name| Some(places.original(name)), as_it_is)
            };
            let back = VaeNames::read(&there, "").unwrap();
            assert_eq!(there.names().len(), own.names().len(), "{model}");
            for name in own.names() {
                let original = places.original(name);
                assert_eq!(back.diffusers(&original).as_deref(), Some(name), "{original}");
            }
            assert!(there.shape("decoder.up_blocks.0.res_blocks.0.conv1.conv.weight").is_some());
        }
    }

    #[test]
    fn names_are_those_of_the_conversion() {
        for (diffusers, original) in [
            ("proj_in.weight", "patchify_proj.weight"),
            ("time_embed.linear.bias", "adaln_single.linear.bias"),
            (
                "time_embed.emb.timestep_embedder.linear_1.weight",
                "adaln_single.emb.timestep_embedder.linear_1.weight",
            ),
            (
                "transformer_blocks.3.attn2.norm_k.weight",
                "transformer_blocks.3.attn2.k_norm.weight",
            ),
        ] {
            assert_eq!(super::original(diffusers).as_deref(), Some(original));
            assert_eq!(super::diffusers(original).as_deref(), Some(diffusers));
        }
        assert_eq!(super::original("transformer_blocks.0.attn1.to_q"), None);
        assert_eq!(super::diffusers("proj_out.weight"), None);
    }

    /// As the tables of diffusers' `convert_ltx_vae_checkpoint_to_diffusers` have them.
    #[test]
    fn entries_of_flat_lists_are_those_of_the_conversion() {
        use Entry::{Group, Sampler, Single};
        let places = |entries: &[Entry], place: fn(&BTreeMap<usize, Entry>) -> BTreeMap<_, _>| {
            let entries = entries.iter().copied().enumerate().collect();
            place(&entries).into_values().collect::<Vec<String>>().join(" ")
        };
        let (g, s, w) = (Group, Sampler, Single);
        assert_eq!(
            places(&[g, s, w, g, s, w, g, s, g, g], encoder),
            "down_blocks.0 down_blocks.0.downsamplers.0 down_blocks.0.conv_out down_blocks.1 \
             down_blocks.1.downsamplers.0 down_blocks.1.conv_out down_blocks.2 \
             down_blocks.2.downsamplers.0 down_blocks.3 mid_block"
        );
        assert_eq!(
            places(&[g, s, g, s, g, s, g, s, g], encoder),
            "down_blocks.0 down_blocks.0.downsamplers.0 down_blocks.1 down_blocks.1.downsamplers.0 \
             down_blocks.2 down_blocks.2.downsamplers.0 down_blocks.3 down_blocks.3.downsamplers.0 \
             mid_block"
        );
        assert_eq!(
            places(&[g, g, s, g, w, s, g, w, s, g], decoder),
            "mid_block up_blocks.0 up_blocks.1.upsamplers.0 up_blocks.1 up_blocks.2.conv_in \
             up_blocks.2.upsamplers.0 up_blocks.2 up_blocks.3.conv_in up_blocks.3.upsamplers.0 \
             up_blocks.3"
        );
        assert_eq!(
            places(&[g, s, g, s, g, s, g], decoder),
            "mid_block up_blocks.0.upsamplers.0 up_blocks.0 up_blocks.1.upsamplers.0 up_blocks.1 \
             up_blocks.2.upsamplers.0 up_blocks.2"
        );
    }
}
