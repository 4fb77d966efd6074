//! Who may see the page, and who may not.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use http::uri::Authority;
use http::{HeaderMap, header};

use super::change::Asks;

/// The port that a browser leaves out of `Host` (RFC 9110, 4.2.1).
const HTTP_PORT: u16 = 80;

/// A name and a password for those who look from elsewhere.
#[derive(Clone, PartialEq, Eq)]
pub struct StatsAuth {
    /// The name; without a colon (RFC 7617, 2).
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for StatsAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatsAuth")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Decides who is let in.
#[derive(Debug)]
pub(crate) enum Access {
    /// Whoever is on this machine, by this port; no page of another site, however its name resolves.
    Loopback { port: u16 },
    /// Whoever knows the name and the password.
    Password(Password),
}

/// What the header must say, never shown.
pub(crate) struct Password {
    user: String,
    code: String,
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denial {
    /// The name or the password is missing or wrong.
    Unknown,
    /// `Host` is not this machine: a page of another site may have sent this.
    ForeignHost,
    /// Another site's page sent this.
    ForeignOrigin,
    /// Something is to be changed, and the token is missing or wrong.
    NoToken,
    /// Something is to be changed, and it is not told which page sent this.
    NoOrigin,
    /// Something is to be changed, and there is no token that could be right.
    NoTokenFile,
}

/// Anybody in the network could look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "statistics on {0} can be seen from other machines, so they need `stats_auth = \"user:password\"`"
)]
pub struct OpenToAll(pub SocketAddr);

impl Access {
    /// The rule for a socket that listens on `address`.
    pub(crate) fn new(address: SocketAddr, auth: Option<&StatsAuth>) -> Result<Self, OpenToAll> {
        match auth {
            Some(auth) => Ok(Self::Password(Password::of(auth))),
            None if address.ip().is_loopback() => Ok(Self::Loopback {
                port: address.port(),
            }),
            None => Err(OpenToAll(address)),
        }
    }

    /// Whether whoever sent these headers is let in.
    pub(crate) fn admit(&self, headers: &HeaderMap) -> Result<(), Denial> {
        let host = text(headers, &header::HOST).ok_or(Denial::ForeignHost)?;
        match self {
            Self::Loopback { port } if !is_own(host, *port) => return Err(Denial::ForeignHost),
            Self::Password(password) if !password.is_in(headers) => return Err(Denial::Unknown),
            Self::Loopback { .. } | Self::Password(_) => {}
        }
        // Browsers say where a request comes from, unless a person typed it.
        let site = headers
            .get("sec-fetch-site")
            .map(http::HeaderValue::as_bytes);
        let is_own_site = matches!(site, None | Some(b"same-origin" | b"none"));
        let origin = text(headers, &header::ORIGIN);
        let is_own_origin = origin.is_none_or(|origin| {
            let bare = origin
                .strip_prefix("http://")
                .or(origin.strip_prefix("https://"));
            bare == Some(host)
        });
        if is_own_site && is_own_origin {
            Ok(())
        } else {
            Err(Denial::ForeignOrigin)
        }
    }
}

impl Access {
    /// Whether whoever is let in may change something. The name and the password are shown by a
    /// browser whoever wrote the page that sends it, so that `Origin`, which was found to be our own
    /// if it is there, must be.
    pub(crate) fn admit_change(
        &self,
        headers: &HeaderMap,
        given: Option<&str>,
        file: &Path,
    ) -> Result<(), Denial> {
        match (self, given) {
            (Self::Password(_), _) if headers.contains_key(header::ORIGIN) => Ok(()),
            (Self::Password(_), None) => Err(Denial::NoOrigin),
            (Self::Loopback { .. }, None) => Err(Denial::NoToken),
            (Self::Loopback { .. } | Self::Password(_), Some(given)) => {
                let token = std::fs::read_to_string(file).map_err(|_| Denial::NoTokenFile)?;
                // A torn file has none.
                let token = Some(token.trim()).filter(|token| !token.is_empty());
                let token = token.ok_or(Denial::NoTokenFile)?;
                if is_same(token.as_bytes(), given.as_bytes()) {
                    Ok(())
                } else {
                    Err(Denial::NoToken)
                }
            }
        }
    }

    /// Who changes something, for the record.
    pub(crate) fn who(&self) -> String {
        match self {
            Self::Loopback { .. } => "whoever has the token, by the statistics page".to_owned(),
            Self::Password(Password { user, .. }) => format!("{user}, by the statistics page"),
        }
    }

    /// Whether the form for changes asks for the token.
    pub(crate) fn asks(&self) -> Asks {
        match self {
            Self::Loopback { .. } => Asks::ForToken,
            Self::Password(_) => Asks::ForNothing,
        }
    }
}

