//! What an instance is told of the way that a request came: `X-Forwarded-*`, `Forwarded` (RFC 7239)
//! and `Via` (RFC 9110, 7.6.3).
//!
//! At the entry we are the first who knows. What a client says of its scheme and host there is
//! never passed on, in none of these headers: an instance that reads the ones that we do not write
//! would believe the client. Its chain of addresses is kept, and its own address put behind it.

use std::net::IpAddr;

use mainstay_http1::{Known, Request, Version};
use mainstay_model::traffic::{Forwarded, Trace};

use crate::headers::Hop;

/// By which way a request came to us.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way<'a> {
    pub(crate) hop: Hop,
    /// The address of the other end of the connection.
    pub(crate) peer: &'a [u8],
    pub(crate) protocol: Protocol,
}

/// What the client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// As the request's head says.
    Http1,
    Http2,
}

const SCHEME: &[u8] = b"http";

/// Whether the client's own lines of this field are not passed on as they are.
pub(crate) fn replaces(trace: Trace, hop: Hop, known: Known) -> bool {
    let (x, standard) = written(trace.forwarded);
    match known {
        Known::XForwardedFor | Known::XForwardedProto | Known::XForwardedHost => {
            x || hop == Hop::Entry
        }
        Known::Forwarded => standard || hop == Hop::Entry,
        Known::Via => true,
        _ => false,
    }
}

/// Whether `X-Forwarded-*` are written, and whether `Forwarded` is.
fn written(forwarded: Forwarded) -> (bool, bool) {
    match forwarded {
        Forwarded::X => (true, false),
        Forwarded::Rfc7239 => (false, true),
        Forwarded::Both => (true, true),
    }
}

/// Gives the lines that are written to `put`.
pub(crate) fn write(
    trace: Trace,
    way: Way<'_>,
    request: &Request,
    mut put: impl FnMut(&[u8], &[u8]),
) {
    let (x, standard) = written(trace.forwarded);
    let host = request.host().map(str::as_bytes);
    if x {
        let inside = |known: Known| {
            let believed = way.hop == Hop::Inside;
            request.fields.get(known).filter(|_| believed)
        };
        with_chain(request, Known::XForwardedFor, way.peer, |chain| {
            put(b"x-forwarded-for", chain);
        });
        put(
            b"x-forwarded-proto",
            inside(Known::XForwardedProto).unwrap_or(SCHEME),
        );
        if let Some(host) = inside(Known::XForwardedHost).or(host) {
            put(b"x-forwarded-host", host);
        }
    }
    if standard {
        let element = element(way.peer, host);
        with_chain(request, Known::Forwarded, &element, |chain| {
            put(b"forwarded", chain);
        });
    }
    if trace.via {
        let own: &[u8] = match (way.protocol, request.version) {
            (Protocol::Http2, _) => b"2.0 mainstay",
            (Protocol::Http1, Version::Http11) => b"1.1 mainstay",
            (Protocol::Http1, Version::Http10) => b"1.0 mainstay",
        };
        with_chain(request, Known::Via, own, |chain| put(b"via", chain));
    }
}

/// Puts `last` behind the lines of a field that is a list; without such a line nothing is copied.
fn with_chain(request: &Request, known: Known, last: &[u8], put: impl FnOnce(&[u8])) {
    let mut chain: Vec<u8> = Vec::new();
    for line in request.fields.all(known).filter(|line| !line.is_empty()) {
        chain.extend_from_slice(line);
        chain.extend_from_slice(b", ");
    }
    if chain.is_empty() {
        return put(last);
    }
    chain.extend_from_slice(last);
    put(&chain);
}

/// An element of `Forwarded` (RFC 7239, 4). A host is checked to hold nothing that ends quotes.
fn element(peer: &[u8], host: Option<&[u8]>) -> Vec<u8> {
    // RFC 7239, 6: an address of IPv6 stands in brackets, and so in quotes.
    let (before, behind): (&[u8], &[u8]) = if peer.contains(&b':') {
        (b"for=\"[", b"]\"")
    } else {
        (b"for=", b"")
    };
    let mut element = [before, peer, behind].concat();
    if let Some(host) = host {
        element.extend_from_slice(b";host=\"");
        element.extend_from_slice(host);
        element.push(b'"');
    }
    element.extend_from_slice(b";proto=");
    element.extend_from_slice(SCHEME);
    element
}

