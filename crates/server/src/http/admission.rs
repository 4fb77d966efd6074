//! Who may call: the owner of the files (or root) on the unix socket, whoever knows the token on
//! the loopback port, and there no web page, however its name resolves.

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, header};
use mainstay_api::wire::ProblemCode;

use super::refusal::Refused;
use crate::token::Token;

/// From where a connection came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// From a process of this account, by the unix socket.
    Account(u32),
    /// From anyone on this machine, by the loopback port.
    Loopback,
}

/// What is needed to decide.
#[derive(Clone)]
pub(crate) struct Admission {
    own_account: u32,
    token: Token,
}

impl Admission {
    pub(crate) fn new(token: Token) -> Self {
        Self {
            own_account: rustix::process::geteuid().as_raw(),
            token,
        }
    }

    /// Whether a request may be answered.
    pub(super) fn admit(&self, caller: Caller, request: &Parts) -> Result<(), Refused> {
        match caller {
            Caller::Account(account) if account == self.own_account || account == 0 => Ok(()),
            Caller::Account(account) => Err(Refused::new(
                ProblemCode::AccountRefused,
                format!(
                    "account {account} may not use the control centre of account {}",
                    self.own_account
                ),
            )),
            Caller::Loopback => {
                let host = admit_host(request)?;
                admit_origin(&request.headers, host)?;
                self.admit_token(&request.headers)
            }
        }
    }

    fn admit_token(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        let (code, wrong) = match given {
            Some(given) if self.token.is(given) => return Ok(()),
            Some(_) => (ProblemCode::TokenWrong, "the token is wrong"),
            None => (ProblemCode::TokenMissing, "the token is missing"),
        };
        Err(Refused::new(code, wrong))
    }
}

/// A page of another site can make a browser call this port under a name of its own that resolves
/// to 127.0.0.1. The name in `Host` gives it away.
fn admit_host(request: &Parts) -> Result<&str, Refused> {
    let named = || request.headers.get(header::HOST)?.to_str().ok();
    let host = request
        .uri
        .authority()
        .map(Authority::as_str)
        .or_else(named);
    let authority: Option<Authority> = host.and_then(|host| host.parse().ok());
    match (host, authority) {
        (Some(host), Some(authority))
            if matches!(authority.host(), "127.0.0.1" | "localhost" | "[::1]") =>
        {
            Ok(host)
        }
        (Some(host), _) => Err(Refused::new(
            ProblemCode::HostRefused,
            format!("host `{host}` is not this machine"),
        )),
        (None, _) => Err(Refused::new(
            ProblemCode::HostMissing,
            "the header `Host` is missing",
        )),
    }
}

/// Only a page that this port itself served may call it from a browser.
fn admit_origin(headers: &HeaderMap, host: &str) -> Result<(), Refused> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let own = origin
        .to_str()
        .is_ok_and(|origin| origin.strip_prefix("http://") == Some(host));
    if own {
        return Ok(());
    }
    let origin = String::from_utf8_lossy(origin.as_bytes());
    Err(Refused::new(
        ProblemCode::OriginRefused,
        format!("origin `{origin}` may not call the control centre"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::TOKEN_FILE;
    use http::Request;
    use mainstay_testkit::TempDir;

    /// The headers of a request, and a part of the message that refuses it.
    type Case<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>);

    struct Fixture {
        admission: Admission,
        token: String,
    }

    fn fixture() -> Fixture {
        let dir = TempDir::new("admission");
        let token = Token::load_or_make(dir.path()).expect("makes one");
        let mut admission = Admission::new(token);
        admission.own_account = 1000;
        let token = std::fs::read_to_string(dir.join(TOKEN_FILE)).expect("is there");
        let token = token.trim().to_owned();
        Fixture { admission, token }
    }

    fn message(caller: Caller, headers: &[(&str, &str)], fixture: &Fixture) -> Option<String> {
        let mut request = Request::builder().uri("/v1/status");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("legal").into_parts();
        let refused = fixture.admission.admit(caller, &parts).err()?;
        Some(refused.problem().message.clone())
    }

    #[test]
    fn on_the_unix_socket_only_the_own_account_and_root_may_call() {
        let fixture = fixture();
        assert_eq!(message(Caller::Account(1000), &[], &fixture), None);
        assert_eq!(message(Caller::Account(0), &[], &fixture), None);
        let refused = message(Caller::Account(1001), &[], &fixture);
        assert!(refused.is_some_and(|message| message.contains("1001")));
    }

    #[test]
    fn on_the_loopback_port_the_token_the_host_and_the_origin_must_be_right() {
        let fixture = fixture();
        let right = format!("Bearer {}", fixture.token);
        let near = format!("{}x", &right[..right.len() - 1]);
        let cases: [Case<'_>; 10] = [
            (
                &[("host", "127.0.0.1:7770"), ("authorization", &right)],
                None,
            ),
            (&[("host", "localhost"), ("authorization", &right)], None),
            (&[("host", "[::1]:7770"), ("authorization", &right)], None),
            (
                &[
                    ("host", "localhost:1"),
                    ("origin", "http://localhost:1"),
                    ("authorization", &right),
                ],
                None,
            ),
            (&[("host", "localhost")], Some("token is missing")),
            (
                &[("host", "localhost"), ("authorization", &near)],
                Some("token is wrong"),
            ),
            (&[("authorization", &right)], Some("`Host`")),
            (
                &[("host", "evil.example:7770"), ("authorization", &right)],
                Some("evil.example"),
            ),
            (
                &[
                    ("host", "localhost.evil.example"),
                    ("authorization", &right),
                ],
                Some("evil"),
            ),
            (
                &[
                    ("host", "localhost:1"),
                    ("origin", "http://evil.example"),
                    ("authorization", &right),
                ],
                Some("origin"),
            ),
        ];
        for (headers, expected) in cases {
            let seen = message(Caller::Loopback, headers, &fixture);
            match (expected, &seen) {
                (None, None) => {}
                (Some(part), Some(message)) if message.contains(part) => {}
                _ => panic!("{headers:?}: expected {expected:?}, saw {seen:?}"),
            }
        }
    }
}
