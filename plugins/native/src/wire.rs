//! What engine and worker say to each other: frames of a length and JSON over a socket; tensors,
//! bytes and long texts lie in files that both see.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;

use candle_core::DType;
use kino_node::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The longest message, in bytes; tensors and long texts travel elsewhere.
const LONGEST: usize = 64 << 20;
/// Texts of more bytes lie in files.
pub(crate) const LONG: usize = 1 << 20;
/// How deep lists and records may lie in each other: what reads JSON ends at 128 levels.
pub(crate) const DEEPEST: usize = 32;

/// A value on the wire.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum WireValue {
    Text(String),
    /// The file of a long text.
    LongText(String),
    /// In decimal: JSON numbers end at 64 bits.
    Int(String),
    /// The bits, so that nothing is rounded.
    Real(u64),
    Bool(bool),
    /// Element type, shape, and the file of the elements.
    Tensor(String, Vec<usize>, String),
    /// The file of the bytes.
    Bytes(String),
    List(Vec<(String, WireValue)>),
    Record(String, Vec<(String, WireValue)>),
    /// Something that stays with the engine: what it is called, and its number there.
    Opaque(String, u64),
}

/// Who calls, for messages.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Caller {
    pub(crate) plugin: String,
    pub(crate) step: String,
}

/// How a request failed: cancelled, or message, hint and code.
pub(crate) type WireError = Option<(String, Option<String>, String)>;

/// What the engine says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Load this library; the folders are where tensors lie.
    Load {
        #[serde(with = "kino_node::path_text")]
        path: PathBuf,
        sha256: Option<String>,
        #[serde(with = "kino_node::path_text::optional")]
        memory: Option<PathBuf>,
        #[serde(with = "kino_node::path_text")]
        disk: PathBuf,
    },
    Open {
        caller: Caller,
        node: String,
        saved: Option<WireValue>,
    },
    Run {
        caller: Caller,
        inputs: Vec<Option<WireValue>>,
        wanted: Vec<bool>,
    },
    Save {
        caller: Caller,
    },
    /// Close the instance, if there is one.
    Close,
    Cancel,
    /// The contents of a file that was asked for, or why it may not be read.
    File(Result<WireValue, (String, Option<String>, String)>),
}

/// What the worker says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    /// The descriptor as JSON.
    Loaded(String),
    Done,
    /// What a run gave, and the opaque values that the plugin has let go of.
    Ran(Result<Vec<Option<WireValue>>, WireError>, Vec<u64>),
    Saved(Option<WireValue>),
    /// It did not succeed.
    Failed(WireError),
    Log(u32, String, String),
    Progress(u64, u64),
    /// It wants to read a file.
    Read(String),
}

/// Sends a message; waits as long as the other side does not read.
pub(crate) fn send<T: Serialize>(to: &Mutex<UnixStream>, message: &T) -> Result<()> {
    send_while(to, message, &mut || Ok(()))
}

/// Sends a message; where the other side does not read, `go_on` is asked at each time-out of the
/// socket whether to wait on. After its error the socket cannot be used any more: a part of the
/// message may have been sent.
pub(crate) fn send_while<T: Serialize>(
    to: &Mutex<UnixStream>,
    message: &T,
    go_on: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let json = serde_json::to_vec(message).map_err(|error| Error::failed(error.to_string()))?;
    if json.len() > LONGEST {
        return Err(Error::advised(
            format!("values of {} bytes do not go to or from an isolated plugin", json.len()),
            format!("lists of at most {LONGEST} bytes do; large data goes as tensors"),
        ));
    }
    let mut frame = (json.len() as u32).to_le_bytes().to_vec();
    frame.extend(json);
    let mut stream = to.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut left = frame.as_slice();
    while !left.is_empty() {
        match stream.write(left) {
            Ok(0) => return Err(std::io::Error::from(ErrorKind::WriteZero).into()),
            Ok(written) => left = &left[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                go_on()?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Receives a message.
pub(crate) fn receive<T: DeserializeOwned>(from: &mut UnixStream) -> Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST {
        return Err(Error::failed(format!("it sent a message of {length} bytes")));
    }
    let mut json = vec![0; length];
    from.read_exact(&mut json)?;
    serde_json::from_slice(&json)
        .map_err(|error| Error::failed(format!("its message does not read: {error}")))
}

/// An error as it is sent: none where the run was cancelled.
pub(crate) fn to_wire(error: &Error) -> WireError {
    match error {
        Error::Cancelled => None,
        other => {
            Some((other.to_string(), other.hint().map(str::to_owned), other.code().to_owned()))
        }
    }
}

/// An error as it was sent.
pub(crate) fn from_wire(said: WireError) -> Error {
    let Some((message, hint, code)) = said else { return Error::Cancelled };
    Error::failed(message).with_hint(hint).with_code(code)
}

/// The element type of this name.
pub(crate) fn dtype(name: &str) -> Result<DType> {
    name.parse().map_err(|_| Error::failed(format!("unknown element type `{name}`")))
}
