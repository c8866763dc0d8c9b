//! Circles of modules, found in the text of a crate: by `use`, and by paths that begin with
//! `crate`, `super`, `self` or the name of a module below. Only what is built without tests counts.
//!
//! A name that a module merely passes on (`pub use`) leads to the module where it is defined.

use std::collections::{BTreeMap, BTreeSet};

/// A module by its path from the crate's root, which is empty.
type Module = Vec<String>;

/// What one file says.
#[derive(Default)]
struct Said {
    /// Names that are brought in, with their whole paths; `*` is a glob.
    uses: Vec<(String, Vec<String>)>,
    /// Names that are passed on.
    passed_on: Vec<(String, Vec<String>)>,
    /// Paths in the code itself.
    paths: Vec<Vec<String>>,
    /// All words of the code outside of `use`.
    words: BTreeSet<String>,
}

/// The circles in a crate's modules, each as the modules in it and what leads from one to the next;
/// `files` are paths within `src`, with their texts.
pub(crate) fn circles(files: &[(&str, &str)]) -> Vec<String> {
    let tests = test_modules(files);
    let modules: BTreeMap<Module, Said> = files
        .iter()
        .map(|(path, text)| (module_of(path), text))
        .filter(|(module, _)| !tests.iter().any(|test| module.starts_with(test)))
        .map(|(module, text)| (module.clone(), said(&module, text)))
        .collect();
    let mut edges: BTreeMap<&Module, BTreeMap<Module, String>> = BTreeMap::new();
    for (module, said) in &modules {
        let used = said.uses.iter().chain(
            // A name that is passed on is knowledge only where it is used besides.
            said.passed_on.iter().filter(|(name, _)| said.words.contains(name)),
        );
        let below = said.paths.iter().filter(|path| is_path(module, path, &modules));
        for path in used.map(|(_, path)| path).chain(below) {
            let path = absolute(module, path);
            let target = defined_in(&path, &modules, 0);
            if target != *module && modules.contains_key(&target) {
                edges.entry(module).or_default().entry(target).or_insert(path.join("::"));
            }
        }
    }
    components(&edges, &modules)
}

/// `a/b.rs` and `a/b/mod.rs` are `a::b`; the roots of a library and of a program are the root.
fn module_of(path: &str) -> Module {
    let mut parts: Module = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    let last = parts.last().map(String::as_str);
    if last == Some("mod") || (parts.len() == 1 && matches!(last, Some("lib" | "main"))) {
        parts.pop();
    }
    parts
}

/// Modules that are declared for tests alone.
fn test_modules(files: &[(&str, &str)]) -> Vec<Module> {
    let mut found = Vec::new();
    for (path, text) in files {
        let mut lines = text.lines().map(str::trim);
        while let Some(line) = lines.next() {
            if !line.starts_with("#[cfg(test)]") && !line.starts_with("#[cfg(all(test") {
                continue;
            }
            let name = lines.find(|line| !line.starts_with('#')).and_then(|line| {
                line.trim_start_matches("pub(crate) ").strip_prefix("mod ")?.strip_suffix(';')
            });
            if let Some(name) = name {
                let mut module = module_of(path);
                module.push(name.to_owned());
                found.push(module);
            }
        }
    }
    found
}

/// Whether a path in the code leads into the crate.
fn is_path(module: &Module, path: &[String], modules: &BTreeMap<Module, Said>) -> bool {
    let child = || [module.as_slice(), &path[..1]].concat();
    matches!(path[0].as_str(), "crate" | "super" | "self") || modules.contains_key(&child())
}

/// The path from the crate's root.
fn absolute(module: &Module, path: &[String]) -> Vec<String> {
    let mut whole = module.clone();
    for (at, part) in path.iter().enumerate() {
        match part.as_str() {
            "crate" if at == 0 => whole.clear(),
            "self" => {}
            "super" => drop(whole.pop()),
            _ => whole.push(part.clone()),
        }
    }
    whole
}

/// The module that defines what a path from the root names, through all that pass it on.
fn defined_in(path: &[String], modules: &BTreeMap<Module, Said>, turns: usize) -> Module {
    let depth = (0..=path.len()).rev().find(|depth| modules.contains_key(&path[..*depth]));
    let depth = depth.unwrap_or_default();
    let (module, rest) = (path[..depth].to_vec(), &path[depth..]);
    let (Some(said), Some(name), true) = (modules.get(&module), rest.first(), turns < 16) else {
        return module;
    };
    let known = said.passed_on.iter().chain(&said.uses).find(|(known, _)| known == name);
    match known {
        Some((_, onward)) => {
            let inside = modules.contains_key(&absolute(&module, &onward[..1]));
            let ours = matches!(onward[0].as_str(), "crate" | "super" | "self") || inside;
            let onward = [absolute(&module, onward), rest[1..].to_vec()].concat();
            if ours { defined_in(&onward, modules, turns + 1) } else { module }
        }
        None => module,
    }
}

