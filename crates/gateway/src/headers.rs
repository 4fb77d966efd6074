//! What is taken out of a message's head and put into it on its way through (RFC 9110, 7.6).

use std::net::IpAddr;

use http::header::{
    CONNECTION, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP: HeaderValue = HeaderValue::from_static("http");
const UPGRADE_TOKEN: HeaderValue = HeaderValue::from_static("upgrade");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// Why a request is refused before anything is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRequest {
    #[error("it has no Host header, or more than one")]
    Host,
    #[error("CONNECT is for forward proxies")]
    Connect,
    #[error("its target is not a path")]
    Target,
}

/// Who is believed about the way that a request came before us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hop {
    /// It came from outside: we are the first who knows, whatever it says of scheme and host.
    Entry,
    /// It came from a service: what stands there was put there at the entry, and carried on.
    Inside,
}

/// Checks what hyper leaves to us, and brings the target into origin form with the host in `Host`.
pub(crate) fn check<B>(request: &mut Request<B>) -> Result<(), BadRequest> {
    if request.method() == Method::CONNECT {
        return Err(BadRequest::Connect);
    }
    let headers = request.headers();
    // RFC 9112, 3.2: exactly one Host in HTTP/1.1.
    let mut hosts = headers.get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() || (first.is_none() && request.version() >= Version::HTTP_11) {
        return Err(BadRequest::Host);
    }
    if first.is_some_and(|host| host.to_str().is_err()) {
        return Err(BadRequest::Host);
    }
    let uri = request.uri();
    if uri.authority().is_none() && uri.path_and_query().is_some() {
        return Ok(());
    }
    to_origin_form(request)
}

/// RFC 9112, 3.2.2: the host of a target in absolute form replaces the Host header.
fn to_origin_form<B>(request: &mut Request<B>) -> Result<(), BadRequest> {
    let parts = std::mem::take(request.uri_mut()).into_parts();
    let authority = parts.authority.ok_or(BadRequest::Target)?;
    let without_user = authority.as_str().rsplit('@').next().unwrap_or_default();
    let host = HeaderValue::try_from(without_user).map_err(|_| BadRequest::Host)?;
    request.headers_mut().insert(HOST, host);
    let path = parts.path_and_query.ok_or(BadRequest::Target)?;
    let path = match path.path() {
        "" => PathAndQuery::from_static("/"),
        _ => path,
    };
    *request.uri_mut() = Uri::from(path);
    Ok(())
}

/// The protocol that a request asks to change to; `None` for h2c, which would let a client speak
/// to the instance past us.
pub(crate) fn wanted_upgrade(version: Version, headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(UPGRADE)?;
    let asks = version == Version::HTTP_11 && names(headers, "upgrade");
    let h2c = protocol.as_bytes().to_ascii_lowercase().starts_with(b"h2c");
    (asks && !h2c).then(|| protocol.clone())
}

/// Whether `Connection` names `token`.
fn names(headers: &HeaderMap, token: &str) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|named| named.trim().eq_ignore_ascii_case(token))
}

/// Takes out what concerns only one connection, and what `Connection` says does.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if let Some(value) = headers.remove(CONNECTION) {
        // The common ones name no other header.
        if !value.as_bytes().eq_ignore_ascii_case(b"keep-alive")
            && !value.as_bytes().eq_ignore_ascii_case(b"close")
        {
            remove_named(headers, &value);
        }
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION] {
        headers.remove(name);
    }
    for name in [
        TRANSFER_ENCODING,
        UPGRADE,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
    ] {
        headers.remove(name);
    }
}

fn remove_named(headers: &mut HeaderMap, connection: &HeaderValue) {
    let Ok(names) = connection.to_str() else {
        return;
    };
    for name in names.split(',') {
        let name = name.trim();
        // Nobody may make us forget how long the message is, or for whom.
        let kept = ["content-length", "host", "te"];
        if !kept.iter().any(|kept| name.eq_ignore_ascii_case(kept)) {
            headers.remove(name);
        }
    }
}

/// Makes the head that an instance sees out of the client's.
pub(crate) fn to_instance(
    headers: &mut HeaderMap,
    peer: (IpAddr, &HeaderValue),
    hop: Hop,
    upgrade: Option<HeaderValue>,
) {
    let trailers = headers
        .get(TE)
        .is_some_and(|te| te.as_bytes().to_ascii_lowercase().starts_with(b"trailers"));
    flatten_connection(headers);
    remove_hop_by_hop(headers);
    headers.remove(TE);
    // We answer 100 ourselves, as soon as the instance takes the body.
    headers.remove(EXPECT);
    if trailers {
        headers.insert(TE, TRAILERS);
    }
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, UPGRADE_TOKEN);
        headers.insert(UPGRADE, protocol);
    }
    forwarded(headers, peer, hop);
}

/// Several `Connection` lines become one, so that taking it out sees all of them.
fn flatten_connection(headers: &mut HeaderMap) {
    if headers.get_all(CONNECTION).iter().nth(1).is_none() {
        return;
    }
    let values: Vec<&[u8]> = headers
        .get_all(CONNECTION)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(joined) = HeaderValue::from_bytes(&values.join(&b',')) {
        headers.insert(CONNECTION, joined);
    }
}

