//! Numbers of eight bits.

/// The number that a byte stands for in E4M3 (arXiv:2209.05433; `float8_e4m3fn` of torch): a sign,
/// four bits of exponent with a bias of 7, three of mantissa; no infinity, and NaN where all but
/// the sign are set.
pub const fn e4m3(byte: u8) -> f32 {
    let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = ((byte >> 3) & 0xf, (byte & 7) as f32);
    if byte & 0x7f == 0x7f {
        return f32::NAN;
    }
    if exponent == 0 {
        return sign * mantissa / 512.0;
    }
    let mut power = 1.0 / 64.0; // 2⁻⁶
    let mut step = 1;
    while step < exponent {
        power *= 2.0;
        step += 1;
    }
    sign * (1.0 + mantissa / 8.0) * power
}

/// The numbers of all bytes.
pub(crate) const E4M3: [f32; 256] = {
    let mut numbers = [0.0; 256];
    let mut byte = 0;
    while byte < 256 {
        numbers[byte] = e4m3(byte as u8);
        byte += 1;
    }
    numbers
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_numbers_of_the_format() {
        // The corners of float8_e4m3fn.
        for (byte, number) in [
            (0x00, 0.0),
            (0x01, 0.001953125),
            (0x07, 0.013671875),
            (0x08, 0.015625),
            (0x38, 1.0),
            (0x39, 1.125),
            (0x7e, 448.0),
            (0xfe, -448.0),
            (0xb8, -1.0),
        ] {
            assert_eq!(e4m3(byte), number, "{byte:#04x}");
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
        // Rising with the byte.
        assert!((0..0x7e_u8).all(|byte| e4m3(byte) < e4m3(byte + 1)));
    }
}
