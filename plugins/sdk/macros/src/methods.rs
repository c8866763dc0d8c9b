//! An `impl` block as a node with state.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, ImplItem, ImplItemFn, ItemImpl, Result, Signature};

use crate::attributes::{NodeKeys, docs};
use crate::function::allow;
use crate::ports::{
    Expansion, fallible, is_called, local, method, outputs, params, result_of, spec, taken,
};

/// The method of a name.
pub(crate) fn find<'a>(methods: &'a mut ItemImpl, name: &str) -> Option<&'a mut ImplItemFn> {
    methods.items.iter_mut().find_map(|member| match member {
        ImplItem::Fn(method) if method.sig.ident == name => Some(method),
        _ => None,
    })
}

/// Refuses blocks that cannot be a node.
pub(crate) fn check_block(methods: &ItemImpl) -> Result<()> {
    if let Some((_, of, _)) = &methods.trait_ {
        return Err(Error::new_spanned(of, "expected a plain `impl` block, not one of a trait"));
    }
    if !methods.generics.params.is_empty() {
        return Err(Error::new_spanned(&methods.generics, "a node cannot be generic"));
    }
    Ok(())
}

/// Refuses methods that would never be called.
pub(crate) fn refuse(methods: &mut ItemImpl, names: &[&str], why: &str) -> Result<()> {
    for name in names {
        if let Some(method) = find(methods, name) {
            return Err(Error::new(method.sig.ident.span(), format!("`{name}`: {why}")));
        }
    }
    Ok(())
}

/// The help: of the block, else of its main method.
pub(crate) fn about_of(methods: &ItemImpl, main: &str) -> String {
    let block = docs(&methods.attrs);
    if !block.is_empty() {
        return block;
    }
    let main = methods.items.iter().find_map(|member| match member {
        ImplItem::Fn(method) if method.sig.ident == main => Some(docs(&method.attrs)),
        _ => None,
    });
    main.unwrap_or_default()
}

/// Calls a function that makes the state: `name(cx)`, `name()`, or `Default` where there is none.
pub(crate) fn made_by(methods: &mut ItemImpl, name: &str) -> Result<TokenStream> {
    let ty = methods.self_ty.clone();
    let Some(found) = find(methods, name) else {
        return Ok(quote!(::kino_plugin::Result::Ok(<#ty as ::core::default::Default>::default())));
    };
    let signature = found.sig.clone();
    let cx = cx_of(&signature)?;
    let path = method(&ty, &signature.ident);
    Ok(fallible(&signature, quote!(#path(#cx))))
}

/// `cx,` where a function's first own parameter is one; refuses all others but `more`.
fn arguments(signature: &Signature, more: usize) -> Result<TokenStream> {
    let own: Vec<_> = signature
        .inputs
        .iter()
        .filter_map(|argument| match argument {
            syn::FnArg::Typed(typed) => Some(&*typed.ty),
            syn::FnArg::Receiver(_) => None,
        })
        .collect();
    let has_cx = own.first().is_some_and(|ty| is_called(ty, "Cx"));
    if own.len() != usize::from(has_cx) + more {
        let name = &signature.ident;
        let expected = match more {
            0 => format!("expected `{name}(cx: &mut Cx)` or `{name}()`"),
            _ => format!("expected `{name}(cx: &mut Cx, saved: &[u8])`"),
        };
        return Err(Error::new_spanned(&signature.inputs, expected));
    }
    let cx = local("cx");
    Ok(if has_cx { quote!(#cx,) } else { TokenStream::new() })
}

fn cx_of(signature: &Signature) -> Result<TokenStream> {
    arguments(signature, 0)
}

/// The block as it is, and the node.
pub(crate) fn expand(keys: &NodeKeys, mut methods: ItemImpl) -> Result<TokenStream> {
    check_block(&methods)?;
    refuse(&mut methods, &["begin", "guide"], "this is a method of guiders: #[guider(…)]")?;
    let about = about_of(&methods, "run");
    let ty = methods.self_ty.clone();
    let Some(run) = find(&mut methods, "run") else {
        return Err(Error::new_spanned(&ty, "expected a method `run(&mut self, cx: &mut Cx, …)`"));
    };
    let found = params(&mut run.sig)?;
    if !found.has_self {
        return Err(Error::new_spanned(&run.sig, "`run` takes `&mut self` (or `&self`)"));
    }
    let (signature, cx) = (run.sig.clone(), local("cx"));
    let cx = found.has_cx.then(|| quote!(#cx,));
    let (takes, given) = taken(&found.params, 0);
    let (gives, call) = result_of(&signature, quote!(self.0.run(#cx #(#given),*)))?;
    let outputs = outputs(keys, &found.params, &gives)?;
    let node = Expansion {
        node: (*ty).clone(),
        spec: spec(keys, &about, &found.params, outputs, &["state"]),
        held: *ty,
        open: open(&mut methods)?,
        takes,
        gives,
        call,
        save: save(&mut methods)?,
    };
    let allow = allow();
    Ok(quote!(#allow #methods #node))
}

fn save(methods: &mut ItemImpl) -> Result<Option<TokenStream>> {
    let Some(save) = find(methods, "save") else { return Ok(None) };
    let (given, cx) = (cx_of(&save.sig)?, local("cx"));
    Ok(Some(quote! {
        #[allow(unused_variables)]
        fn save(
            &mut self,
            #cx: &mut ::kino_plugin::Cx,
        ) -> ::kino_plugin::Result<::core::option::Option<::std::vec::Vec<u8>>> {
            ::kino_plugin::node::Saved::saved(self.0.save(#given))
        }
    }))
}

fn open(methods: &mut ItemImpl) -> Result<TokenStream> {
    for (one, other) in [("save", "restore"), ("restore", "save")] {
        if find(methods, other).is_none() {
            refuse(methods, &[one], &format!("it is of no use without `{other}`"))?;
        }
    }
    let load = made_by(methods, "load")?;
    let (ty, saved) = (methods.self_ty.clone(), local("saved"));
    let Some(restore) = find(methods, "restore") else {
        return Ok(quote!(match #saved {
            ::core::option::Option::None => #load,
            ::core::option::Option::Some(_) => ::kino_plugin::Result::Err(
                ::kino_plugin::Error::new("this build restores no state"),
            ),
        }));
    };
    let cx = arguments(&restore.sig, 1)?;
    let path = method(&ty, &restore.sig.ident);
    let restore = fallible(&restore.sig, quote!(#path(#cx #saved)));
    Ok(quote!(match #saved {
        ::core::option::Option::None => #load,
        ::core::option::Option::Some(#saved) => #restore,
    }))
}
