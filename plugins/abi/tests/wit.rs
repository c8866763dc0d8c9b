//! The rules by which the WIT package grows.

/// The text without comments.
fn lines() -> Vec<&'static str> {
    let lines = kino_abi::WIT.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with("//")).collect()
}

/// Whatever a component of 2.0 was built with must stay as it is, so nothing is there that would
/// have to change: names are texts, and the one record and the one variant are complete.
#[test]
fn nothing_is_there_that_would_have_to_grow() {
    let begins = |word: &str| -> Vec<_> {
        lines().into_iter().filter(|line| line.starts_with(word)).collect()
    };
    assert_eq!(begins("record "), ["record error {"]);
    assert_eq!(begins("variant "), ["variant failure {"]);
    assert!(begins("enum ").is_empty() && begins("flags ").is_empty());
    let text = lines().join("\n");
    assert!(text.contains("record error {\nmessage: string,\nhint: string,\ncode: string,\n}"));
    assert!(text.contains("variant failure {\ncancelled,\nfailed(error),\n}"));
}

#[test]
fn every_function_says_since_when_it_is_there() {
    let lines = lines();
    let mut functions = 0;
    for (at, line) in lines
        .iter()
        .enumerate()
        .filter(|(_, line)| line.contains(": func(") || line.contains(": static func("))
    {
        functions += 1;
        assert!(lines[at - 1].starts_with("@since(version = 2."), "{line}");
    }
    assert!(functions > 40, "the test could not look: {functions}");
    let package = format!("package kino:plugin@{}.", kino_abi::KINO_MAJOR);
    assert!(lines[0].starts_with(&package), "{} and the C ABI go together", lines[0]);
}
