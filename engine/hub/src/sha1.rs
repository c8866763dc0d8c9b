//! SHA-1 (FIPS 180-4 §6.1), by which git names contents: enough to see that a small file arrived
//! as the hub has it. Nothing here is safe against somebody who makes two files of one hash.

/// The hash of what was given so far.
#[derive(Clone)]
pub(crate) struct Sha1 {
    state: [u32; 5],
    /// Bytes that do not fill a block yet.
    rest: Vec<u8>,
    length: u64,
}

impl Sha1 {
    /// The hash of nothing.
    pub(crate) fn new() -> Self {
        let state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
        Sha1 { state, rest: Vec::with_capacity(64), length: 0 }
    }

    /// Adds bytes.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        self.length = self.length.wrapping_add(bytes.len() as u64);
        if !self.rest.is_empty() {
            let (fill, behind) = bytes.split_at(bytes.len().min(64 - self.rest.len()));
            self.rest.extend_from_slice(fill);
            bytes = behind;
            if self.rest.len() == 64 {
                compress(&mut self.state, &self.rest);
                self.rest.clear();
            }
        }
        let blocks = bytes.chunks_exact(64);
        self.rest.extend_from_slice(blocks.remainder());
        blocks.for_each(|block| compress(&mut self.state, block));
    }

    /// The hash, in hexadecimal.
    pub(crate) fn finish(mut self) -> String {
        let bits = self.length.wrapping_mul(8);
        let zeros = (119 - self.length % 64) % 64;
        self.update(&[&[0x80][..], &vec![0; zeros as usize], &bits.to_be_bytes()].concat());
        self.state.iter().map(|word| format!("{word:08x}")).collect()
    }
}

fn compress(state: &mut [u32; 5], block: &[u8]) {
    let mut words = [0_u32; 80];
    for (word, bytes) in words.iter_mut().zip(block.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    for at in 16..80 {
        words[at] =
            (words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1);
    }
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    for (at, word) in words.iter().enumerate() {
        let (mixed, constant) = match at {
            0..20 => ((b & c) | (!b & d), 0x5a82_7999),
            20..40 => (b ^ c ^ d, 0x6ed9_eba1),
            40..60 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
            _ => (b ^ c ^ d, 0xca62_c1d6_u32),
        };
        let sum = [mixed, e, constant, *word].into_iter().fold(a.rotate_left(5), u32::wrapping_add);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, sum);
    }
    for (part, add) in state.iter_mut().zip([a, b, c, d, e]) {
        *part = part.wrapping_add(add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> String {
        let mut hash = Sha1::new();
        hash.update(bytes);
        hash.finish()
    }

    /// Values of FIPS 180-4's examples, and of Python's hashlib for the last.
    #[test]
    fn known_values() {
        assert_eq!(of(b""), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        assert_eq!(of(b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
        let two = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(of(two), "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
        assert_eq!(of(&[b'a'; 1_000_000]), "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
    }

    #[test]
    fn pieces_of_any_length_give_the_same() {
        let bytes: Vec<u8> = (0..1000_u32).map(|n| (n * 7) as u8).collect();
        for step in [1, 3, 55, 56, 63, 64, 65, 200] {
            for length in [0, 1, 55, 56, 63, 64, 119, 120, 1000] {
                let mut hash = Sha1::new();
                bytes[..length].chunks(step).for_each(|piece| hash.update(piece));
                assert_eq!(hash.finish(), of(&bytes[..length]), "{length} in {step}");
            }
        }
    }
}
