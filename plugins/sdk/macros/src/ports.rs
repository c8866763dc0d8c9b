//! Parameters of a function as ports: what the descriptor says of them, and how they are taken.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Error, Expr, FnArg, GenericArgument, Ident, LitStr, Pat, PathArguments, Result, ReturnType,
    Signature, Type, TypeReference,
};

use crate::attributes::{NodeKeys, OF_INPUT, PortKeys, check_name, docs};

/// One parameter.
pub(crate) struct Param {
    name: LitStr,
    /// The type that is taken; a reference is lent from it.
    ty: Type,
    lending: Lending,
    keys: PortKeys,
    about: String,
}

/// How a function gets what was taken.
#[derive(Clone, Copy)]
enum Lending {
    /// Itself.
    Given,
    /// `&T` of a `T`, `&str` of a `String`, `&[T]` of a `Vec<T>`.
    Lent,
    /// `Option<&T>` of an `Option<T>`.
    LentOption,
    /// `Option<&str>` of an `Option<String>`, `Option<&[T]>` of an `Option<Vec<T>>`.
    LentContents,
}

/// A signature, taken apart.
pub(crate) struct Params {
    pub(crate) has_self: bool,
    pub(crate) has_cx: bool,
    pub(crate) params: Vec<Param>,
}

/// A type without what `macro_rules!` and parentheses wrap around it.
fn plain(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => plain(&group.elem),
        Type::Paren(paren) => plain(&paren.elem),
        ty => ty,
    }
}

/// Whether a type is called `name`, wherever it comes from.
pub(crate) fn is_called(ty: &Type, name: &str) -> bool {
    match plain(ty) {
        Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == name),
        Type::Reference(reference) => is_called(&reference.elem, name),
        _ => false,
    }
}

/// Takes a signature apart and takes the ports' attributes away from it.
pub(crate) fn params(signature: &mut Signature) -> Result<Params> {
    if let Some(asyncness) = signature.asyncness {
        return Err(Error::new(asyncness.span, "a node cannot be async"));
    }
    if !signature.generics.params.is_empty() {
        let message = "a node cannot be generic, nor name lifetimes: it gives what it owns";
        return Err(Error::new_spanned(&signature.generics, message));
    }
    let mut found = Params { has_self: false, has_cx: false, params: Vec::new() };
    let mut problem: Option<Error> = None;
    for argument in &mut signature.inputs {
        let typed = match argument {
            FnArg::Receiver(_) => {
                found.has_self = true;
                continue;
            }
            FnArg::Typed(typed) if found.params.is_empty() && is_called(&typed.ty, "Cx") => {
                found.has_cx = true;
                continue;
            }
            FnArg::Typed(typed) if is_called(&typed.ty, "Cx") => {
                return Err(Error::new_spanned(typed, "`cx: &mut Cx` comes before the inputs"));
            }
            FnArg::Typed(typed) => typed,
        };
        match param(typed) {
            Ok(param) => found.params.push(param),
            Err(error) => match &mut problem {
                Some(problem) => problem.combine(error),
                None => problem = Some(error),
            },
        }
    }
    problem.map_or(Ok(found), Err)
}

fn param(typed: &mut syn::PatType) -> Result<Param> {
    let about = docs(&typed.attrs);
    typed.attrs.retain(|attribute| !attribute.path().is_ident("doc"));
    let keys = PortKeys::take(&mut typed.attrs, &["param", "port"], OF_INPUT)?;
    let Pat::Ident(pattern) = &*typed.pat else {
        return Err(Error::new_spanned(&typed.pat, "expected a name: it becomes the port's name"));
    };
    // A parameter that is not used yet is a port all the same.
    let name = pattern.ident.unraw().to_string();
    let name = LitStr::new(name.trim_start_matches('_'), pattern.ident.span());
    let name = keys.name.clone().unwrap_or(name);
    check_name(&name)?;
    let (ty, lending) = owned(&typed.ty)?;
    Ok(Param { name, ty, lending, keys, about })
}

