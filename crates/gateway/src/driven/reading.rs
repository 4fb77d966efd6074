//! HTTP/1.1 as somebody else reads it: httparse for lines, and a framing of its own, with nothing of
//! our codec.

/// What was read of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read<T> {
    Whole(T),
    /// More must come.
    Partial,
    /// It is none, and why.
    Not(String),
}

/// Names are in lower case.
pub(super) type Pairs = Vec<(String, Vec<u8>)>;

/// A head, and how long it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) version: u8,
    /// Of an answer.
    pub(super) status: u16,
    pub(super) fields: Pairs,
    pub(super) len: usize,
}

/// A whole message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) head: Head,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Pairs,
    /// Of all of it.
    pub(super) len: usize,
}

const FIELDS_MAX: usize = 256;

impl Head {
    /// The values of all fields with this name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let named = self.fields.iter().filter(move |(found, _)| found == name);
        named.map(|(_, value)| &**value)
    }

    pub(super) fn first(&self, name: &str) -> Option<&[u8]> {
        self.fields
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| &**value)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }
}

/// The head of a request.
pub(super) fn request_head(bytes: &[u8]) -> Read<Head> {
    let mut headers = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => Read::Whole(Head {
            method: request.method.unwrap_or_default().to_owned(),
            target: request.path.unwrap_or_default().to_owned(),
            version: request.version.unwrap_or_default(),
            status: 0,
            fields: pairs(request.headers),
            len,
        }),
        Ok(httparse::Status::Partial) => Read::Partial,
        Err(error) => Read::Not(error.to_string()),
    }
}

/// A request with its body.
pub(super) fn request(bytes: &[u8]) -> Read<Message> {
    let head = match request_head(bytes) {
        Read::Whole(head) => head,
        Read::Partial => return Read::Partial,
        Read::Not(why) => return Read::Not(why),
    };
    let rest = &bytes[head.len..];
    let body = match framing(&head) {
        Ok(Some(framing)) => body(rest, framing),
        Ok(None) => Read::Whole((Vec::new(), Vec::new(), 0)),
        Err(why) => Read::Not(why),
    };
    with(head, body)
}

/// An answer to this method, with its body, on a connection that has ended.
pub(super) fn answer(bytes: &[u8], method: &str) -> Read<Message> {
    let mut headers = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => Head {
            method: String::new(),
            target: String::new(),
            version: response.version.unwrap_or_default(),
            status: response.code.unwrap_or_default(),
            fields: pairs(response.headers),
            len,
        },
        Ok(httparse::Status::Partial) => return Read::Partial,
        Err(error) => return Read::Not(error.to_string()),
    };
    let rest = &bytes[head.len..];
    let is_empty = method == "HEAD" || matches!(head.status, 100..=199 | 204 | 304);
    let body = match framing(&head) {
        Err(why) => Read::Not(why),
        Ok(_) if is_empty => Read::Whole((Vec::new(), Vec::new(), 0)),
        Ok(Some(framing)) => body(rest, framing),
        Ok(None) => Read::Whole((rest.to_vec(), Vec::new(), rest.len())),
    };
    with(head, body)
}

fn pairs(headers: &[httparse::Header<'_>]) -> Pairs {
    let pairs = headers.iter();
    pairs
        .map(|one| (one.name.to_ascii_lowercase(), one.value.to_vec()))
        .collect()
}

type Body = (Vec<u8>, Pairs, usize);

fn with(head: Head, body: Read<Body>) -> Read<Message> {
    match body {
        Read::Whole((body, trailers, len)) => Read::Whole(Message {
            len: head.len + len,
            head,
            body,
            trailers,
        }),
        Read::Partial => Read::Partial,
        Read::Not(why) => Read::Not(why),
    }
}

#[derive(Debug, Clone, Copy)]
enum Framing {
    Length(usize),
    Chunked,
}

fn framing(head: &Head) -> Result<Option<Framing>, String> {
    let lengths: Vec<_> = head.all("content-length").collect();
    let codings: Vec<_> = head.all("transfer-encoding").collect();
    match (&*lengths, &*codings) {
        ([], []) => Ok(None),
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Some(Framing::Chunked)),
        ([length], []) => {
            let digits = str::from_utf8(length).ok();
            let digits = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let length = digits.and_then(|text| text.parse().ok());
            let length = length.ok_or("a length that is no number")?;
            Ok(Some(Framing::Length(length)))
        }
        _ => Err(format!("lengths {lengths:?} and codings {codings:?}")),
    }
}

fn body(bytes: &[u8], framing: Framing) -> Read<Body> {
    match framing {
        Framing::Length(len) => match bytes.get(..len) {
            Some(body) => Read::Whole((body.to_vec(), Vec::new(), len)),
            None => Read::Partial,
        },
        Framing::Chunked => chunks(bytes),
    }
}

fn chunks(bytes: &[u8]) -> Read<Body> {
    let mut rest = bytes;
    let mut body = Vec::new();
    loop {
        let (line, size) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Read::Partial,
            Err(_) => return Read::Not("a chunk without a size".to_owned()),
        };
        rest = &rest[line..];
        if size == 0 {
            break;
        }
        let chunk = usize::try_from(size)
            .ok()
            .and_then(|size| rest.split_at_checked(size));
        let Some((chunk, behind)) = chunk else {
            return Read::Partial;
        };
        body.extend_from_slice(chunk);
        rest = match behind {
            [b'\r', b'\n', rest @ ..] => rest,
            [] | [b'\r'] => return Read::Partial,
            _ => return Read::Not("a chunk without its end".to_owned()),
        };
    }
    let mut headers = [httparse::EMPTY_HEADER; FIELDS_MAX];
    match httparse::parse_headers(rest, &mut headers) {
        Ok(httparse::Status::Complete((len, trailers))) => {
            let len = bytes.len() - rest.len() + len;
            Read::Whole((body, pairs(trailers), len))
        }
        Ok(httparse::Status::Partial) => Read::Partial,
        Err(error) => Read::Not(error.to_string()),
    }
}
