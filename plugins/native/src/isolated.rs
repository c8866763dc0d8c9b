//! The engine's side of plugins that run in processes of their own.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kino_host::{CallCx, Descriptor, Instance, Module, PluginError, PluginValue};
use kino_node::{Error, Result, Value};

use crate::library::TrustedLibrary;
use crate::shared::{
    EngineDecoder, EngineEncoder, OpaqueTable, OutgoingFiles, SharedFolders, WorkerFolders,
};
use crate::wire::{Caller, Request, Response, WireValue, from_wire, receive, send_while, to_wire};

/// How often a waiting engine looks at cancel and time.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How long a cancelled worker may take to stop by itself.
const GRACE_PERIOD: Duration = Duration::from_secs(2);
/// Messages of a worker that wait for the engine; who says more waits, too.
const MAX_WAITING: usize = 16;
/// How long a worker may take to load the plugin.
const LOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// A native plugin whose code runs in worker processes.
pub struct IsolatedPlugin {
    pool: Arc<Pool>,
    descriptor: Descriptor,
}

/// How workers are started, and those that wait for work.
struct Pool {
    program: PathBuf,
    arguments: Vec<String>,
    path: PathBuf,
    sha256: Option<String>,
    idle: Mutex<Vec<Process>>,
    /// A copy of the library: the build that was loaded first is what later workers load, too.
    _copy: tempfile::TempDir,
}

/// One worker process.
struct Process {
    child: Child,
    to: Mutex<UnixStream>,
    inbox: Receiver<Result<Response>>,
    places: SharedFolders,
    _folders: WorkerFolders,
}

