//! What a request is for (RFC 9112, 3.2).

use crate::{Method, Refused, host};

/// RFC 9112, 3 recommends 8000 at least. This is what HAProxy takes in its usual buffer, so nobody
/// who comes from there is refused.
const TARGET_LEN_MAX: usize = 16 * 1024;

/// The form of a target that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form<'a> {
    /// `/path?query`, or `*`.
    AsItIs,
    /// `http://authority/path?query`; the rest is empty, or begins with `/` or `?`.
    Absolute { authority: &'a [u8], rest: &'a [u8] },
}

/// Checks a target, which httparse took, for a method that is not CONNECT.
///
/// Characters that RFC 3986 has percent-encoded, such as `|`, `{` and `"`, may pass when they are
/// ASCII and visible: browsers send them, and no reader ends a target there.
pub(crate) fn check(method: Method, target: &[u8]) -> Result<Form<'_>, Refused> {
    if target.len() > TARGET_LEN_MAX {
        return Err(Refused::TargetTooLong);
    }
    if !target.is_ascii() {
        return Err(Refused::TargetCharacter);
    }
    if memchr::memchr(b'#', target).is_some() {
        return Err(Refused::Fragment);
    }
    match target {
        [b'/', ..] => Ok(Form::AsItIs),
        b"*" if method == Method::Options => Ok(Form::AsItIs),
        b"*" => Err(Refused::Asterisk),
        _ => absolute(target),
    }
}

fn absolute(target: &[u8]) -> Result<Form<'_>, Refused> {
    let rest = strip_scheme(target, b"http://").or_else(|| strip_scheme(target, b"https://"));
    let rest = rest.ok_or(Refused::TargetForm)?;
    let end = rest.iter().position(|byte| b"/?".contains(byte));
    let (authority, rest) = rest.split_at(end.unwrap_or(rest.len()));
    if !host::is_host(authority) {
        return Err(Refused::Host);
    }
    Ok(Form::Absolute { authority, rest })
}

fn strip_scheme<'a>(target: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = target.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}
