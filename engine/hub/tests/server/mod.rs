//! A hub of the tests' own: it speaks what the real one does, on two ports, of which the second
//! stands for the host that gives large files; and does wrong what a test asks for.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Whether it came to the second port.
    pub(crate) is_cdn: bool,
    pub(crate) method: String,
    pub(crate) path: String,
    headers: BTreeMap<String, String>,
}

impl Request {
    /// A header by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// After so many bytes of the body the connection ends.
    pub(crate) cut: Option<usize>,
    /// So long before each piece of the body, of which there are eight.
    pub(crate) slow: Duration,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Reply { status, headers: vec![], body: body.into(), cut: None, slow: Duration::ZERO }
    }

    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }
}

/// What changes answers.
pub(crate) type Rule = Box<dyn FnMut(&Request, Reply) -> Reply + Send>;

/// A model of the hub.
pub(crate) struct Repo {
    pub(crate) name: String,
    pub(crate) commit: String,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

/// The hub, which serves until the process ends.
pub(crate) struct Hub {
    pub(crate) endpoint: String,
    pub(crate) cdn: String,
    pub(crate) repo: Arc<Mutex<Repo>>,
    rule: Arc<Mutex<Rule>>,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Hub {
    /// Serves `org/tiny` with these files; those that end in `.safetensors` are large ones.
    pub(crate) fn with(files: &[(&str, &[u8])]) -> Self {
        let files = files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec()));
        let repo = Repo { name: "org/tiny".into(), commit: "c".repeat(40), files: files.collect() };
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [endpoint, cdn] =
            [0, 1].map(|at: usize| format!("http://{}", listeners[at].local_addr().unwrap()));
        let hub = Hub {
            endpoint,
            cdn,
            repo: Arc::new(Mutex::new(repo)),
            rule: Arc::new(Mutex::new(Box::new(|_, reply| reply))),
            log: Arc::default(),
        };
        for (listener, is_cdn) in listeners.into_iter().zip([false, true]) {
            let (repo, rule, log) = (hub.repo.clone(), hub.rule.clone(), hub.log.clone());
            let cdn = hub.cdn.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (repo, rule, log) = (repo.clone(), rule.clone(), log.clone());
                    let cdn = cdn.clone();
                    std::thread::spawn(move || {
                        let request = read(&stream, is_cdn)?;
                        log.lock().unwrap().push(request.clone());
                        let reply = answer(&repo.lock().unwrap(), &cdn, &request);
                        let reply = (rule.lock().unwrap())(&request, reply);
                        write(stream, &request, &reply)
                    });
                }
            });
        }
        hub
    }

    /// Changes answers from now on.
    pub(crate) fn rule(&self, rule: impl FnMut(&Request, Reply) -> Reply + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    /// What was asked for since the last time.
    pub(crate) fn taken(&self) -> Vec<Request> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }
}

/// A request's head; bodies have none of these.
fn read(stream: &TcpStream, is_cdn: bool) -> Option<Request> {
    let mut lines = BufReader::new(stream.take(1 << 16)).lines().map_while(Result::ok);
    let first = lines.next()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = lines.take_while(|line| !line.is_empty());
    let headers = headers.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    Some(Request { is_cdn, method, path, headers: headers.collect() })
}

fn write(mut stream: TcpStream, request: &Request, reply: &Reply) -> Option<()> {
    let mut head = format!("HTTP/1.1 {} Said\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !reply.headers.iter().any(|(name, _)| name == "Content-Length") {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    if request.method != "HEAD" {
        let body = &reply.body[..reply.cut.unwrap_or(reply.body.len()).min(reply.body.len())];
        for piece in body.chunks(body.len().div_ceil(8).max(1)) {
            std::thread::sleep(reply.slow);
            stream.write_all(piece).ok()?;
        }
    }
    stream.flush().ok()
}

/// The hash of a large file.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a hub answers that does all right.
fn answer(repo: &Repo, cdn: &str, request: &Request) -> Reply {
    let Repo { name, commit, files } = repo;
    if let Some(blob) = request.path.strip_prefix("/blob/").filter(|_| request.is_cdn) {
        return match files.values().find(|bytes| sha256(bytes) == blob) {
            Some(bytes) => part(bytes, request),
            None => Reply::new(404, ""),
        };
    }
    if let Some(revision) = request.path.strip_prefix(&format!("/api/models/{name}/revision/")) {
        if !["main", "refs%2Fpr%2F1", commit].contains(&revision) {
            return Reply::new(404, "").with("X-Error-Code", "RevisionNotFound");
        }
        let listed: Vec<String> =
            files.keys().map(|path| format!("{{\"rfilename\": {path:?}}}")).collect();
        let text = format!("{{\"sha\": \"{commit}\", \"siblings\": [{}]}}", listed.join(", "));
        return Reply::new(200, text);
    }
    let path = request.path.strip_prefix(&format!("/{name}/resolve/{commit}/"));
    let Some((path, bytes)) = path.and_then(|path| files.get_key_value(path)) else {
        return Reply::new(404, "").with("X-Error-Code", "RepoNotFound");
    };
    let reply = match path.ends_with(".safetensors") {
        true => Reply::new(302, "moved")
            .with("Location", format!("{cdn}/blob/{}", sha256(bytes)))
            .with("X-Linked-Etag", format!("\"{}\"", sha256(bytes)))
            .with("X-Linked-Size", bytes.len()),
        false => part(bytes, request).with("ETag", format!("W/\"{}\"", kino_hub_name(bytes))),
    };
    reply.with("X-Repo-Commit", commit)
}

/// All of a file, or what a range asks for.
fn part(bytes: &[u8], request: &Request) -> Reply {
    let from = request.header("range").and_then(|range| range.strip_prefix("bytes="));
    let from = from.and_then(|range| range.strip_suffix('-')?.parse::<usize>().ok());
    match from.filter(|from| *from < bytes.len()) {
        None => Reply::new(200, bytes),
        Some(from) => Reply::new(206, &bytes[from..])
            .with("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
    }
}

/// Git's name of a small file. Known values of it are held in the crate's own tests.
fn kino_hub_name(bytes: &[u8]) -> String {
    crate::git_name(bytes)
}
