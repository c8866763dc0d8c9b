//! The keys of the attributes, with errors that name what was expected.

use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{
    Attribute, Error, Expr, Ident, Lit, LitStr, Meta, RangeLimits, Result, Token, parenthesized,
};

/// What stands in `#[node(…)]`.
pub(crate) struct NodeKeys {
    pub(crate) id: LitStr,
    /// That of the crate unless given.
    pub(crate) version: Expr,
    pub(crate) about: Option<LitStr>,
    pub(crate) heavy: bool,
    pub(crate) expensive: bool,
    pub(crate) outputs: Vec<LitStr>,
    pub(crate) like: Option<LitStr>,
    /// Inputs that must be of one size, and those of which there must be as many frames.
    pub(crate) same_size: Vec<LitStr>,
    pub(crate) same_count: Vec<LitStr>,
    /// Of a guider: it has the parameters `from` and `to`.
    pub(crate) part: Option<Ident>,
}

/// The keys of an input.
pub(crate) const OF_INPUT: &[&str] =
    &["default", "range", "step", "unit", "choices", "draws", "about", "name"];
/// The keys of an output.
pub(crate) const OF_OUTPUT: &[&str] = &["about", "name", "like"];

/// What stands in `#[param(…)]`, `#[port(…)]` and `#[output(…)]`.
#[derive(Default)]
pub(crate) struct PortKeys {
    /// The first key that is given.
    pub(crate) first: Option<Ident>,
    pub(crate) name: Option<LitStr>,
    pub(crate) default: Option<Expr>,
    pub(crate) range: Option<Expr>,
    pub(crate) step: Option<Expr>,
    pub(crate) unit: Option<LitStr>,
    pub(crate) about: Option<LitStr>,
    pub(crate) like: Option<LitStr>,
    pub(crate) choices: Vec<LitStr>,
    pub(crate) draws: bool,
}

fn texts(input: ParseStream<'_>) -> Result<Vec<LitStr>> {
    let inner;
    parenthesized!(inner in input);
    Ok(Punctuated::<LitStr, Token![,]>::parse_terminated(&inner)?.into_iter().collect())
}

fn value<T: Parse>(input: ParseStream<'_>) -> Result<T> {
    input.parse::<Token![=]>()?;
    input.parse()
}

/// Reads `key`, `key = …` and `key(…)`, with commas between them.
fn keys(
    input: ParseStream<'_>,
    mut take: impl FnMut(&Ident, ParseStream<'_>) -> Result<()>,
) -> Result<()> {
    let mut seen: Vec<Ident> = Vec::new();
    while !input.is_empty() {
        let key = input.call(Ident::parse_any)?;
        if seen.contains(&key) {
            return Err(Error::new(key.span(), format!("`{key}` is given twice")));
        }
        take(&key, input)?;
        seen.push(key);
        if !input.is_empty() {
            input.parse::<Token![,]>()?;
        }
    }
    Ok(())
}

impl Parse for NodeKeys {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let (mut id, mut version, mut about, mut like) = (None, None, None, None);
        let (mut heavy, mut expensive, mut outputs) = (false, false, vec![]);
        let (mut same_size, mut same_count, mut part) = (vec![], vec![], None);
        keys(input, |key, input| {
            match key.to_string().as_str() {
                "id" => id = Some(value(input)?),
                "version" => version = Some(value::<LitStr>(input)?),
                "about" => about = Some(value(input)?),
                "like" => like = Some(value(input)?),
                "heavy" => heavy = true,
                "expensive" => expensive = true,
                "output" => outputs = vec![value(input)?],
                "outputs" => outputs = texts(input)?,
                "same_size" => same_size = texts(input)?,
                "same_count" => same_count = texts(input)?,
                "part" => part = Some(key.clone()),
                _ => {
                    return Err(Error::new(
                        key.span(),
                        format!(
                            "there is no key `{key}`: expected id, version, about, heavy, \
                             expensive, output, outputs, like, same_size, same_count or part"
                        ),
                    ));
                }
            }
            Ok(())
        })?;
        let need = |key: &str, example: &str| {
            let message = format!("`{key} = \"{example}\"` is missing");
            Error::new(proc_macro2::Span::call_site(), message)
        };
        let id = id.ok_or_else(|| need("id", "example.gain"))?;
        check_dotted(&id)?;
        let version = match version {
            Some(version) => syn::parse_quote!(#version),
            None => syn::parse_quote!(::core::env!("CARGO_PKG_VERSION")),
        };
        outputs.iter().try_for_each(check_name)?;
        Ok(NodeKeys {
            id,
            version,
            about,
            heavy,
            expensive,
            outputs,
            like,
            same_size,
            same_count,
            part,
        })
    }
}

impl PortKeys {
    /// Takes what stands in the attributes called `names` away from them; `known` are the keys that
    /// mean something there.
    pub(crate) fn take(
        attributes: &mut Vec<Attribute>,
        names: &[&str],
        known: &[&str],
    ) -> Result<Self> {
        let mut found = PortKeys::default();
        let mut problem: Option<Error> = None;
        attributes.retain(|attribute| {
            if !names.iter().any(|name| attribute.path().is_ident(name)) {
                return true;
            }
            if let Err(error) = found.read(attribute, known) {
                match &mut problem {
                    Some(problem) => problem.combine(error),
                    None => problem = Some(error),
                }
            }
            false
        });
        match problem {
            Some(problem) => Err(problem),
            None => Ok(found),
        }
    }

    fn read(&mut self, attribute: &Attribute, known: &[&str]) -> Result<()> {
        if matches!(attribute.meta, Meta::Path(_)) {
            return Ok(());
        }
        attribute.parse_args_with(|input: ParseStream<'_>| {
            keys(input, |key, input| {
                if !known.contains(&key.to_string().as_str()) {
                    let known = known.join(", ");
                    let message = format!("there is no key `{key}` here: expected one of {known}");
                    return Err(Error::new(key.span(), message));
                }
                self.first.get_or_insert_with(|| key.clone());
                self.key(key, input)
            })
        })
    }

    fn key(&mut self, key: &Ident, input: ParseStream<'_>) -> Result<()> {
        match key.to_string().as_str() {
            "name" => {
                let name = value(input)?;
                check_name(&name)?;
                self.name = Some(name);
            }
            "default" => self.default = Some(widened(value(input)?)),
            "range" => self.range = Some(range(value(input)?)?),
            "step" => self.step = Some(widened(value(input)?)),
            "unit" => self.unit = Some(value(input)?),
            "about" => self.about = Some(value(input)?),
            "like" => self.like = Some(value(input)?),
            "choices" => self.choices = texts(input)?,
            _ => self.draws = true,
        }
        Ok(())
    }
}

