//! Models of the Hugging Face Hub: fetched into its cache on this machine, and what lies there held
//! against its hashes. It is the one crate that reaches the network, and only where it is asked to:
//! opening, checking and running graphs read the cache ([`kino_world::hub`]) and fetch nothing. A
//! run asks a language model elsewhere ([`chat`]) where the user has named one in the settings.
//!
//! [`pull`] writes what `huggingface_hub` reads and takes what that has written; both take the same
//! locks, so that they may run at once. A download that is cut off goes on where it ended. Contents
//! are hashed as they arrive, and a file stands at its place whole or not at all.

#![forbid(unsafe_code)]

mod access;
mod blob;
mod chat;
mod error;
mod http;
mod pull;
mod remote;
mod select;
mod sha1;
mod verify;

pub use access::{HubAccess, Token};
pub use blob::blob_name;
pub use chat::{ChatAnswer, ChatEndpoint, ChatError, ChatQuestion, address_error, chat};
pub use error::{Error, Result};
pub use pull::{PullEvent, PullRequest, Pulled, PulledFile, pull};
pub use verify::{BlobState, VerifiedFile, verify};