/// Takes as long for a near miss as for a far one.
fn is_same(own: &[u8], given: &[u8]) -> bool {
    if own.len() != given.len() {
        return false;
    }
    let differing = own.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differing) == 0
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A page of another site can make a browser call this port under a name of its own that resolves
/// to 127.0.0.1. The name in `Host` gives it away.
fn is_own(host: &str, port: u16) -> bool {
    let is_name = |name: &str| {
        let address = name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    };
    let is_own = |authority: &Authority| {
        is_name(authority.host()) && authority.port_u16().unwrap_or(HTTP_PORT) == port
    };
    !host.contains('@') && host.parse().is_ok_and(|authority| is_own(&authority))
}

impl Password {
    fn of(auth: &StatsAuth) -> Self {
        let StatsAuth { user, password } = auth;
        Self {
            user: user.clone(),
            code: base64(format!("{user}:{password}").as_bytes()),
        }
    }

    fn is_in(&self, headers: &HeaderMap) -> bool {
        let Some((scheme, given)) =
            text(headers, &header::AUTHORIZATION).and_then(|value| value.split_once(' '))
        else {
            return false;
        };
        let given = given.trim().as_bytes();
        scheme.eq_ignore_ascii_case("basic") && is_same(self.code.as_bytes(), given)
    }
}

/// RFC 4648, 4. A crate for the one place that needs it would be longer than this.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .fold(0, |group, byte| group << 8 | usize::from(*byte));
        let group = group << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let index = group >> (18 - 6 * digit) & 63;
            text.push(if digit > chunk.len() {
                '='
            } else {
                char::from(DIGITS[index])
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The headers of a request, and whether they are let in.
    type Case<'a> = (&'a [(&'static str, &'a str)], Result<(), Denial>);

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| {
                (
                    header::HeaderName::from_static(name),
                    value.parse().unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn the_code_of_the_rfc_is_written_as_its_examples_say() {
        // RFC 4648, 10, and RFC 7617, 2.
        for (plain, code) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
            ("Aladdin:open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ] {
            assert_eq!(base64(plain.as_bytes()), code);
        }
    }

    #[test]
    fn on_loopback_only_this_machine_and_its_own_page_are_let_in() {
        let access = Access::new(([127, 0, 0, 1], 8888).into(), None).unwrap();
        let host = ("host", "localhost:8888");
        let cases: &[Case<'_>] = &[
            (&[host], Ok(())),
            (&[("host", "127.0.0.1:8888")], Ok(())),
            (&[("host", "[::1]:8888")], Ok(())),
            (&[host, ("sec-fetch-site", "none")], Ok(())),
            (
                &[
                    host,
                    ("sec-fetch-site", "same-origin"),
                    ("origin", "http://localhost:8888"),
                ],
                Ok(()),
            ),
            (&[], Err(Denial::ForeignHost)),
            (&[("host", "localhost")], Err(Denial::ForeignHost)),
            (&[("host", "evil.example:8888")], Err(Denial::ForeignHost)),
            (
                &[("host", "localhost.evil.example:8888")],
                Err(Denial::ForeignHost),
            ),
            (
                &[("host", "localhost@evil.example:8888")],
                Err(Denial::ForeignHost),
            ),
            (
                &[host, ("sec-fetch-site", "cross-site")],
                Err(Denial::ForeignOrigin),
            ),
            (
                &[host, ("origin", "http://evil.example")],
                Err(Denial::ForeignOrigin),
            ),
            (&[host, ("origin", "null")], Err(Denial::ForeignOrigin)),
        ];
        for (pairs, expected) in cases {
            assert_eq!(access.admit(&headers(pairs)), *expected, "{pairs:?}");
        }
    }

    #[test]
    fn from_elsewhere_a_name_and_a_password_are_needed() {
        let address = SocketAddr::from(([0, 0, 0, 0], 8888));
        assert_eq!(Access::new(address, None).unwrap_err(), OpenToAll(address));
        let auth = StatsAuth {
            user: "Aladdin".into(),
            password: "open sesame".into(),
        };
        assert!(!format!("{auth:?}").contains("sesame"));
        let access = Access::new(address, Some(&auth)).unwrap();
        let admit = |value| {
            access.admit(&headers(&[
                ("host", "stats.example"),
                ("authorization", value),
            ]))
        };
        assert_eq!(admit("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), Ok(()));
        assert_eq!(admit("basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), Ok(()));
        for wrong in [
            "",
            "Basic",
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZX==",
            "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            "Basic QWxh",
        ] {
            assert_eq!(admit(wrong), Err(Denial::Unknown), "{wrong}");
        }
        assert_eq!(
            access.admit(&headers(&[("host", "stats.example")])),
            Err(Denial::Unknown)
        );
    }
}
