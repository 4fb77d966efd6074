//! Addresses to listen on: `:80`, `127.0.0.1:8080`, `[::1]:8080`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use toml::de::DeValue;

use crate::file::refusal::{Refused, quoted};
use crate::file::walk::Entry;

const EXPECTED: &str = "an address to listen on is an IP address with a port, or a port alone for \
                        all IPv4 addresses, as in `:80`";

/// Reads an address to listen on.
pub(super) fn bind(entry: &Entry<'_, '_>) -> Option<SocketAddr> {
    let example = match entry.value() {
        DeValue::Integer(port) => format!("`{} = \":{port}\"`", entry.name()),
        _ => format!("`{} = \":80\"`", entry.name()),
    };
    entry.text("an address, as in `:80`", &example, parse_bind)
}

/// Reads an address to listen on from its text. Port 0 is one that the kernel picks.
pub(super) fn parse_bind(text: &str) -> Result<SocketAddr, Refused> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Some(port) = text.strip_prefix(':').and_then(port) {
        return Ok((Ipv4Addr::UNSPECIFIED, port).into());
    }
    let refused = Refused::value(format!("{EXPECTED}; found {}", quoted(text)));
    Err(match likely(text) {
        Some(likely) => refused.help(format!("did you mean `{likely}`?")),
        None => refused,
    })
}

fn likely(text: &str) -> Option<String> {
    if let Some(port) = port(text) {
        return Some(format!(":{port}"));
    }
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return Some(format!("{ip}:80"));
    }
    if let Ok(ip) = text.parse::<Ipv6Addr>() {
        return Some(format!("[{ip}]:80"));
    }
    let (host, rest) = text.rsplit_once(':')?;
    let port = port(rest)?;
    match host {
        "*" => Some(format!(":{port}")),
        "localhost" => Some(format!("127.0.0.1:{port}")),
        _ => None,
    }
}

/// `u16::from_str` would take a sign.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_every_ipv4_address_and_slips_are_recognised() {
        for (text, address) in [
            (":80", "0.0.0.0:80"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("[::]:80", "[::]:80"),
            (":0", "0.0.0.0:0"),
        ] {
            let read = parse_bind(text).map(|address| address.to_string());
            assert_eq!(read.ok().as_deref(), Some(address), "{text}");
        }
        for (text, help) in [
            ("80", Some("did you mean `:80`?")),
            ("*:80", Some("did you mean `:80`?")),
            ("localhost:8080", Some("did you mean `127.0.0.1:8080`?")),
            ("10.0.0.1", Some("did you mean `10.0.0.1:80`?")),
            ("::1", Some("did you mean `[::1]:80`?")),
            (":+80", None),
            (":65536", None),
            ("example.com:80", None),
        ] {
            let refused = parse_bind(text).expect_err(text);
            assert_eq!(refused.help.as_deref(), help, "{text}");
        }
    }
}
