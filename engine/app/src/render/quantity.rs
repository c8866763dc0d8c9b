//! Bytes and seconds for people.

pub(crate) use kino_port::format_bytes as bytes;

/// Seconds: `3 ms`, `1.25 s`, `42.1 s`, `3:05`, `1:02:03`.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.0995 => format!("{:.0} ms", s * 1000.0),
        s if s < 9.995 => format!("{s:.2} s"),
        s if s < 59.95 => format!("{s:.1} s"),
        s => clock(s),
    }
}

/// Time left: `0:07`, `3:05`, `1:02:03`.
pub(crate) fn clock(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// A count with its noun: `1 node`, `3 nodes`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_well() {
        let times = [0.0004, 0.099, 0.1, 9.99, 9.996, 59.94, 60.0, 3723.0].map(seconds);
        assert_eq!(
            times,
            ["0 ms", "99 ms", "0.10 s", "9.99 s", "10.0 s", "59.9 s", "1:00", "1:02:03"]
        );
    }
}