/// Strongly connected components of more than one module (by reachability: crates are small).
fn components(
    edges: &BTreeMap<&Module, BTreeMap<Module, String>>,
    modules: &BTreeMap<Module, Said>,
) -> Vec<String> {
    let reach = |from: &Module| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = open.pop() {
            for next in edges.get(&module).into_iter().flat_map(BTreeMap::keys) {
                if seen.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&Module, BTreeSet<Module>> =
        modules.keys().map(|module| (module, reach(module))).collect();
    let (mut told, mut circles) = (BTreeSet::new(), Vec::new());
    for (module, seen) in &reached {
        if !seen.contains(*module) || !told.insert((*module).clone()) {
            continue;
        }
        let circle: BTreeSet<&Module> = reached
            .iter()
            .filter(|(other, back)| seen.contains(**other) && back.contains(*module))
            .map(|(other, _)| *other)
            .collect();
        told.extend(circle.iter().map(|module| (*module).clone()));
        let named = |module: &Module| match module.is_empty() {
            true => "the root".to_owned(),
            false => module.join("::"),
        };
        let within = circle.iter().flat_map(|from| {
            let to = edges.get(*from).into_iter().flatten();
            to.filter(|(to, _)| circle.contains(to))
                .map(|(to, by)| format!("\n    {} → {} (by {by})", named(from), named(to)))
        });
        let all: Vec<_> = circle.iter().map(|module| named(module)).collect();
        circles.push(format!("{}{}", all.join(", "), within.collect::<String>()));
    }
    circles
}

/// A text as words, `::`, and single other characters; comments, strings and attributes are gone.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&char) = chars.get(at) {
        let next = chars.get(at + 1).copied();
        if char == '/' && next == Some('/') {
            at = (at..chars.len()).find(|at| chars[*at] == '\n').unwrap_or(chars.len());
        } else if char == '/' && next == Some('*') {
            let end = (at + 2..chars.len()).find(|at| chars[at - 1] == '*' && chars[*at] == '/');
            at = end.map_or(chars.len(), |end| end + 1);
        } else if char == '"' {
            at = after_string(&chars, at);
        } else if char == 'r' && matches!(next, Some('"' | '#')) && raw_string(&chars, at).is_some()
        {
            at = raw_string(&chars, at).unwrap_or(chars.len());
        } else if char == '\'' && (next == Some('\\') || chars.get(at + 2) == Some(&'\'')) {
            // A character; a lifetime has no second mark.
            let from = if next == Some('\\') { at + 3 } else { at + 2 };
            let end = (from..chars.len()).find(|at| chars[*at] == '\'');
            at = end.map_or(chars.len(), |end| end + 1);
        } else if char.is_alphanumeric() || char == '_' {
            let end =
                (at..chars.len()).find(|at| !(chars[*at].is_alphanumeric() || chars[*at] == '_'));
            let end = end.unwrap_or(chars.len());
            tokens.push(chars[at..end].iter().collect());
            at = end;
        } else if char == ':' && next == Some(':') {
            tokens.push("::".into());
            at += 2;
        } else {
            if !char.is_whitespace() {
                tokens.push(char.into());
            }
            at += 1;
        }
    }
    tokens
}