/// The client's address. Of a request that came from a service it is the one that the entry has put
/// last into the chain that the service carried on; `None`: it carried nothing on.
pub(crate) fn client(way: Way<'_>, request: &Request) -> Option<IpAddr> {
    match way.hop {
        Hop::Entry => str::from_utf8(way.peer).ok()?.parse().ok(),
        Hop::Inside => carried_client(request),
    }
}

fn carried_client(request: &Request) -> Option<IpAddr> {
    let line = request.fields.all(Known::XForwardedFor).last()?;
    let last = line.rsplit(|byte| *byte == b',').next()?;
    str::from_utf8(last.trim_ascii()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::tests::request;

    const CLAIMS: &str = "host: shop:81\r\nx-forwarded-for: 10.0.0.1\r\nx-forwarded-for: 10.0.0.2\r\n\
                          x-forwarded-proto: https\r\nx-forwarded-host: evil\r\n\
                          forwarded: for=10.0.0.1;proto=https;host=evil\r\nvia: 1.0 a, 1.1 b\r\n";

    fn told(trace: Trace, hop: Hop, peer: &str, lines: &str) -> Vec<String> {
        let request = request("GET /", lines);
        let way = Way {
            hop,
            peer: peer.as_bytes(),
            protocol: Protocol::Http1,
        };
        let mut told = Vec::new();
        for field in request.fields.iter() {
            if field.known != Known::Host && !replaces(trace, hop, field.known) {
                told.push([field.name, b": ", field.value].concat());
            }
        }
        write(trace, way, &request, |name, value| {
            told.push([name, b": ", value].concat());
        });
        let text = |line: Vec<u8>| String::from_utf8(line).unwrap();
        told.into_iter().map(text).collect()
    }

    fn trace(forwarded: Forwarded) -> Trace {
        Trace {
            forwarded,
            via: true,
        }
    }

    #[test]
    fn at_the_entry_no_header_carries_what_a_client_says_of_scheme_and_host() {
        for forwarded in [Forwarded::X, Forwarded::Rfc7239, Forwarded::Both] {
            let told = told(trace(forwarded), Hop::Entry, "192.0.2.1", CLAIMS);
            let (x, standard) = written(forwarded);
            let of_x = [
                "x-forwarded-for: 10.0.0.1, 10.0.0.2, 192.0.2.1",
                "x-forwarded-proto: http",
                "x-forwarded-host: shop:81",
            ];
            let of_standard = ["forwarded: for=10.0.0.1;proto=https;host=evil, \
                                for=192.0.2.1;host=\"shop:81\";proto=http"];
            let mut expected = Vec::new();
            expected.extend_from_slice(if x { &of_x } else { &[] });
            expected.extend_from_slice(if standard { &of_standard } else { &[] });
            expected.push("via: 1.0 a, 1.1 b, 1.1 mainstay");
            assert_eq!(told, expected, "{forwarded:?}");
        }
    }

    #[test]
    fn between_services_what_the_entry_said_is_carried_on() {
        let told = told(trace(Forwarded::X), Hop::Inside, "127.0.0.1", CLAIMS);
        assert_eq!(
            told,
            [
                "forwarded: for=10.0.0.1;proto=https;host=evil",
                "x-forwarded-for: 10.0.0.1, 10.0.0.2, 127.0.0.1",
                "x-forwarded-proto: https",
                "x-forwarded-host: evil",
                "via: 1.0 a, 1.1 b, 1.1 mainstay",
            ]
        );
        let carried = |lines: &str| carried_client(&request("GET /", lines));
        assert_eq!(carried(CLAIMS), "10.0.0.2".parse().ok());
        assert_eq!(
            carried("host: a\r\nx-forwarded-for: a, 2001:db8::1 \r\n"),
            "2001:db8::1".parse().ok()
        );
        assert_eq!(carried("host: a\r\n"), None);
    }

    #[test]
    fn an_address_of_ipv6_is_quoted_and_via_can_be_left_out() {
        let trace = Trace {
            forwarded: Forwarded::Rfc7239,
            via: false,
        };
        let told = told(
            trace,
            Hop::Entry,
            "2001:db8::1",
            "host: a\r\nvia: 1.1 x\r\n",
        );
        let expected = ["forwarded: for=\"[2001:db8::1]\";host=\"a\";proto=http"];
        assert_eq!(told, expected, "a client's own Via goes, too");
    }
}
