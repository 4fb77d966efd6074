//! Heads of requests.

use crate::{
    Fields, Framing, HeadLimits, Known, Refused,
    connection::Options,
    field::{Place, Places, Span},
    framing::Announced,
    host,
    lines::{self, Room},
    target::{self, Form},
    token,
};
use bytes::Bytes;

/// The versions of HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no chunked bodies, connections end unless both want otherwise.
    Http10,
    /// HTTP/1.1.
    Http11,
}

impl Version {
    /// From what httparse read: the digit after the dot.
    pub(crate) fn of_minor(minor: Option<u8>) -> Self {
        match minor {
            Some(0) => Self::Http10,
            _ => Self::Http11,
        }
    }
}

/// A method; those that are not known keep their name in the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "RFC 9110, 9.3 and RFC 5789")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Patch,
    Options,
    Trace,
    /// Never in a request that was parsed: it is refused.
    Connect,
    Other,
}

const METHODS: [(Method, &str); 9] = [
    (Method::Get, "GET"),
    (Method::Head, "HEAD"),
    (Method::Post, "POST"),
    (Method::Put, "PUT"),
    (Method::Delete, "DELETE"),
    (Method::Patch, "PATCH"),
    (Method::Options, "OPTIONS"),
    (Method::Trace, "TRACE"),
    (Method::Connect, "CONNECT"),
];

impl Method {
    /// Methods are case-sensitive, and what differs from a known one by case alone is refused: a
    /// reader that takes `head` for HEAD sends an answer that ends elsewhere.
    fn of(name: &str) -> Result<Self, Refused> {
        if let Some((method, _)) = METHODS.iter().find(|(_, known)| *known == name) {
            return Ok(*method);
        }
        let almost = |known: &str| known.eq_ignore_ascii_case(name);
        if METHODS.iter().any(|(_, known)| almost(known)) {
            return Err(Refused::MethodCase);
        }
        Ok(Self::Other)
    }
}

/// Whether the peer wants the connection to go on after this message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// It may carry the next message.
    KeepAlive,
    /// It ends after this one.
    Close,
}

/// What a client waits for before it sends the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing, or it has no body, or it speaks HTTP/1.0, which has no interim answers.
    Nothing,
    /// `100 Continue` (RFC 9110, 10.1.1).
    Continue,
}

/// A checked head of a request.
#[derive(Debug, Clone)]
pub struct Request {
    /// Never [`Method::Connect`].
    pub method: Method,
    /// What the client speaks.
    pub version: Version,
    /// Where the body ends; never [`Framing::UntilClose`].
    pub framing: Framing,
    /// What the client wants.
    pub persistence: Persistence,
    /// What the client waits for.
    pub expect: Expect,
    /// All fields as they came, with those that must not be passed on.
    pub fields: Fields,
    method_name: Span,
    target: Target,
    host: Option<Span>,
    options: Options,
}

#[derive(Debug, Clone)]
enum Target {
    Within(Span),
    /// One that came in absolute form without a path.
    Own(Bytes),
}

impl Request {
    /// Checks and takes apart a whole head, as long as [`crate::Scan::find_end`] said.
    pub fn parse(head: Bytes, limits: HeadLimits) -> Result<Self, Refused> {
        let head = lines::without_empty_lines(head, limits)?;
        let parsed = lines::with_room(&head, limits, attempt)?;
        let Parsed {
            method,
            method_name,
            version,
            target,
            places,
            found,
        } = parsed;
        let framing = found.framing(method, version)?;
        let expects = found.expects_continue && version == Version::Http11 && !framing.is_empty();
        Ok(Self {
            method,
            version,
            framing,
            persistence: found.options.persistence(version),
            expect: if expects {
                Expect::Continue
            } else {
                Expect::Nothing
            },
            fields: Fields {
                bytes: head,
                places,
            },
            method_name,
            target,
            host: found.host,
            options: found.options,
        })
    }

    /// As the client wrote it.
    pub fn method_name(&self) -> &str {
        text(self.method_name.of_bytes(&self.fields.bytes))
    }

    /// In origin form: path and query, or `*`. Never empty, and ASCII.
    pub fn target(&self) -> &str {
        text(match &self.target {
            Target::Within(span) => span.of_bytes(&self.fields.bytes),
            Target::Own(bytes) => bytes,
        })
    }

    /// The same, sharing the head's memory.
    pub fn target_shared(&self) -> Bytes {
        match &self.target {
            Target::Within(span) => span.shared(&self.fields.bytes),
            Target::Own(bytes) => bytes.clone(),
        }
    }

    /// The target without its query.
    pub fn path(&self) -> &str {
        let target = self.target();
        let end = memchr::memchr(b'?', target.as_bytes());
        &target[..end.unwrap_or(target.len())]
    }

    /// The host as the client wrote it, with its port; `None` only in HTTP/1.0.
    pub fn host(&self) -> Option<&str> {
        let span = self.host?;
        Some(text(span.of_bytes(&self.fields.bytes)))
    }

    /// The same, sharing the head's memory.
    pub fn host_shared(&self) -> Option<Bytes> {
        Some(self.host?.shared(&self.fields.bytes))
    }

