//! The worker process: serves one engine over a socket, one call at a time.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::Device;
use kino_host::{CallCx, Limits, PluginFiles, PluginValue};
use kino_node::{Cancel, Error, Ledger, Result};
use kino_port::PlannedRead;

use crate::allocator::set_allocator;
use crate::library::{NativeInstance, NativePlugin, TrustedLibrary};
use crate::shared::{OutgoingFiles, SharedAllocator, SharedFolders};
use crate::wire::{
    Caller, Request, Response, WireError, WireValue, from_wire, receive, send, to_wire,
};

/// Serves the engine that started this process with a socket as its standard input, until the
/// engine is gone.
///
/// # Errors
/// When the standard input is no such socket.
pub fn serve() -> Result<()> {
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut from = socket.try_clone()?;
    let to = Mutex::new(socket);
    let (requests, inbox) = mpsc::channel();
    let cancel = Arc::new(Mutex::new(Cancel::default()));
    let flag = Arc::clone(&cancel);
    let place = Arc::new(OnceLock::<SharedFolders>::new());
    let leaving = Arc::clone(&place);
    std::thread::spawn(move || {
        while let Ok(request) = receive::<Request>(&mut from) {
            match request {
                Request::Cancel => {
                    flag.lock().unwrap_or_else(PoisonError::into_inner).cancel();
                }
                request => {
                    // Each call has a flag of its own: one that comes late is for the call before.
                    if !matches!(request, Request::File(_)) {
                        *flag.lock().unwrap_or_else(PoisonError::into_inner) = Cancel::default();
                    }
                    if requests.send(request).is_err() {
                        break;
                    }
                }
            }
        }
        // The engine is gone: nobody waits for anything here, and nobody else cleans up.
        if let Some(places) = leaving.get() {
            places.remove();
        }
        std::process::exit(0);
    });
    let Ok(Request::Load { path, sha256, memory, disk }) = inbox.recv() else {
        return Err(Error::failed("the worker was told nothing to load"));
    };
    let places = SharedFolders { memory, disk };
    let _ = place.set(places.clone());
    let shared = SharedAllocator::new(places);
    set_allocator(Box::new(shared.clone()));
    let trusted = TrustedLibrary { path: &path, sha256: sha256.as_deref() };
    let plugin = match NativePlugin::load_trusted(trusted) {
        Ok(plugin) => plugin,
        Err(error) => return send(&to, &Response::Failed(to_wire(&error))),
    };
    send(&to, &Response::Loaded(plugin.json().to_owned()))?;
    let ledger = Ledger::new(u64::MAX);
    let (inbox, reading) = (Mutex::new(inbox), Mutex::default());
    let server = Server { plugin, shared, to, inbox, reading, cancel, ledger };
    server.until_done()
}

struct Server {
    plugin: NativePlugin,
    shared: SharedAllocator,
    to: Mutex<UnixStream>,
    inbox: Mutex<Receiver<Request>>,
    /// Files are asked for and come one at a time, whichever thread of the plugin asks.
    reading: Mutex<()>,
    cancel: Arc<Mutex<Cancel>>,
    ledger: Arc<Ledger>,
}