/// Ranges include both of their ends, so that what they say is what fits.
fn range(expression: Expr) -> Result<Expr> {
    match &expression {
        Expr::Group(group) => range((*group.expr).clone()),
        Expr::Paren(paren) => range((*paren.expr).clone()),
        Expr::Range(ends)
            if matches!(ends.limits, RangeLimits::HalfOpen(_)) && ends.end.is_some() =>
        {
            Err(Error::new_spanned(ends, "a range includes its end: expected `least..=greatest`"))
        }
        _ => Ok(widened(expression)),
    }
}

/// Whole numbers as i128, so that every seed fits.
fn widened(mut expression: Expr) -> Expr {
    match &mut expression {
        Expr::Lit(literal) => {
            if let Lit::Int(int) = &literal.lit
                && int.suffix().is_empty()
            {
                let digits = format!("{int}i128");
                literal.lit = Lit::Int(syn::LitInt::new(&digits, int.span()));
            }
        }
        Expr::Group(group) => *group.expr = widened((*group.expr).clone()),
        Expr::Paren(paren) => *paren.expr = widened((*paren.expr).clone()),
        // `1 << 40`, but not what constants of other types are part of.
        Expr::Binary(binary) if is_number(&binary.left) && is_number(&binary.right) => {
            *binary.left = widened((*binary.left).clone());
            *binary.right = widened((*binary.right).clone());
        }
        Expr::Unary(unary) => *unary.expr = widened((*unary.expr).clone()),
        Expr::Range(range) => {
            for end in [&mut range.start, &mut range.end].into_iter().flatten() {
                **end = widened((**end).clone());
            }
        }
        _ => {}
    }
    expression
}

/// Whether an expression is made of whole numbers without a type.
fn is_number(expression: &Expr) -> bool {
    match expression {
        Expr::Lit(literal) => matches!(&literal.lit, Lit::Int(int) if int.suffix().is_empty()),
        Expr::Group(group) => is_number(&group.expr),
        Expr::Paren(paren) => is_number(&paren.expr),
        Expr::Unary(unary) => is_number(&unary.expr),
        Expr::Binary(binary) => is_number(&binary.left) && is_number(&binary.right),
        _ => false,
    }
}

fn is_word(word: &str) -> bool {
    let mut letters = word.bytes();
    letters.next().is_some_and(|first| first.is_ascii_lowercase())
        && letters.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Checks a port's name.
pub(crate) fn check_name(name: &LitStr) -> Result<()> {
    if is_word(&name.value()) {
        return Ok(());
    }
    Err(Error::new(
        name.span(),
        "expected a name of a-z, 0-9 and _ that begins with a letter, such as \"frames\"",
    ))
}

/// Checks a node's id or a type's name.
pub(crate) fn check_dotted(name: &LitStr) -> Result<()> {
    let text = name.value();
    if text.contains('.') && text.split('.').all(is_word) {
        return Ok(());
    }
    Err(Error::new(
        name.span(),
        "expected words of a-z, 0-9 and _ with points between them, such as \"example.gain\"",
    ))
}

/// The text of documentation comments.
pub(crate) fn docs(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(meta) if meta.path.is_ident("doc") => match &meta.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}