impl Process {
    /// How the process ended, if it did; one whose socket is closed may take a moment.
    fn ended(&mut self) -> Option<ExitStatus> {
        let until = Instant::now() + GRACE_PERIOD;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < until => std::thread::sleep(POLL_INTERVAL),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl IsolatedPlugin {
    /// Starts a first worker with a plugin. `program` with `arguments` must call [`crate::serve`].
    ///
    /// # Errors
    /// As [`crate::NativePlugin::load`], or when no process can be started.
    pub fn start(
        program: &Path,
        arguments: &[&str],
        trusted: TrustedLibrary<'_>,
    ) -> Result<Self, PluginError> {
        Ok(Self::start_first(program, arguments, trusted)?)
    }

    fn start_first(
        program: &Path,
        arguments: &[&str],
        trusted: TrustedLibrary<'_>,
    ) -> Result<Self> {
        let copy = tempfile::Builder::new().prefix("kino-plugin-").tempdir()?;
        let name = trusted.path.file_name().unwrap_or_default();
        let path = copy.path().join(name);
        let library = kino_host::read_artifact(trusted.path);
        std::fs::write(&path, library.map_err(|error| Error::failed(error.to_string()))?)?;
        let pool = Pool {
            program: program.to_owned(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            path,
            sha256: trusted.sha256.map(str::to_owned),
            idle: Mutex::default(),
            _copy: copy,
        };
        let (worker, json) = pool.spawn()?;
        let descriptor = Descriptor::read(&json).map_err(Error::failed)?;
        pool.idle().push(worker);
        Ok(IsolatedPlugin { pool: Arc::new(pool), descriptor })
    }
}

impl Pool {
    fn idle(&self) -> MutexGuard<'_, Vec<Process>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker that waits, or a new one.
    fn worker(&self) -> Result<Process> {
        loop {
            let waiting = self.idle().pop();
            let Some(mut worker) = waiting else { return Ok(self.spawn()?.0) };
            if matches!(worker.child.try_wait(), Ok(None)) {
                return Ok(worker);
            }
        }
    }

    /// A new worker, with the plugin's descriptor.
    fn spawn(&self) -> Result<(Process, String)> {
        let folders = WorkerFolders::new()?;
        let places = folders.places();
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            // What interrupts the engine on its terminal is the engine's to tell.
            .process_group(0)
            .spawn()
            .map_err(|error| Error::failed(format!("no worker process was started: {error}")))?;
        let from = ours.try_clone()?;
        // A process that does not read is not waited for without an end.
        ours.set_write_timeout(Some(POLL_INTERVAL))?;
        let (responses, inbox) = mpsc::sync_channel(MAX_WAITING);
        std::thread::spawn(move || receive_all(from, &responses));
        let to = Mutex::new(ours);
        let worker = Process { child, to, inbox, places, _folders: folders };
        let load = Request::Load {
            path: self.path.clone(),
            sha256: self.sha256.clone(),
            memory: worker.places.memory.clone(),
            disk: worker.places.disk.clone(),
        };
        worker.send_within(LOAD_TIMEOUT, &load)?;
        match worker.inbox.recv_timeout(LOAD_TIMEOUT) {
            Ok(Ok(Response::Loaded(json))) => Ok((worker, json)),
            Ok(Ok(Response::Failed(error))) => Err(from_wire(error)),
            _ => Err(Error::failed("the worker process ended while it loaded the plugin")),
        }
    }
}

/// Hands on what a worker says until it ends or nobody listens.
fn receive_all(mut from: UnixStream, responses: &SyncSender<Result<Response>>) {
    loop {
        let response = receive(&mut from);
        let is_last = response.is_err();
        if responses.send(response).is_err() || is_last {
            return;
        }
    }
}

/// How long a call of a worker may go on.
struct CallTimer<'a> {
    call: &'a CallCx<'a>,
    begun: Instant,
    /// When it was seen that the run is cancelled.
    cancelled: Option<Instant>,
}

impl<'a> CallTimer<'a> {
    fn new(call: &'a CallCx<'a>) -> Self {
        CallTimer { call, begun: Instant::now(), cancelled: None }
    }

    /// An error once the worker is to be given up: its time is over, or it does not stop although
    /// the run was cancelled.
    fn check(&mut self) -> Result<()> {
        if self.call.cancel.is_cancelled() {
            let since = *self.cancelled.get_or_insert_with(Instant::now);
            if since.elapsed() > GRACE_PERIOD {
                return Err(Error::Cancelled);
            }
        }
        if self.begun.elapsed() > self.call.limits.time {
            return Err(timed_out(self.call));
        }
        Ok(())
    }
}

impl Module for IsolatedPlugin {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn open(
        &self,
        node: &str,
        saved: Option<&[u8]>,
        call: &CallCx<'_>,
    ) -> Result<Box<dyn Instance>> {
        let mut instance = IsolatedInstance {
            pool: Arc::clone(&self.pool),
            worker: Some(self.pool.worker()?),
            kept: OpaqueTable::default(),
        };
        let saved = saved.map(|saved| PluginValue::Bytes(saved.into()));
        let (saved, _files, _) = instance.encode_inputs(&[saved])?;
        let (caller, node) = (caller(call), node.to_owned());
        let saved = saved.into_iter().next().flatten();
        instance.ask(call, &Request::Open { caller, node, saved })?;
        Ok(Box::new(instance))
    }
}

fn caller(call: &CallCx<'_>) -> Caller {
    Caller { plugin: call.plugin.to_owned(), step: call.step.to_owned() }
}

/// An instance in a worker of its own.
struct IsolatedInstance {
    pool: Arc<Pool>,
    /// None once it has crashed or was killed.
    worker: Option<Process>,
    /// What was named to the worker and stays here.
    kept: OpaqueTable,
}

impl Process {
    /// Sends a request, or gives up after a time.
    fn send_within(&self, most: Duration, request: &Request) -> Result<()> {
        let begun = Instant::now();
        send_while(&self.to, request, &mut || match begun.elapsed() < most {
            true => Ok(()),
            false => Err(worker_gone()),
        })
    }

    /// Serves the worker; an answer to what was asked is returned.
    fn handle(
        &self,
        timer: &mut CallTimer<'_>,
        response: Response,
        files: &mut Vec<OutgoingFiles>,
    ) -> Result<Option<Response>> {
        let call = timer.call;
        match response {
            Response::Log(level, target, message) => call.log(level, &target, &message),
            Response::Progress(step, of) => call.progress(step, of),
            Response::Read(path) => {
                let mut kept = OpaqueTable::default();
                let mut sending = EngineEncoder::new(&self.places, &mut kept);
                let file = call.files.read(&path);
                let file = file.and_then(|file| sending.encode(&PluginValue::Bytes(file.into())));
                let file = file.map_err(|error| to_wire(&error).unwrap_or_default());
                files.push(sending.done().0);
                send_while(&self.to, &Request::File(file), &mut || timer.check())?;
            }
            Response::Failed(error) => return Err(from_wire(error)),
            answer => return Ok(Some(answer)),
        }
        Ok(None)
    }
}

impl IsolatedInstance {
    /// Values for the worker: on the wire, in files to be held until it has answered, and the
    /// numbers of those that stay here.
    fn encode_inputs(
        &mut self,
        items: &[Option<PluginValue>],
    ) -> Result<(Vec<Option<WireValue>>, OutgoingFiles, Vec<u64>)> {
        let worker = self.worker.as_ref().ok_or_else(worker_gone)?;
        let mut sending = EngineEncoder::new(&worker.places, &mut self.kept);
        let encode =
            |item: &Option<PluginValue>| item.as_ref().map(|item| sending.encode(item)).transpose();
        let wires = items.iter().map(encode).collect::<Result<_>>()?;
        let (files, kept) = sending.done();
        Ok((wires, files, kept))
    }

    /// Values that came from the worker. Of their files nothing stays.
    fn decode_outputs<T>(
        &self,
        call: &CallCx<'_>,
        wires: Vec<Option<WireValue>>,
        f: impl Fn(PluginValue) -> Result<T>,
    ) -> Result<Vec<Option<T>>> {
        let places = &self.worker.as_ref().ok_or_else(worker_gone)?.places;
        let _files = places.of(wires.iter().flatten());
        let receiving = EngineDecoder { places, kept: &self.kept, call };
        let take =
            |wire: Option<WireValue>| wire.map(|wire| f(receiving.decode(wire)?)).transpose();
        wires.into_iter().map(take).collect()
    }

    /// Sends a request and serves the worker until it answers.
    fn ask(&mut self, call: &CallCx<'_>, request: &Request) -> Result<Response> {
        let worker = self.worker.as_ref().ok_or_else(worker_gone)?;
        let mut timer = CallTimer::new(call);
        let mut was_given_up = false;
        let mut go_on = || timer.check().inspect_err(|_| was_given_up = true);
        match send_while(&worker.to, request, &mut go_on) {
            Ok(()) => {}
            Err(Error::Io(_)) => return Err(self.crashed(call, None)),
            Err(error) => {
                // What cannot be sent at all leaves the worker as it is.
                if was_given_up {
                    self.worker = None;
                }
                return Err(error);
            }
        }
        // A cancel that came while the request was sent is told now, and has its time from now.
        timer.cancelled = None;
        let (mut files, mut was_told) = (Vec::new(), false);
        loop {
            match worker.inbox.recv_timeout(POLL_INTERVAL) {
                Ok(Ok(response)) => match worker.handle(&mut timer, response, &mut files) {
                    Ok(None) => {}
                    Ok(Some(answer)) => return Ok(answer),
                    Err(Error::Io(_)) => return Err(self.crashed(call, None)),
                    Err(error) => return Err(error),
                },
                Ok(Err(error)) => return Err(self.crashed(call, Some(&error))),
                Err(RecvTimeoutError::Disconnected) => return Err(self.crashed(call, None)),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if call.cancel.is_cancelled() && !was_told {
                was_told = true;
                let _ = worker.send_within(GRACE_PERIOD, &Request::Cancel);
            }
            if let Err(error) = timer.check() {
                self.worker = None;
                return Err(error);
            }
        }
    }

    /// What to say of a worker that is gone, or that said what cannot be understood.
    fn crashed(&mut self, call: &CallCx<'_>, said: Option<&Error>) -> Error {
        let Some(mut worker) = self.worker.take() else { return worker_gone() };
        if call.cancel.is_cancelled() {
            return Error::Cancelled;
        }
        // What cannot be understood came from a process that is still there: it is not waited for.
        let ended = match said {
            Some(Error::Io(_)) | None => worker.ended(),
            Some(_) => None,
        };
        let how = match (ended, said) {
            (Some(status), _) => format!("the plugin's process ended: {status}"),
            (None, Some(error)) => format!("the plugin's process was stopped: {error}"),
            (None, None) => "the plugin's process was stopped: it does not answer".to_owned(),
        };
        Error::broken(how, "this is a bug of the plugin; the next run starts a fresh process")
    }
}

fn timed_out(call: &CallCx<'_>) -> Error {
    let (plugin, seconds) = (call.plugin, call.limits.time.as_secs_f64());
    Error::broken(
        format!("the plugin `{plugin}` took longer than {seconds} s"),
        format!("`kino plugin trust {plugin} --isolate --seconds N` allows more"),
    )
}

fn worker_gone() -> Error {
    Error::failed("the plugin's process has ended")
}

impl Instance for IsolatedInstance {
    fn run(&mut self, call: &CallCx<'_>, inputs: &[Option<Value>]) -> Result<Vec<Option<Value>>> {
        let items: Vec<_> =
            inputs.iter().map(|input| input.clone().map(PluginValue::Value)).collect();
        let (inputs, _files, kept) = self.encode_inputs(&items)?;
        let wanted = call.wanted.to_vec();
        let response = self.ask(call, &Request::Run { caller: caller(call), inputs, wanted });
        if matches!(response, Err(Error::Failed { .. })) {
            // It was never sent.
            self.kept.release(&kept);
        }
        let Response::Ran(ran, released) = response? else { return Err(unexpected_answer()) };
        let outputs = ran
            .map_err(from_wire)
            .and_then(|outputs| self.decode_outputs(call, outputs, PluginValue::into_value));
        self.kept.release(&released);
        outputs
    }

    fn save(&mut self, call: &CallCx<'_>) -> Result<Option<Vec<u8>>> {
        let Response::Saved(saved) = self.ask(call, &Request::Save { caller: caller(call) })?
        else {
            return Err(unexpected_answer());
        };
        let saved = self.decode_outputs(call, vec![saved], |saved| Ok(saved.bytes()?.to_vec()))?;
        Ok(saved.into_iter().next().flatten())
    }

    fn is_broken(&self) -> bool {
        self.worker.is_none()
    }
}

fn unexpected_answer() -> Error {
    Error::failed("the worker process answered something else than was asked")
}

impl Drop for IsolatedInstance {
    fn drop(&mut self) {
        let Some(worker) = self.worker.take() else { return };
        let closed = worker.send_within(GRACE_PERIOD, &Request::Close).is_ok()
            && matches!(worker.inbox.recv_timeout(GRACE_PERIOD), Ok(Ok(Response::Done)));
        if closed {
            self.pool.idle().push(worker);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write};

    use super::*;

    /// A worker that says more than anybody hears has to wait: nothing piles up in the engine.
    #[test]
    fn a_flood_of_messages_is_held_back() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (responses, inbox) = mpsc::sync_channel(MAX_WAITING);
        std::thread::spawn(move || receive_all(ours, &responses));
        theirs.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        let json = serde_json::to_vec(&Response::Log(1, "t".into(), "x".repeat(1 << 16))).unwrap();
        let mut frame = (json.len() as u32).to_le_bytes().to_vec();
        frame.extend(json);
        let sent = (0..4096).find_map(|_| theirs.write_all(&frame).err());
        let kind = sent.map(|error| error.kind());
        assert!(matches!(kind, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut)), "{kind:?}");
        assert!(matches!(inbox.recv(), Ok(Ok(Response::Log(..)))));
    }
}
