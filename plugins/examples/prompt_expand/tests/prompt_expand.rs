//! Rules for prompts, without the engine.

use kino_plugin::prelude::*;
use kino_plugin::testing;
use prompt_expand::prompt_expand;

const RULES: &str = "# Terse words
right = moves right
Left = moves left      # in any case
gold ball = large yellow circle
ball = circle
very =
before a an the = a
after background = on a white background
";

fn expanded(text: &str, rules: &str) -> Result<String> {
    let run = testing::run::<prompt_expand>().file("rules/x.txt", rules).input("text", text);
    run.param("rules", Path("rules/x.txt".into())).call()?.text("text")
}

#[test]
fn terse_prompts_become_full_ones() -> Result<()> {
    for (terse, full) in [
        ("red circle right", "a red circle moves right on a white background"),
        ("a red  Ball LEFT", "a red circle moves left on a white background"),
        ("gold ball, left.", "a large yellow circle, moves left. on a white background"),
        ("gold, ball", "a gold, circle on a white background"),
        ("The star on a black background", "The star on a black background"),
        ("very very blue ball", "a blue circle on a white background"),
        ("", "a on a white background"),
        ("bright ballad", "a bright ballad on a white background"),
    ] {
        assert_eq!(expanded(terse, RULES)?, full, "{terse}");
    }
    Ok(())
}

#[test]
fn what_a_rule_put_in_stays() -> Result<()> {
    assert_eq!(expanded("a b", "a = b\nb = a c")?, "b a c");
    // Additions see what came before them.
    assert_eq!(expanded("x", "before a = a\nafter a = b\nafter c = d")?, "a x d");
    Ok(())
}

#[test]
fn other_scripts_are_words_too() -> Result<()> {
    assert_eq!(
        expanded("ROTER KREIS ÄSTE 红色", "äste = zweige\n红色 = 红色的")?,
        "ROTER KREIS zweige 红色的"
    );
    Ok(())
}

#[test]
fn what_is_no_rule_is_said_with_its_line() {
    let why = |rules: &str| expanded("x", rules).unwrap_err().message().to_owned();
    let line = "rules/x.txt: line 2: ";
    assert_eq!(why("a = b\nwhat"), format!("{line}expected `words = phrase`, found `what`"));
    assert_eq!(why("\n= b"), format!("{line}expected `words = phrase`, found `= b`"));
    assert_eq!(why("\nafter x ="), format!("{line}there is nothing to be added in `after x =`"));
}

#[test]
fn what_happened_is_logged() -> Result<()> {
    let run = testing::run::<prompt_expand>().file("r", "up = moves up").input("text", "star up");
    let out = run.param("rules", Path("r".into())).call()?;
    assert_eq!(out.logs()[0].message, "`star up` became `star moves up` rules=1");
    Ok(())
}
