//! Which fields pass, and which are added, on the way through (RFC 9110, 7.6).

use std::borrow::Cow;
use std::sync::Arc;

use bytes::BytesMut;
use mainstay_http1::{Field, Framing, HeadWriter, Known, Request, Response, Version};
use mainstay_model::traffic::Trace;

use crate::answer::Visit;
use crate::forwarded::{self, Way};
use crate::rewrite::{FieldPlan, RewritePlan, Values};

/// Who is believed about the way that a request came before us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hop {
    /// It came from outside: we are the first who knows, whatever it says of scheme and host.
    Entry,
    /// It came from a service: what stands there was put there at the entry, and carried on.
    Inside,
}

/// What a request's head is made of beside the client's own head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passage<'a> {
    pub(crate) id: &'a [u8],
    pub(crate) way: Way<'a>,
    pub(crate) trace: Trace,
    /// What is changed for the instance.
    pub(crate) rewrite: Option<&'a RewritePlan>,
}

/// Writes the head that an instance sees.
pub(crate) fn write_request(out: &mut BytesMut, request: &Request, passage: Passage<'_>) {
    let Passage {
        id,
        way,
        trace,
        rewrite,
    } = passage;
    let target = request.target();
    let target = rewrite.map_or(Cow::Borrowed(target), |plan| plan.target(target));
    let mut head = HeadWriter::request(out, request.method_name(), &target);
    // HTTP/1.1 demands one; a client of HTTP/1.0 may have none, and an empty one is legal.
    let host = request.host().unwrap_or_default().as_bytes();
    head.field(b"host", rewrite.and_then(RewritePlan::host).unwrap_or(host));
    for field in request.fields.iter() {
        match field.known {
            // Written anew, or of one connection only. We say "100 Continue" ourselves, as soon as
            // the instance takes the body.
            Known::Host
            | Known::ContentLength
            | Known::TransferEncoding
            | Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::ProxyAuthenticate
            | Known::ProxyAuthorization
            | Known::Upgrade
            | Known::Expect
            | Known::XRequestId => {}
            Known::Te => {
                if starts_with(field.value, b"trailers") {
                    head.field(b"te", b"trailers");
                }
            }
            known if forwarded::replaces(trace, way.hop, known) => {}
            _ if rewrite.is_some_and(|plan| plan.request.drops(field.name)) => {}
            _ if request.connection_names(field.name) => {}
            _ => {
                head.field(field.name, field.value);
            }
        }
    }
    match request.framing {
        Framing::Length(len) => head.number(b"content-length", len),
        Framing::Chunked => head.field(b"transfer-encoding", b"chunked"),
        Framing::None | Framing::UntilClose => &mut head,
    };
    if let Some(protocol) = request.upgrade() {
        head.field(b"connection", b"upgrade")
            .field(b"upgrade", protocol);
    }
    forwarded::write(trace, way, request, |name, value| {
        head.field(name, value);
    });
    if !id.is_empty() {
        head.field(b"x-request-id", id);
    }
    if let Some(plan) = rewrite {
        let values = Values {
            client: way.peer,
            id,
            request,
        };
        plan.request.write(values, |name, value| {
            head.field(name, value);
        });
    }
    head.finish();
}

/// What is changed in an instance's answer.
#[derive(Debug, Default)]
pub(crate) struct Alterations {
    pub(crate) rewrite: Option<Arc<RewritePlan>>,
    /// The value of a `Set-Cookie` of our own.
    pub(crate) cookie: Option<String>,
}

/// Writes the head of an interim answer as a client sees it. What is added to answers belongs to the
/// final one.
pub(crate) fn write_interim(
    out: &mut BytesMut,
    response: &Response,
    rewrite: Option<&RewritePlan>,
) {
    let mut head = HeadWriter::response(out, response.status);
    let rewrite = rewrite.map(|plan| &plan.response);
    for field in response.fields.iter() {
        // RFC 9110, 8.6: it has no length, not even of nothing.
        if field.known != Known::ContentLength && passes(response, field, rewrite) {
            head.field(field.name, field.value);
        }
    }
    head.finish();
}

