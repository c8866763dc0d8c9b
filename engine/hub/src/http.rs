//! Requests to the hub: redirects followed by hand, so that the token goes to the hub alone; what
//! its answers mean.

use std::io::Read;
use std::time::Duration;

use ureq::http::Response;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use crate::access::HubAccess;
use crate::error::{Error, Result};

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 5;
/// How long a connection may take to stand.
const CONNECT: Duration = Duration::from_secs(15);

/// Sends requests to one hub.
pub(crate) struct Client<'a> {
    pub(crate) access: &'a HubAccess,
    agent: Agent,
}

/// An answer of the hub.
pub(crate) struct Answer(Response<Body>);

/// Which redirects are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follow {
    /// To the hub itself, as for a model that was renamed. One that leads elsewhere, or that says
    /// what it leads to, is the answer.
    Within,
    /// Wherever they lead.
    Anywhere,
}

impl<'a> Client<'a> {
    /// Sends requests as `access` says. Certificates are checked as the system does, a proxy is
    /// that of HTTPS_PROXY, HTTP_PROXY or ALL_PROXY, but for the hosts in NO_PROXY.
    pub(crate) fn new(access: &'a HubAccess) -> Self {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(access.patience))
            .timeout_per_write(Some(access.patience))
            .user_agent(concat!("kinograph/", env!("CARGO_PKG_VERSION")))
            .build();
        Client { access, agent: config.new_agent() }
    }

    /// Asks for what `what` calls by a path of the hub; `from` is the byte to begin with.
    ///
    /// # Errors
    /// When no answer comes, or it says that there is nothing for this user.
    pub(crate) fn ask(
        &self,
        (method, path): (&str, &str),
        (from, follow): (u64, Follow),
        what: &str,
    ) -> Result<Answer> {
        let mut url = format!("{}{path}", self.access.endpoint);
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.send(method, &url, from, what)?;
            let status = answer.status();
            if !(300..400).contains(&status) || status == 304 {
                return answer.good(self.access, what);
            }
            let Some(location) = answer.header("location") else {
                let reason = format!("the hub answers {status} and does not say where it lies");
                return Err(Error::Answer { what: what.to_owned(), reason });
            };
            let next = resolve(&url, location).filter(|next| is_allowed(&url, next));
            let Some(next) = next else {
                let reason = format!(
                    "the hub leads to `{}`, which is no address to follow",
                    kino_port::escape_line(location)
                );
                return Err(Error::Answer { what: what.to_owned(), reason });
            };
            let is_described = answer.header("x-linked-etag").is_some();
            if follow == Follow::Within && (is_described || origin(&next) != origin(&url)) {
                return Ok(answer);
            }
            url = next;
        }
        let reason = format!("the hub leads on more than {MAX_REDIRECTS} times");
        Err(Error::Answer { what: what.to_owned(), reason })
    }

    fn send(&self, method: &str, url: &str, from: u64, what: &str) -> Result<Answer> {
        let mut request = match method {
            "HEAD" => self.agent.head(url),
            _ => self.agent.get(url),
        };
        // The length and the bytes are those of the file itself.
        request = request.header("Accept-Encoding", "identity");
        let token = self.access.token.as_ref();
        if let Some(token) = token.filter(|_| origin(url) == origin(&self.access.endpoint)) {
            request = request.header("Authorization", token.header());
        }
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        let answer = request.call().map_err(|error| network(what, url, &error))?;
        Ok(Answer(answer))
    }
}

/// Why no answer came.
fn network(what: &str, url: &str, error: &ureq::Error) -> Error {
    let host = origin(url).unwrap_or(url);
    let reason = match error {
        ureq::Error::HostNotFound => format!("no network, or there is no host {host}"),
        ureq::Error::Timeout(_) | ureq::Error::BodyStalled => format!("{host} does not answer"),
        ureq::Error::ConnectionFailed => format!("{host} cannot be reached"),
        ureq::Error::Rustls(error) => format!("{host} is not trusted: {error}"),
        other => format!("{host} cannot be reached: {other}"),
    };
    Error::Network { what: what.to_owned(), reason }
}

