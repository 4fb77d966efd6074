//! Who may call: on the unix socket the account that runs Mainstay, root, and the members of one
//! group if there is one, whatever the file's mode says; on the loopback port whoever knows the
//! token, and there no web page, however its name resolves.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, header};
use mainstay_api::wire::ProblemCode;
use tokio::net::UnixStream;

use super::refusal::Refused;
use crate::token::Token;

/// The port that a browser leaves out of `Host` (RFC 9110, 4.2.1).
const HTTP_PORT: u16 = 80;

/// From where a connection came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// From a process of an account, by the unix socket.
    Account {
        /// Its number.
        uid: u32,
        standing: Standing,
    },
    /// From anyone on this machine, by the loopback port of this number.
    Loopback { port: u16 },
}

/// What an account may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It runs Mainstay, or is root: everything, as Mainstay's own processes do.
    Owner,
    /// It is in the group: everything that a user may.
    Member,
    /// Nothing.
    Stranger,
}

/// As the log names whoever asked for a change.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account { uid, .. } => write!(f, "account {uid}"),
            Self::Loopback { .. } => f.write_str("the token"),
        }
    }
}

/// What is needed to decide.
#[derive(Clone)]
pub(crate) struct Admission {
    own_account: u32,
    group: Option<u32>,
    token: Token,
}

impl Admission {
    pub(crate) fn new(token: Token, group: Option<u32>) -> Self {
        Self {
            own_account: rustix::process::geteuid().as_raw(),
            group,
            token,
        }
    }

    /// Who is at the other end: what the kernel noted when it connected.
    pub(super) fn recognise(&self, stream: &UnixStream) -> io::Result<Caller> {
        let peer = stream.peer_cred()?;
        let standing = if self.is_owner(peer.uid()) {
            Standing::Owner
        } else if let Some(group) = self.group
            && (peer.gid() == group
                || mainstay_kernel::peer::groups(stream.as_fd())?.contains(&group))
        {
            Standing::Member
        } else {
            Standing::Stranger
        };
        Ok(Caller::Account {
            uid: peer.uid(),
            standing,
        })
    }

    fn is_owner(&self, uid: u32) -> bool {
        uid == self.own_account || uid == 0
    }

    /// Whether a request may be answered.
    pub(super) fn admit(&self, caller: Caller, request: &Parts) -> Result<(), Refused> {
        match caller {
            Caller::Account {
                standing: Standing::Owner | Standing::Member,
                ..
            } => Ok(()),
            Caller::Account {
                uid,
                standing: Standing::Stranger,
            } => Err(Refused::new(
                ProblemCode::AccountRefused,
                format!(
                    "account {uid} may not use the control centre of account {}",
                    self.own_account
                ),
            )),
            Caller::Loopback { port } => {
                let host = admit_host(request, port)?;
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
fn admit_host(request: &Parts, port: u16) -> Result<&str, Refused> {
    let named = || request.headers.get(header::HOST)?.to_str().ok();
    let host = request
        .uri
        .authority()
        .map(Authority::as_str)
        .or_else(named)
        .ok_or_else(|| Refused::new(ProblemCode::HostMissing, "the header `Host` is missing"))?;
    let own = host.parse().is_ok_and(|authority: Authority| {
        is_own_name(authority.host()) && authority.port_u16().unwrap_or(HTTP_PORT) == port
    });
    if own && !host.contains('@') {
        return Ok(host);
    }
    Err(Refused::new(
        ProblemCode::HostRefused,
        format!("host `{host}` is not port {port} of this machine"),
    ))
}

fn is_own_name(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
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
        let mut admission = Admission::new(token, None);
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

    #[tokio::test]
    async fn an_account_is_what_the_kernel_says_of_the_other_end() {
        let mut admission = fixture().admission;
        let (one, _other) = UnixStream::pair().expect("a pair");
        let peer = one.peer_cred().expect("is known");
        let standing = |admission: &Admission| match admission.recognise(&one).expect("is known") {
            Caller::Account { uid, standing } => (uid == peer.uid()).then_some(standing),
            Caller::Loopback { .. } => None,
        };
        admission.own_account = peer.uid();
        assert_eq!(standing(&admission), Some(Standing::Owner));
        if peer.uid() == 0 {
            return; // root is always let in; `callers.rs` has the others
        }
        admission.own_account = peer.uid() + 1;
        assert_eq!(standing(&admission), Some(Standing::Stranger));
        admission.group = Some(peer.gid());
        assert_eq!(standing(&admission), Some(Standing::Member));
    }

    #[test]
    fn on_the_unix_socket_only_the_own_account_and_root_may_call() {
        let fixture = fixture();
        let said = |uid, standing| message(Caller::Account { uid, standing }, &[], &fixture);
        assert_eq!(said(1000, Standing::Owner), None);
        assert_eq!(said(1002, Standing::Member), None);
        let refused = said(1001, Standing::Stranger);
        assert!(refused.is_some_and(|message| message.contains("1001")));
    }

    #[test]
    fn on_the_loopback_port_the_token_the_host_and_the_origin_must_be_right() {
        let fixture = fixture();
        let right = format!("Bearer {}", fixture.token);
        let near = format!("{}x", &right[..right.len() - 1]);
        let auth = ("authorization", right.as_str());
        let cases: &[Case<'_>] = &[
            (&[("host", "127.0.0.1:7770"), auth], None),
            (&[("host", "localhost:7770"), auth], None),
            (&[("host", "127.0.0.2:7770"), auth], None),
            (&[("host", "[::1]:7770"), auth], None),
            (
                &[
                    ("host", "localhost:7770"),
                    ("origin", "http://localhost:7770"),
                    auth,
                ],
                None,
            ),
            (&[("host", "localhost:7770")], Some("token is missing")),
            (
                &[("host", "localhost:7770"), ("authorization", &near)],
                Some("token is wrong"),
            ),
            (&[auth], Some("`Host`")),
            (&[("host", "localhost"), auth], Some("port 7770")),
            (&[("host", "localhost:7771"), auth], Some("port 7770")),
            (&[("host", "evil.example:7770"), auth], Some("evil.example")),
            (
                &[("host", "localhost.evil.example:7770"), auth],
                Some("evil"),
            ),
            (
                &[("host", "localhost@evil.example:7770"), auth],
                Some("evil"),
            ),
            (&[("host", "192.0.2.1:7770"), auth], Some("192.0.2.1")),
            (
                &[
                    ("host", "localhost:7770"),
                    ("origin", "http://evil.example"),
                    auth,
                ],
                Some("origin"),
            ),
            (
                &[
                    ("host", "localhost:7770"),
                    ("origin", "http://localhost:3000"),
                    auth,
                ],
                Some("origin"),
            ),
        ];
        for (headers, expected) in cases {
            let seen = message(Caller::Loopback { port: 7770 }, headers, &fixture);
            match (expected, &seen) {
                (None, None) => {}
                (Some(part), Some(message)) if message.contains(*part) => {}
                _ => panic!("{headers:?}: expected {expected:?}, saw {seen:?}"),
            }
        }
    }
}