/// Whether a client sees this field of an instance's answer.
fn passes(response: &Response, field: Field<'_>, rewrite: Option<&FieldPlan>) -> bool {
    match field.known {
        Known::TransferEncoding
        | Known::Connection
        | Known::KeepAlive
        | Known::ProxyConnection
        | Known::ProxyAuthenticate
        | Known::ProxyAuthorization
        | Known::Upgrade
        | Known::XRequestId => false,
        // The length of a body that does not follow: of an answer to HEAD, or of a 304.
        Known::ContentLength if response.framing != Framing::None => false,
        _ if rewrite.is_some_and(|plan| plan.drops(field.name)) => false,
        _ => !response.connection_names(field.name),
    }
}

/// Gives the fields of an instance's answer that a client sees to `put`.
pub(crate) fn pass_response(response: &Response, visit: &Visit, mut put: impl FnMut(&[u8], &[u8])) {
    let rewrite = visit
        .alterations
        .rewrite
        .as_ref()
        .map(|plan| &plan.response);
    for field in response.fields.iter() {
        if passes(response, field, rewrite) {
            put(field.name, field.value);
        }
    }
    if let Some(plan) = rewrite {
        plan.write(visit.values(), &mut put);
    }
    if let Some(cookie) = &visit.alterations.cookie {
        put(b"set-cookie", cookie.as_bytes());
    }
}

/// How a client is told where a body ends.
pub(crate) fn client_framing(framing: Framing, version: Version) -> Framing {
    match (framing, version) {
        (Framing::None | Framing::Length(_), _) => framing,
        (Framing::Chunked | Framing::UntilClose, Version::Http11) => Framing::Chunked,
        (Framing::Chunked | Framing::UntilClose, Version::Http10) => Framing::UntilClose,
    }
}

fn starts_with(value: &[u8], word: &[u8]) -> bool {
    value
        .get(..word.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use mainstay_http1::HeadLimits;

    const LIMITS: HeadLimits = HeadLimits {
        len_max: 8192,
        fields_max: 100,
    };

    fn pass(lines: &str, hop: Hop) -> Vec<(String, String)> {
        let text = format!("GET /x HTTP/1.1\r\n{lines}\r\n");
        let request = Request::parse(Bytes::from(text), LIMITS).unwrap();
        let mut out = BytesMut::new();
        let passage = Passage {
            id: b"id-1",
            way: Way {
                hop,
                peer: b"192.0.2.1",
                protocol: forwarded::Protocol::Http1,
            },
            trace: Trace::default(),
            rewrite: None,
        };
        write_request(&mut out, &request, passage);
        let text = String::from_utf8(out.to_vec()).unwrap();
        let mut lines = text.strip_suffix("\r\n\r\n").unwrap().split("\r\n");
        assert_eq!(lines.next(), Some("GET /x HTTP/1.1"));
        let pair = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        };
        lines.map(pair).collect()
    }

    fn value<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
        let mut found = fields.iter().filter(|(found, _)| found == name);
        let (_, value) = found.next()?;
        assert!(found.next().is_none(), "{name} stands there twice");
        Some(value)
    }

    #[test]
    fn what_concerns_one_connection_only_is_taken_out() {
        let fields = pass(
            "host: a\r\nconnection: close, X-Secret\r\nconnection: x-other\r\nx-secret: 1\r\n\
             x-other: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: keep-alive\r\n\
             proxy-authorization: Basic x\r\nte: gzip\r\nupgrade: chat\r\nx-kept: 1\r\n",
            Hop::Entry,
        );
        let mut left: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        left.sort_unstable();
        let expected = [
            "host",
            "via",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-kept",
            "x-request-id",
        ];
        assert_eq!(left, expected);
    }

    #[test]
    fn the_chain_of_clients_grows_and_the_entry_believes_nobody_about_host_and_scheme() {
        let claims = "host: shop\r\nx-forwarded-for: 10.0.0.1\r\nx-forwarded-for: 10.0.0.2\r\n\
                      x-forwarded-proto: https\r\nx-forwarded-host: evil\r\n";
        let entry = pass(claims, Hop::Entry);
        let chain = "10.0.0.1, 10.0.0.2, 192.0.2.1";
        assert_eq!(value(&entry, "x-forwarded-for"), Some(chain));
        assert_eq!(value(&entry, "x-forwarded-proto"), Some("http"));
        assert_eq!(value(&entry, "x-forwarded-host"), Some("shop"));
        let inside = pass(claims, Hop::Inside);
        assert_eq!(value(&inside, "x-forwarded-proto"), Some("https"));
        assert_eq!(value(&inside, "x-forwarded-host"), Some("evil"));
    }
}