/// The type that is taken for a parameter: `&str` is lent from a `String`, `&[T]` from a `Vec<T>`.
fn owned(ty: &Type) -> Result<(Type, Lending)> {
    if let Type::Reference(reference) = plain(ty) {
        return Ok((referred(reference)?, Lending::Lent));
    }
    let Some(Type::Reference(inner)) = argument_of(ty, "Option") else {
        return Ok((ty.clone(), Lending::Given));
    };
    let lending = match plain(&inner.elem) {
        Type::Slice(_) => Lending::LentContents,
        elem if is_called(elem, "str") => Lending::LentContents,
        _ => Lending::LentOption,
    };
    let taken = referred(&inner)?;
    Ok((syn::parse_quote!(::core::option::Option<#taken>), lending))
}

/// What owns what a reference refers to.
fn referred(reference: &TypeReference) -> Result<Type> {
    if reference.mutability.is_some() {
        let message = "inputs are immutable: expected `&` without `mut`";
        return Err(Error::new_spanned(reference, message));
    }
    Ok(match plain(&reference.elem) {
        Type::Slice(slice) => {
            let item = &slice.elem;
            syn::parse_quote!(::std::vec::Vec<#item>)
        }
        elem if is_called(elem, "str") => syn::parse_quote!(::std::string::String),
        elem => elem.clone(),
    })
}

impl Param {
    /// The type, as written.
    pub(crate) fn ty(&self) -> &Type {
        &self.ty
    }

    /// The port's name.
    pub(crate) fn name(&self) -> String {
        self.name.value()
    }

    /// Where the port's name stands.
    pub(crate) fn span(&self) -> Span {
        self.name.span()
    }

    /// The first key that is given for it.
    pub(crate) fn key(&self) -> Option<&Ident> {
        self.keys.first.as_ref()
    }

    /// The port in the descriptor.
    fn spec(&self) -> TokenStream {
        let (name, ty, keys) = (&self.name, &self.ty, &self.keys);
        let about = keys.about.as_ref().map_or_else(|| self.about.clone(), LitStr::value);
        let input = quote_spanned!(ty.span()=> <::kino_plugin::node::PortSpec>::input::<#ty>);
        let default =
            keys.default.as_ref().map(|it| quote_spanned!(it.span()=> .default_value(#it)));
        let range = keys.range.as_ref().map(range);
        let step = keys.step.as_ref().map(|it| {
            quote_spanned!(it.span()=> .key("step", ::kino_plugin::scalars::Literal::json(#it)))
        });
        let unit = keys.unit.as_ref().map(|it| quote!(.key("unit", #it)));
        let draws = keys.draws.then(|| quote!(.key("draws", true)));
        let choices = &keys.choices;
        let choices = (!choices.is_empty()).then(
            || quote!(.key("choices", ::std::vec![#(::std::string::String::from(#choices)),*])),
        );
        quote!(#input(#name, #about) #default #range #step #unit #draws #choices)
    }

    /// Takes the input of an index into a variable.
    fn take(&self, index: usize, variable: &Ident) -> TokenStream {
        let (name, ty) = (&self.name, &self.ty);
        let take = quote_spanned!(ty.span()=> ::kino_plugin::node::take::<#ty>);
        let inputs = local("inputs");
        quote!(let #variable = #take(#inputs, #index, #name)?;)
    }
}

/// A range of a port. Its ends may be of different types: a number, and a constant.
fn range(range: &Expr) -> TokenStream {
    let Expr::Range(ends) = range else {
        return quote_spanned!(range.span()=> .range(#range));
    };
    let end = |end: &Option<Box<Expr>>| match end {
        Some(end) => quote_spanned!(end.span()=> ::kino_plugin::scalars::Literal::json(#end)),
        None => quote!(::kino_plugin::json::Value::Null),
    };
    let (least, most) = (end(&ends.start), end(&ends.end));
    quote!(.ends(#least, #most))
}

/// A variable that no name of the author's can mean, nor hide.
pub(crate) fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

/// The variables that hold inputs, the code that takes them from `inputs` beginning at `first`, and
/// how they are handed over.
pub(crate) fn taken(params: &[Param], first: usize) -> (TokenStream, Vec<TokenStream>) {
    let variable = |index: usize| local(&format!("input_{index}"));
    let takes = params.iter().zip(first..).map(|(param, i)| param.take(i, &variable(i)));
    let takes = quote!(#(#takes)*);
    let hand = |(param, i): (&Param, usize)| {
        let variable = variable(i);
        match param.lending {
            Lending::Given => variable.to_token_stream(),
            Lending::Lent => quote!(&#variable),
            Lending::LentOption => quote!(#variable.as_ref()),
            Lending::LentContents => quote!(#variable.as_deref()),
        }
    };
    (takes, params.iter().zip(first..).map(hand).collect())
}

/// What a function gives: the type within `Result`, and the code that turns its result into a
/// `kino_plugin::Result`.
pub(crate) fn result_of(signature: &Signature, call: TokenStream) -> Result<(Type, TokenStream)> {
    let ReturnType::Type(_, ty) = &signature.output else {
        return Err(Error::new(
            signature.ident.span(),
            "a node gives something: expected a result such as `-> Result<Frames>`",
        ));
    };
    let inner = within_result(ty).unwrap_or_else(|| (**ty).clone());
    Ok((inner, fallible(signature, call)))
}

fn within_result(ty: &Type) -> Option<Type> {
    argument_of(ty, "Result")
}

/// The first argument of a type of a name: `T` of `Result<T>`.
fn argument_of(ty: &Type, name: &str) -> Option<Type> {
    let Type::Path(path) = plain(ty) else { return None };
    let last = path.path.segments.last().filter(|last| last.ident == name)?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(plain(ty).clone()),
        _ => None,
    })
}

/// A node: what an instance of it holds, how it is made, and how it runs.
pub(crate) struct Expansion {
    /// The type that stands for the node.
    pub(crate) node: Type,
    /// Its descriptor: `const ID` and `fn spec`.
    pub(crate) spec: TokenStream,
    /// What an instance holds, as `self.0`.
    pub(crate) held: Type,
    /// Makes it, a `Result`, with `cx` and `saved` at hand.
    pub(crate) open: TokenStream,
    /// Takes the inputs into variables.
    pub(crate) takes: TokenStream,
    /// What the author's function gives.
    pub(crate) gives: Type,
    /// Calls it, a `Result`, with `cx` and those variables at hand.
    pub(crate) call: TokenStream,
    /// The method `save` of an instance that has one.
    pub(crate) save: Option<TokenStream>,
}

impl ToTokens for Expansion {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let Expansion { node, spec, held, open, takes, gives, call, save } = self;
        let [cx, inputs, saved, made] = ["cx", "inputs", "saved", "made"].map(local);
        tokens.extend(quote! {
            #[allow(clippy::type_complexity, reason = "the type of outputs is the author's")]
            const _: () = {
                struct __Held(#held);

                impl ::kino_plugin::node::Instance for __Held {
                    #[allow(unused_variables)]
                    fn run(
                        &mut self,
                        #cx: &mut ::kino_plugin::Cx,
                        #inputs: &mut [::core::option::Option<::kino_plugin::Value>],
                    ) -> ::kino_plugin::Result<
                        ::std::vec::Vec<::core::option::Option<::kino_plugin::Value>>,
                    > {
                        #takes
                        let #made: #gives = #call?;
                        ::kino_plugin::port::Outputs::give_all(#made)
                    }

                    #save
                }

                impl ::kino_plugin::node::Node for #node {
                    #spec

                    #[allow(unused_variables)]
                    fn open(
                        #cx: &mut ::kino_plugin::Cx,
                        #saved: ::core::option::Option<&[u8]>,
                    ) -> ::kino_plugin::Result<
                        ::std::boxed::Box<dyn ::kino_plugin::node::Instance>,
                    > {
                        let #made: ::kino_plugin::Result<#held> = #open;
                        ::kino_plugin::Result::Ok(::std::boxed::Box::new(__Held(#made?)))
                    }
                }
            };
        });
    }
}

/// The function `spec` of a node.
pub(crate) fn spec(
    keys: &NodeKeys,
    about: &str,
    params: &[Param],
    outputs: TokenStream,
    traits: &[&str],
) -> TokenStream {
    let (id, version, names) = (&keys.id, &keys.version, &keys.outputs);
    let about = keys.about.as_ref().map_or_else(|| about.to_owned(), LitStr::value);
    let inputs = params.iter().map(Param::spec);
    let part =
        keys.part.as_ref().map(|_| quote!(inputs.extend(::kino_plugin::node::part_of_run());));
    let own = [("heavy", keys.heavy), ("expensive", keys.expensive)];
    let own = own.iter().filter(|(_, holds)| *holds).map(|(name, _)| *name);
    let traits: Vec<_> = own.chain(traits.iter().copied()).collect();
    let agree = [("same_size", &keys.same_size), ("same_count", &keys.same_count)];
    let agree = agree.iter().filter(|(_, inputs)| !inputs.is_empty());
    let agree = agree.map(|(key, inputs)| quote!((#key, &[#(#inputs),*])));
    quote! {
        const ID: &'static str = #id;

        fn spec() -> ::kino_plugin::node::NodeSpec {
            #[allow(unused_mut)]
            let mut inputs: ::std::vec::Vec<::kino_plugin::node::PortSpec> =
                ::std::vec![#(#inputs),*];
            #part
            ::kino_plugin::node::NodeSpec {
                id: #id,
                version: #version,
                about: #about,
                inputs,
                outputs: #outputs,
                names: &[#(#names),*],
                traits: &[#(#traits),*],
                agree: &[#(#agree),*],
            }
        }
    }
}

/// Larger tuples are no outputs.
const MAX_OF_A_TUPLE: usize = 6;

/// The outputs in the descriptor.
pub(crate) fn outputs(keys: &NodeKeys, params: &[Param], ty: &Type) -> Result<TokenStream> {
    let names = &keys.outputs;
    if let Some(part) = &keys.part {
        return Err(Error::new(part.span(), "`part` is for guiders: #[guider(…, part)]"));
    }
    for agree in [&keys.same_size, &keys.same_count] {
        let is_input = |name: &&LitStr| params.iter().any(|param| param.name() == name.value());
        if let Some(name) = agree.iter().find(|name| !is_input(name)) {
            return Err(Error::new(name.span(), format!("there is no input `{}`", name.value())));
        }
        if let [alone] = agree.as_slice() {
            return Err(Error::new(alone.span(), "expected two inputs or more, which must agree"));
        }
    }
    if let Type::Tuple(tuple) = plain(ty)
        && tuple.elems.len() > MAX_OF_A_TUPLE
    {
        let message = "six outputs at most are a tuple: expected a struct with #[derive(Outputs)]";
        return Err(Error::new_spanned(tuple, message));
    }
    let ports = quote_spanned!(ty.span()=> <#ty as ::kino_plugin::port::Outputs>::ports);
    let like = match &keys.like {
        Some(like) if !params.iter().any(|param| param.name.value() == like.value()) => {
            return Err(Error::new(like.span(), format!("there is no input `{}`", like.value())));
        }
        Some(like) => quote! {
            if !ports.is_empty() {
                let first = ports.remove(0).key("like", #like);
                ports.insert(0, first);
            }
        },
        None => TokenStream::new(),
    };
    Ok(quote!({
        #[allow(unused_mut)]
        let mut ports = #ports(&[#(#names),*]);
        #like
        ports
    }))
}

/// Whether a function gives a `Result`.
pub(crate) fn gives_result(signature: &Signature) -> bool {
    matches!(&signature.output, ReturnType::Type(_, ty) if within_result(ty).is_some())
}

/// A call whose result is a `kino_plugin::Result` whether the function gives one or not.
pub(crate) fn fallible(signature: &Signature, call: TokenStream) -> TokenStream {
    if gives_result(signature) {
        quote!(#call.map_err(::core::convert::Into::<::kino_plugin::Error>::into))
    } else {
        quote!(::core::result::Result::<_, ::kino_plugin::Error>::Ok(#call))
    }
}

/// An expression that names a method of a type.
pub(crate) fn method(ty: &Type, name: &Ident) -> Expr {
    syn::parse_quote!(<#ty>::#name)
}