    /// The protocol that it asks to change to: only if `Connection` names `upgrade`, in HTTP/1.1,
    /// and in one line. Never h2c, which would let a client speak to an instance past us, and which
    /// RFC 9113 no longer has.
    pub fn upgrade(&self) -> Option<&[u8]> {
        if !self.options.asks_for_upgrade() || self.version != Version::Http11 {
            return None;
        }
        let mut lines = self.fields.all(Known::Upgrade);
        let (Some(protocols), None) = (lines.next(), lines.next()) else {
            return None;
        };
        let is_protocol = |protocol: &[u8]| {
            let mut parts = protocol.splitn(2, |byte| *byte == b'/');
            parts.all(token::is_token) && !protocol.eq_ignore_ascii_case(b"h2c")
        };
        let all = !protocols.is_empty() && token::elements(protocols).all(is_protocol);
        all.then_some(protocols)
    }

    /// Whether `Connection` names this field, so that it must not be passed on. It has no say over
    /// what speaks of the whole way: lengths, host, cookies, and who asked by which way. `close` and
    /// `keep-alive` name no field.
    pub fn connection_names(&self, name: &[u8]) -> bool {
        self.options.name(&self.fields, name)
    }
}

/// Targets, hosts and methods were checked to be ASCII.
fn text(checked: &[u8]) -> &str {
    core::str::from_utf8(checked).expect("it was checked to be ASCII when the head was parsed")
}

/// What was found in a head while it was still borrowed.
struct Parsed {
    method: Method,
    method_name: Span,
    version: Version,
    target: Target,
    places: Places,
    found: Found,
}

fn attempt<'b>(head: &'b [u8], room: Room<'_, 'b>) -> Result<Parsed, Refused> {
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(head, room) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Ok(_) => return Err(Refused::NotOneHead),
        Err(error) => return Err(lines::diagnose(head, error, Some(request_line))),
    }
    let (Some(name), Some(target)) = (request.method, request.path) else {
        return Err(Refused::RequestLine);
    };
    let method = Method::of(name)?;
    if method == Method::Connect {
        return Err(Refused::Connect);
    }
    let form = target::check(method, target.as_bytes())?;
    let mut found = Found::default();
    let places = lines::places(
        head,
        request.headers,
        Known::is_relied_on,
        |place, value| found.note(place, value),
    )?;
    let version = Version::of_minor(request.version);
    if found.host.is_none() && version == Version::Http11 {
        return Err(Refused::HostMissing);
    }
    Ok(Parsed {
        method,
        method_name: Span::of(head, name.as_bytes()),
        version,
        target: found.find_target(head, target.as_bytes(), form)?,
        places,
        found,
    })
}

/// What is wrong with a request's first line.
fn request_line(line: &[u8]) -> Option<Refused> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Some(Refused::RequestLine);
    };
    if !token::is_token(method) {
        return Some(Refused::Method);
    }
    if target.is_empty() {
        return Some(Refused::RequestLine);
    }
    if !target.iter().all(u8::is_ascii_graphic) {
        return Some(Refused::TargetCharacter);
    }
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => None,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Some(Refused::Version)
        }
        _ => Some(Refused::RequestLine),
    }
}

/// What the fields of a request say.
#[derive(Default)]
struct Found {
    announced: Announced,
    options: Options,
    host: Option<Span>,
    expects_continue: bool,
}

impl Found {
    fn note(&mut self, place: Place, value: &[u8]) -> Result<(), Refused> {
        match place.known {
            Known::ContentLength | Known::TransferEncoding => {
                self.announced.note(place.known, value)?;
            }
            Known::Connection => self.options.note(value)?,
            Known::Host => {
                if self.host.is_some() {
                    return Err(Refused::HostRepeated);
                }
                if !host::is_host(value) {
                    return Err(Refused::Host);
                }
                self.host = Some(place.value);
            }
            Known::Expect => {
                if self.expects_continue || !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Refused::Expectation);
                }
                self.expects_continue = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 9112, 3.2.2 lets the target's host win over Host. Where the two differ, the next reader
    /// may see it the other way, so they must agree.
    fn find_target(
        &mut self,
        head: &[u8],
        target: &[u8],
        form: Form<'_>,
    ) -> Result<Target, Refused> {
        let (authority, rest) = match form {
            Form::AsItIs => return Ok(Target::Within(Span::of(head, target))),
            Form::Absolute { authority, rest } => (authority, rest),
        };
        let host = *self.host.get_or_insert_with(|| Span::of(head, authority));
        if !host.of_bytes(head).eq_ignore_ascii_case(authority) {
            return Err(Refused::HostDisagrees);
        }
        Ok(match rest {
            [] => Target::Own(Bytes::from_static(b"/")),
            [b'/', ..] => Target::Within(Span::of(head, rest)),
            query => Target::Own(Bytes::from([b"/".as_slice(), query].concat())),
        })
    }

    /// RFC 9112, 6.3, for requests.
    fn framing(&self, method: Method, version: Version) -> Result<Framing, Refused> {
        let framing = match self.announced {
            Announced { chunked: true, .. } if version == Version::Http10 => {
                return Err(Refused::CodingInHttp10);
            }
            Announced { chunked: true, .. } => Framing::Chunked,
            Announced {
                length: Some(length),
                ..
            } => Framing::Length(length),
            Announced { length: None, .. } => Framing::None,
        };
        if method == Method::Trace && !framing.is_empty() {
            return Err(Refused::TraceBody);
        }
        Ok(framing)
    }
}