impl Answer {
    /// Its number.
    pub(crate) fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    /// A header, where it is a text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.0.headers().get(name)?.to_str().ok().map(str::trim)
    }

    /// A header that is a number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.header(name)?.parse().ok()
    }

    /// The bytes, at most so many.
    pub(crate) fn reader(self, most: u64) -> impl Read {
        // One more, by which it shows that there are too many.
        self.0.into_body().into_with_config().limit(most.saturating_add(1)).reader()
    }

    /// The answer, if it is one that gives something.
    fn good(self, access: &HubAccess, what: &str) -> Result<Self> {
        let said = self.header("x-error-message").unwrap_or_default().to_owned();
        let said = said.chars().take(300).collect();
        let what = what.to_owned();
        match self.status() {
            200..=299 => Ok(self),
            status @ (401 | 403) => {
                let page = what.trim_start_matches("hf:").split('@').next().unwrap_or_default();
                let page: Vec<&str> = page.split('/').take(2).collect();
                let page = format!("{}/{}", access.endpoint, page.join("/"));
                let has_token = access.token.is_some();
                Err(Error::Denied { what, page, status, said, has_token })
            }
            404 => Err(Error::NotFound { what, said }),
            status => Err(Error::Status { what, status, said }),
        }
    }
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> Option<&str> {
    let begin = url.find("://")? + 3;
    let end = url[begin..].find(['/', '?', '#']).map_or(url.len(), |at| begin + at);
    Some(&url[..end])
}

/// Where a redirect leads that came from `url`.
fn resolve(url: &str, location: &str) -> Option<String> {
    if location.contains(kino_port::is_hidden) {
        return None;
    }
    match location {
        full if full.starts_with("https://") || full.starts_with("http://") => {
            Some(full.to_owned())
        }
        path if path.starts_with("//") => Some(format!("{}:{path}", url.split_once("://")?.0)),
        path if path.starts_with('/') => Some(format!("{}{path}", origin(url)?)),
        _ => None,
    }
}

/// What was asked for over TLS does not come without it.
fn is_allowed(from: &str, to: &str) -> bool {
    to.starts_with("https://") || from.starts_with("http://")
}

/// A part of an address: everything but letters, digits, `-_.~` and what `kept` says is encoded
/// (RFC 3986 §2).
pub(crate) fn encode(text: &str, kept: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte as char {
            c if c.is_ascii_alphanumeric() || "-_.~".contains(c) || kept.contains(c) => {
                encoded.push(c);
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_may() {
        let hub = "https://hub.example/a/resolve/main/x?y=1";
        assert_eq!(origin(hub), Some("https://hub.example"));
        assert_eq!(origin("http://127.0.0.1:80"), Some("http://127.0.0.1:80"));
        let to = |location: &str| resolve(hub, location).filter(|next| is_allowed(hub, next));
        assert_eq!(to("/b").as_deref(), Some("https://hub.example/b"));
        assert_eq!(to("//cdn.example/b").as_deref(), Some("https://cdn.example/b"));
        assert_eq!(to("https://cdn.example/b").as_deref(), Some("https://cdn.example/b"));
        for wrong in ["http://cdn.example/b", "file:///etc/passwd", "b", "", "/a\u{1b}"] {
            assert_eq!(to(wrong), None, "{wrong}");
        }
        // The host that a user's name hides is another origin.
        assert_ne!(origin("https://hub.example@evil.example/x"), Some("https://hub.example"));
    }

    #[test]
    fn what_is_no_plain_letter_is_encoded() {
        assert_eq!(encode("refs/pr/7", ""), "refs%2Fpr%2F7");
        assert_eq!(encode("vae/ä b#?.json", "/"), "vae/%C3%A4%20b%23%3F.json");
    }
}