impl Server {
    fn next(&self) -> Option<Request> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
    }

    fn until_done(&self) -> Result<()> {
        let mut instance: Option<NativeInstance> = None;
        while let Some(request) = self.next() {
            let mut outbox = OutgoingFiles::default();
            let response = self.answer(request, &mut instance, &mut outbox);
            let response = response.unwrap_or_else(|error| Response::Failed(to_wire(&error)));
            match send(&self.to, &response) {
                Ok(()) => outbox.sent(),
                // It was too large to be sent.
                Err(error @ Error::Failed { .. }) => self.refuse(&response, &error)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn answer(
        &self,
        request: Request,
        instance: &mut Option<NativeInstance>,
        outbox: &mut OutgoingFiles,
    ) -> Result<Response> {
        match request {
            Request::Open { caller, node, saved } => self.with_call(&caller, &[], |call| {
                let saved = saved.map(|saved| self.bytes(saved)).transpose()?;
                *instance = Some(self.plugin.instance(&node, saved.as_deref(), call)?);
                Ok(Response::Done)
            }),
            Request::Run { caller, inputs, wanted } => {
                let ran = self.with_call(&caller, &wanted, |call| {
                    self.run(instance.as_mut().ok_or_else(closed)?, call, inputs, outbox)
                });
                Ok(Response::Ran(ran.map_err(|error| to_wire(&error)), self.shared.released()))
            }
            Request::Save { caller } => self.with_call(&caller, &[], |call| {
                use kino_host::Instance;
                let saved = instance.as_mut().ok_or_else(closed)?.save(call)?;
                let saved = saved.map(|saved| PluginValue::Bytes(saved.into()));
                let wire = saved.map(|saved| self.shared.encode(&saved, outbox)).transpose()?;
                Ok(Response::Saved(wire))
            }),
            Request::Close => {
                *instance = None;
                Ok(Response::Done)
            }
            _ => Err(Error::failed("the worker did not expect this")),
        }
    }

    fn run(
        &self,
        instance: &mut NativeInstance,
        call: &CallCx<'_>,
        inputs: Vec<Option<WireValue>>,
        outbox: &mut OutgoingFiles,
    ) -> Result<Vec<Option<WireValue>>> {
        let decode =
            |wire: Option<WireValue>| wire.map(|wire| self.shared.decode(wire)).transpose();
        let inputs = inputs.into_iter().map(decode).collect::<Result<_>>()?;
        let outputs = instance.run_items(call, inputs)?;
        let mut encode = |item: &Option<PluginValue>| {
            item.as_ref().map(|item| self.shared.encode(item, outbox)).transpose()
        };
        outputs.iter().map(&mut encode).collect()
    }

    /// Says that an answer cannot be sent, and why.
    fn refuse(&self, response: &Response, error: &Error) -> Result<()> {
        let failure: WireError = to_wire(error);
        send(
            &self.to,
            &match response {
                Response::Ran(_, released) => Response::Ran(Err(failure), released.clone()),
                _ => Response::Failed(failure),
            },
        )
    }

    fn bytes(&self, wire: WireValue) -> Result<Vec<u8>> {
        Ok(self.shared.decode(wire)?.bytes()?.to_vec())
    }

    fn with_call<T>(
        &self,
        caller: &Caller,
        wanted: &[bool],
        f: impl FnOnce(&CallCx<'_>) -> Result<T>,
    ) -> Result<T> {
        let cancel = self.cancel.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let tell = |response: Response| drop(send(&self.to, &response));
        let log_sink = |level: u32, target: &str, message: &str| {
            tell(Response::Log(level, target.to_owned(), message.to_owned()));
        };
        f(&CallCx {
            graph: None,
            plugin: &caller.plugin,
            step: &caller.step,
            device: &Device::Cpu,
            ledger: &self.ledger,
            cancel: &cancel,
            wanted,
            report: &|progress| tell(Response::Progress(progress.step, progress.of)),
            files: self,
            limits: Limits::default(),
            log_sink: Some(&log_sink),
        })
    }
}

fn closed() -> Error {
    Error::failed("no instance is open in this worker")
}

impl PluginFiles for Server {
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let _one = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        send(&self.to, &Response::Read(path.to_owned()))?;
        match self.next() {
            Some(Request::File(Ok(wire))) => self.bytes(wire),
            Some(Request::File(Err(error))) => Err(from_wire(Some(error))),
            _ => Err(Error::failed("the engine did not answer")),
        }
    }

    fn fingerprint_grants(&self, _: &dyn Fn() -> bool) -> Result<Vec<PlannedRead>> {
        Ok(Vec::new())
    }
}
