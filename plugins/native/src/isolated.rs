//! The engine's side of plugins that run in processes of their own.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kino_host::{Artifact, Call, Descriptor, Instance, Item};
use kino_node::{Error, Result, Value};

use crate::library::Trusted;
use crate::shared::{Engine, folder};
use crate::wire::{Request, Response, heard, receive, send};

/// How often a waiting engine looks at cancel and time.
const LOOK: Duration = Duration::from_millis(10);
/// How long a cancelled worker may take to stop by itself.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a worker may take to load the plugin.
const LOADING: Duration = Duration::from_secs(60);

/// A native plugin whose code runs in worker processes.
pub struct Isolated {
    pool: Arc<Pool>,
    descriptor: Descriptor,
}

/// How workers are started, and those that wait for work.
struct Pool {
    program: PathBuf,
    arguments: Vec<String>,
    path: PathBuf,
    sha256: Option<String>,
    idle: Mutex<Vec<Worker>>,
    /// A copy of the library: the build that was loaded first is what later workers load, too.
    _copy: tempfile::TempDir,
}

/// One worker process.
struct Worker {
    child: Child,
    to: Mutex<UnixStream>,
    inbox: Receiver<Result<Response>>,
    folder: tempfile::TempDir,
}

impl Worker {
    /// How the process ended, if it did; one whose socket is closed may take a moment.
    fn ended(&mut self) -> Option<ExitStatus> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < until => std::thread::sleep(LOOK),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Isolated {
    /// Starts a first worker with a plugin. `program` with `arguments` must call [`crate::serve`].
    ///
    /// # Errors
    /// As [`crate::NativePlugin::load`], or when no process can be started.
    pub fn start(program: &Path, arguments: &[&str], trusted: Trusted<'_>) -> Result<Self> {
        let copy = tempfile::Builder::new().prefix("kino-plugin-").tempdir()?;
        let name = trusted.path.file_name().unwrap_or_default();
        let path = copy.path().join(name);
        std::fs::copy(trusted.path, &path)
            .map_err(|error| Error::failed(format!("{}: {error}", trusted.path.display())))?;
        let pool = Pool {
            program: program.to_owned(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            path,
            sha256: trusted.sha256.map(str::to_owned),
            idle: Mutex::default(),
            _copy: copy,
        };
        let (worker, json) = pool.spawn()?;
        let descriptor = Descriptor::read(&json)?;
        pool.idle().push(worker);
        Ok(Isolated { pool: Arc::new(pool), descriptor })
    }
}

impl Pool {
    fn idle(&self) -> MutexGuard<'_, Vec<Worker>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker that waits, or a new one.
    fn worker(&self) -> Result<Worker> {
        loop {
            let waiting = self.idle().pop();
            let Some(mut worker) = waiting else { return Ok(self.spawn()?.0) };
            if matches!(worker.child.try_wait(), Ok(None)) {
                return Ok(worker);
            }
        }
    }

    /// A new worker, with the plugin's descriptor.
    fn spawn(&self) -> Result<(Worker, String)> {
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            // What interrupts the engine on its terminal is the engine's to tell.
            .process_group(0)
            .spawn()
            .map_err(|error| Error::failed(format!("no worker process was started: {error}")))?;
        let mut from = ours.try_clone()?;
        let (responses, inbox) = mpsc::channel();
        std::thread::spawn(move || {
            loop {
                let response = receive(&mut from);
                let is_last = response.is_err();
                if responses.send(response).is_err() || is_last {
                    break;
                }
            }
        });
        let worker = Worker { child, to: Mutex::new(ours), inbox, folder: folder()? };
        send(
            &worker.to,
            &Request::Load {
                path: self.path.to_string_lossy().into_owned(),
                sha256: self.sha256.clone(),
                folder: worker.folder.path().to_string_lossy().into_owned(),
            },
        )?;
        match worker.inbox.recv_timeout(LOADING) {
            Ok(Ok(Response::Loaded(json))) => Ok((worker, json)),
            Ok(Ok(Response::Failed(error))) => Err(heard(error)),
            _ => Err(Error::failed("the worker process ended while it loaded the plugin")),
        }
    }
}

impl Artifact for Isolated {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn open(&self, node: &str, saved: Option<&[u8]>, call: &Call<'_>) -> Result<Box<dyn Instance>> {
        let mut instance = IsolatedInstance {
            pool: Arc::clone(&self.pool),
            worker: Some(self.pool.worker()?),
            opaque: Vec::new(),
        };
        let saved = saved.map(|saved| Item::Bytes(saved.into()));
        let saved = saved.map(|saved| instance.engine()?.encode(&saved)).transpose()?;
        let (step, node) = (call.step.to_owned(), node.to_owned());
        instance.ask(call, &Request::Open { step, node, saved })?;
        Ok(Box::new(instance))
    }
}

/// An instance in a worker of its own.
struct IsolatedInstance {
    pool: Arc<Pool>,
    /// None once it has crashed or was killed.
    worker: Option<Worker>,
    /// What was named to the worker and stays here.
    opaque: Vec<Item>,
}

impl IsolatedInstance {
    fn engine(&mut self) -> Result<Engine<'_>> {
        let worker = self.worker.as_ref().ok_or_else(gone)?;
        let opaque = std::mem::take(&mut self.opaque);
        Ok(Engine { folder: worker.folder.path(), opaque })
    }

    /// Sends a request and serves the worker until it answers.
    fn ask(&mut self, call: &Call<'_>, request: &Request) -> Result<Response> {
        let worker = self.worker.as_ref().ok_or_else(gone)?;
        match send(&worker.to, request) {
            Ok(()) => {}
            Err(Error::Io(_)) => return Err(self.crashed(call, None)),
            Err(error) => return Err(error),
        }
        let begun = Instant::now();
        let mut cancelled: Option<Instant> = None;
        loop {
            match worker.inbox.recv_timeout(LOOK) {
                Ok(Ok(Response::Log(level, target, message))) => call.log(level, &target, &message),
                Ok(Ok(Response::Progress(step, of))) => call.progress(step, of),
                Ok(Ok(Response::Read(path))) => {
                    let mut engine = Engine { folder: worker.folder.path(), opaque: Vec::new() };
                    let file = call.files.read(&path);
                    let file = file.and_then(|file| engine.encode(&Item::Bytes(file.into())));
                    let file =
                        file.map_err(|error| (error.to_string(), error.hint().map(str::to_owned)));
                    send(&worker.to, &Request::File(file))?;
                }
                Ok(Ok(Response::Failed(error))) => return Err(heard(error)),
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => return Err(self.crashed(call, Some(&error))),
                Err(RecvTimeoutError::Disconnected) => return Err(self.crashed(call, None)),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if call.cancel.is_cancelled() {
                let since = *cancelled.get_or_insert_with(|| {
                    let _ = send(&worker.to, &Request::Cancel);
                    Instant::now()
                });
                if since.elapsed() > PATIENCE {
                    self.worker = None;
                    return Err(Error::Cancelled);
                }
            }
            if begun.elapsed() > call.limits.time {
                self.worker = None;
                let seconds = call.limits.time.as_secs_f64();
                return Err(Error::broken(
                    format!("the plugin `{}` took longer than {seconds} s", call.plugin),
                    format!(
                        "`kino plugin trust {} --isolate --seconds N` allows more",
                        call.plugin
                    ),
                ));
            }
        }
    }

    /// What to say of a worker that is gone, or that said what cannot be understood.
    fn crashed(&mut self, call: &Call<'_>, said: Option<&Error>) -> Error {
        let Some(mut worker) = self.worker.take() else { return gone() };
        if call.cancel.is_cancelled() {
            return Error::Cancelled;
        }
        let how = match (worker.ended(), said) {
            (Some(status), _) => format!("the plugin's process ended: {status}"),
            (None, Some(error)) => format!("the plugin's process was stopped: {error}"),
            (None, None) => "the plugin's process was stopped: it does not answer".to_owned(),
        };
        Error::broken(how, "this is a bug of the plugin; the next run starts a fresh process")
    }
}

fn gone() -> Error {
    Error::failed("the plugin's process has ended")
}

impl Instance for IsolatedInstance {
    fn run(&mut self, call: &Call<'_>, inputs: &[Option<Value>]) -> Result<Vec<Option<Value>>> {
        let mut engine = self.engine()?;
        let mut wires = Vec::with_capacity(inputs.len());
        for input in inputs {
            let item = input.clone().map(Item::Value);
            wires.push(item.map(|item| engine.encode(&item)).transpose()?);
        }
        self.opaque = engine.opaque;
        let (step, wanted) = (call.step.to_owned(), call.wanted.to_vec());
        let response = self.ask(call, &Request::Run { step, inputs: wires, wanted })?;
        let Response::Outputs(outputs) = response else { return Err(confused()) };
        let engine = self.engine()?;
        let value = |wire: Option<_>| {
            wire.map(|wire| engine.decode(wire, call.spill)?.into_value()).transpose()
        };
        let values = outputs.into_iter().map(value).collect();
        self.opaque = engine.opaque;
        values
    }

    fn save(&mut self, call: &Call<'_>) -> Result<Option<Vec<u8>>> {
        let step = call.step.to_owned();
        let Response::Saved(saved) = self.ask(call, &Request::Save { step })? else {
            return Err(confused());
        };
        let engine = self.engine()?;
        saved.map(|saved| Ok(engine.decode(saved, call.spill)?.bytes()?.to_vec())).transpose()
    }

    fn is_broken(&self) -> bool {
        self.worker.is_none()
    }
}

fn confused() -> Error {
    Error::failed("the worker process answered something else than was asked")
}

impl Drop for IsolatedInstance {
    fn drop(&mut self) {
        let Some(worker) = self.worker.take() else { return };
        let closed = send(&worker.to, &Request::Close).is_ok()
            && matches!(worker.inbox.recv_timeout(PATIENCE), Ok(Ok(Response::Done)));
        if closed {
            self.pool.idle().push(worker);
        }
    }
}