fn forwarded(headers: &mut HeaderMap, (ip, text): (IpAddr, &HeaderValue), hop: Hop) {
    let before: Vec<&HeaderValue> = headers.get_all(X_FORWARDED_FOR).iter().collect();
    let chain = if before.is_empty() {
        text.clone()
    } else {
        let ip = ip.to_string();
        let mut chain: Vec<&[u8]> = before.into_iter().map(HeaderValue::as_bytes).collect();
        chain.push(ip.as_bytes());
        HeaderValue::from_bytes(&chain.join(&b", "[..])).unwrap_or_else(|_| text.clone())
    };
    headers.insert(X_FORWARDED_FOR, chain);
    let trusted = |name: &HeaderName| hop == Hop::Inside && headers.contains_key(name);
    let (keep_proto, keep_host) = (trusted(&X_FORWARDED_PROTO), trusted(&X_FORWARDED_HOST));
    if !keep_proto {
        headers.insert(X_FORWARDED_PROTO, HTTP);
    }
    if !keep_host && let Some(host) = headers.get(HOST).cloned() {
        headers.insert(X_FORWARDED_HOST, host);
    }
}

/// Makes the head that the client sees out of the instance's.
pub(crate) fn to_client(headers: &mut HeaderMap, upgraded: Option<HeaderValue>) {
    flatten_connection(headers);
    remove_hop_by_hop(headers);
    if let Some(protocol) = upgraded {
        headers.insert(CONNECTION, UPGRADE_TOKEN);
        headers.insert(UPGRADE, protocol);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn pass(pairs: &[(&'static str, &'static str)], hop: Hop) -> HeaderMap {
        let mut headers = head(pairs);
        let peer = HeaderValue::from_static("192.0.2.1");
        to_instance(
            &mut headers,
            ("192.0.2.1".parse().unwrap(), &peer),
            hop,
            None,
        );
        headers
    }

    #[test]
    fn what_concerns_one_connection_only_is_taken_out() {
        let headers = pass(
            &[
                ("host", "a"),
                ("connection", "close, X-Secret"),
                ("connection", "x-other, host, content-length"),
                ("content-length", "3"),
                ("x-secret", "1"),
                ("x-other", "1"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "keep-alive"),
                ("proxy-authorization", "Basic x"),
                ("te", "gzip"),
                ("upgrade", "h2c"),
                ("expect", "100-continue"),
                ("x-kept", "1"),
            ],
            Hop::Entry,
        );
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        let expected = [
            "content-length",
            "host",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-kept",
        ];
        assert_eq!(left, expected);
    }

    #[test]
    fn the_chain_of_clients_grows_and_the_entry_believes_nobody_about_host_and_scheme() {
        let claims = [
            ("host", "shop"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
        ];
        let entry = pass(&claims, Hop::Entry);
        assert_eq!(entry[X_FORWARDED_FOR], "10.0.0.1, 10.0.0.2, 192.0.2.1");
        assert_eq!(entry.get_all(X_FORWARDED_FOR).iter().count(), 1);
        assert_eq!(entry[X_FORWARDED_PROTO], "http");
        assert_eq!(entry[X_FORWARDED_HOST], "shop");
        let inside = pass(&claims, Hop::Inside);
        assert_eq!(inside[X_FORWARDED_PROTO], "https");
        assert_eq!(inside[X_FORWARDED_HOST], "evil");
    }

    #[test]
    fn a_target_in_absolute_form_gives_the_host() {
        let mut request = Request::builder()
            .uri("http://user@real.example:81/x?y")
            .header(HOST, "other")
            .body(())
            .unwrap();
        check(&mut request).unwrap();
        assert_eq!(request.uri(), "/x?y");
        assert_eq!(request.headers()[HOST], "real.example:81");
    }

    #[test]
    fn a_request_without_exactly_one_host_is_refused() {
        let checked = |pairs: &[(&'static str, &'static str)]| {
            let mut request = Request::builder().uri("/").body(()).unwrap();
            *request.headers_mut() = head(pairs);
            check(&mut request)
        };
        assert_eq!(checked(&[]), Err(BadRequest::Host));
        assert_eq!(
            checked(&[("host", "a"), ("host", "b")]),
            Err(BadRequest::Host)
        );
        assert_eq!(checked(&[("host", "a")]), Ok(()));
    }

    #[test]
    fn an_upgrade_is_wanted_only_if_the_connection_says_so_and_never_to_h2c() {
        let wanted = |connection: &'static str, protocol: &'static str| {
            let headers = head(&[("connection", connection), ("upgrade", protocol)]);
            wanted_upgrade(Version::HTTP_11, &headers)
        };
        assert_eq!(
            wanted("keep-alive, Upgrade", "websocket"),
            Some(HeaderValue::from_static("websocket"))
        );
        assert_eq!(wanted("keep-alive", "websocket"), None);
        assert_eq!(wanted("upgrade", "h2c"), None);
    }
}
