//! Numbers of bytes as people write and read them.

/// Bytes in decimal units: `999 B`, `1.2 MB`.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1000.0;
    let mut unit = 0;
    while size >= 999.5 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    if size < 9.95 {
        format!("{size:.1} {}", UNITS[unit])
    } else {
        format!("{size:.0} {}", UNITS[unit])
    }
}

/// Reads a number of bytes such as `500MB`, `1.5 GiB`, `20g` or `1000000`. Units are those of
/// [`format_bytes`] and the binary ones, in any case, and their first letters.
///
/// # Errors
/// When it is none, or more than 64 bits hold.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size: write 256MB or 2GB");
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let number: f64 = trimmed[..digits].parse().map_err(|_| wrong())?;
    let factor = match trimmed[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1024f64.powi(2),
        "gib" => 1024f64.powi(3),
        "tib" => 1024f64.powi(4),
        _ => return Err(wrong()),
    };
    let bytes = number * factor;
    if bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        let sizes =
            [0, 999, 1_000, 1_249, 9_949, 9_950, 999_499, 999_500, 123_456_789].map(format_bytes);
        assert_eq!(
            sizes,
            ["0 B", "999 B", "1.0 kB", "1.2 kB", "9.9 kB", "10 kB", "999 kB", "1.0 MB", "123 MB"]
        );
    }

    #[test]
    fn sizes_are_read_in_any_of_their_ways() {
        let read = |text| parse_bytes(text).ok();
        assert_eq!(read("20GB"), Some(20_000_000_000));
        assert_eq!(read("1.5 MiB"), Some(1_572_864));
        assert_eq!(read("64KiB"), Some(65_536));
        assert_eq!(read(" 2 g "), Some(2_000_000_000));
        assert_eq!(read("1000000"), Some(1_000_000));
        assert_eq!(read("0"), Some(0));
        for wrong in ["lots", "", "MB", "-1", "1..2GB", "2 parsecs", "99999999TB"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