fn after_string(chars: &[char], from: usize) -> usize {
    let mut at = from + 1;
    while let Some(char) = chars.get(at) {
        match char {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// The end of a raw string that begins at `from`, if one does.
fn raw_string(chars: &[char], from: usize) -> Option<usize> {
    let marks = chars[from + 1..].iter().take_while(|char| **char == '#').count();
    if chars.get(from + 1 + marks) != Some(&'"') {
        return None;
    }
    let closes = |at: usize| {
        chars[at] == '"'
            && chars.get(at + 1..=at + marks).is_some_and(|end| end.iter().all(|c| *c == '#'))
    };
    (from + 2 + marks..chars.len()).find(|at| closes(*at)).map(|at| at + 1 + marks)
}

/// The position behind the item that begins at `from`: behind its block or its semicolon.
fn after_item(tokens: &[String], from: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth = depth.saturating_sub(1);
                if depth == 0 && token == "}" {
                    return at + 1;
                }
            }
            ";" | "," if depth == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

fn said(module: &Module, text: &str) -> Said {
    let tokens = tokens(text);
    let word = |at: usize| tokens.get(at).map(String::as_str);
    let mut said = Said::default();
    let mut at = 0;
    let mut public = false;
    while let Some(token) = word(at) {
        match token {
            "#" if word(at + 1) == Some("[") || word(at + 2) == Some("[") => {
                let open = if word(at + 1) == Some("[") { at + 1 } else { at + 2 };
                let end = closing(&tokens, open);
                let inside = &tokens[open..end];
                let test = inside.get(1).is_some_and(|word| word == "cfg")
                    && inside.iter().any(|word| word == "test")
                    && !inside.iter().any(|word| word == "not");
                at = if test { after_item(&tokens, end) } else { end };
                continue;
            }
            "pub" => {
                public = true;
                at = if word(at + 1) == Some("(") { closing(&tokens, at + 1) } else { at + 1 };
                continue;
            }
            "use" => {
                let end = (at..tokens.len()).find(|at| tokens[*at] == ";").unwrap_or(tokens.len());
                let mut found = Vec::new();
                tree(&tokens[at + 1..end], &mut Vec::new(), &mut found);
                match public {
                    true => said.passed_on.extend(found),
                    false => said.uses.extend(found.into_iter().filter(|(_, path)| {
                        // Names of other crates are no business of ours; those of modules below are
                        // looked at by whoever knows the modules.
                        !path.is_empty() && *path != *module
                    })),
                }
                at = end;
            }
            _ if word(at + 1) == Some("::") && (at == 0 || word(at - 1) != Some("::")) => {
                let mut path = vec![token.to_owned()];
                while word(at + 1) == Some("::") && word(at + 2).is_some_and(is_word) {
                    path.push(tokens[at + 2].clone());
                    at += 2;
                }
                said.words.extend(path.iter().cloned());
                said.paths.push(path);
            }
            // That a module is there is no use of what has its name.
            "mod" => at += 1,
            _ => drop(said.words.insert(token.to_owned())),
        }
        public = false;
        at += 1;
    }
    said
}

fn is_word(token: &str) -> bool {
    token.chars().all(|char| char.is_alphanumeric() || char == '_')
}

/// The position behind the bracket that closes the one at `open`.
fn closing(tokens: &[String], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// The names in a `use`, with their whole paths.
fn tree(tokens: &[String], before: &mut Vec<String>, found: &mut Vec<(String, Vec<String>)>) {
    let depth = before.len();
    let mut at = 0;
    let mut finish = |before: &mut Vec<String>, name: Option<String>| {
        if before.len() > depth || name.is_some() {
            let last =
                before.last().filter(|last| *last != "self").or_else(|| before.iter().rev().nth(1));
            let name = name.or_else(|| last.cloned());
            found.extend(name.map(|name| (name, before.clone())));
        }
        before.truncate(depth);
    };
    let mut inner = Vec::new();
    let mut renamed = None;
    while let Some(token) = tokens.get(at) {
        match token.as_str() {
            "{" => {
                let end = closing(tokens, at);
                inner.push((before.clone(), &tokens[at + 1..end - 1]));
                before.truncate(depth);
                at = end;
                continue;
            }
            "," => finish(before, renamed.take()),
            "as" => {
                renamed = tokens.get(at + 1).cloned();
                at += 1;
            }
            "::" => {}
            word => before.push(word.to_owned()),
        }
        at += 1;
    }
    finish(before, renamed);
    for (mut before, tokens) in inner {
        tree(tokens, &mut before, found);
    }
}

#[test]
fn circles_are_found_where_they_are() {
    let none = [
        ("lib.rs", "mod a; mod b; pub use a::A; pub use b::{B, C as D};"),
        ("a.rs", "use crate::B; pub struct A(B);\n#[cfg(test)] mod tests { use crate::b::x; }"),
        ("b.rs", "// crate::a\npub struct B; pub struct C; const TEXT: &str = \"crate::a::A\";"),
    ];
    assert_eq!(circles(&none), Vec::<String>::new());
    let by_use = [none[0], none[1], ("b.rs", "use super::a; pub struct B(a::A);")];
    assert_eq!(circles(&by_use), ["a, b\n    a → b (by B)\n    b → a (by a)"]);
    let by_path = [none[0], none[1], ("b.rs", "pub struct B(crate::a::A);")];
    assert_eq!(circles(&by_path).len(), 1);
    let child = [
        ("lib.rs", "mod a;"),
        ("a.rs", "mod x; pub struct A; fn f() { x::g() }"),
        ("a/x.rs", "use super::A; pub fn g() {}"),
    ];
    assert_eq!(circles(&child).len(), 1);
    let parent_passes_on = [
        ("lib.rs", "mod a;"),
        ("a.rs", "mod x; mod y; pub use x::X;"),
        ("a/x.rs", "pub struct X;"),
        ("a/y.rs", "use super::X; pub struct Y(X);"),
    ];
    assert_eq!(circles(&parent_passes_on), Vec::<String>::new());
}
