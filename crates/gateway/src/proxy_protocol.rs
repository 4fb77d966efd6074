//! HAProxy's PROXY protocol, versions 1 and 2: who the client is, told by a proxy in front before
//! the first byte of the connection. Pure: bytes in, a header out, and back.
//!
//! Specification: "The PROXY protocol, Versions 1 & 2", Willy Tarreau, section 2.
//!
//! ```text
//! 1:  PROXY TCP4 192.0.2.1 203.0.113.9 49152 5671\r\n            at most 107 bytes
//!
//! 2:  0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A    the signature
//!     21                                     version 2; 0: LOCAL, 1: PROXY
//!     11                                     1 IPv4, 2 IPv6, 3 unix; 1 stream
//!     00 0C                                  how much follows
//!     source, destination, ports             12, 36 or 216 bytes
//!     type, length, value, ...               extensions, which are skipped
//! ```
//!
//! A header is believed only from networks that the operator named, and demanded from them: whoever
//! may connect could else say any address that he likes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::str;

use mainstay_model::listen::ProxyVersion;

/// The longest header of version 1, with its line end (2.1).
const V1_LEN_MAX: usize = 107;

/// The longest header that is read. Version 2 allows 64 KiB of extensions; a certificate's names
/// and an identifier fit into this, and more would only be memory for who sends it slowly.
pub const LEN_MAX: usize = 4096;

const V1_START: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family, length.
const V2_HEAD_LEN: usize = 16;
/// Of two paths of unix sockets.
const UNIX_LEN: usize = 216;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The proxy speaks for itself (a check), or does not know for whom: the connection's own
    /// addresses hold.
    Local,
    /// It speaks for this client.
    Tcp {
        /// The client.
        source: SocketAddr,
        /// Where the client connected to.
        destination: SocketAddr,
    },
    /// It speaks for a client of a unix socket, which has no address.
    Unix,
}

/// Why bytes are not a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They begin as no header does.
    #[error("it does not begin as a header of the PROXY protocol")]
    Start,
    /// Version 1: no line end where there must be one.
    #[error("its line does not end within {V1_LEN_MAX} bytes, or not with CRLF")]
    Line,
    /// Version 1: words, addresses or ports are not as they must be.
    #[error("its line is not `PROXY TCP4|TCP6 source destination port port`")]
    Words,
    /// Version 2: another version or an unknown command.
    #[error("its version or command is unknown")]
    Command,
    /// Version 2: an unknown family, or datagrams.
    #[error("its address family or transport is unknown or none of a TCP connection")]
    Family,
    /// Version 2: what follows is too short for the addresses, or extensions do not fit.
    #[error("its length does not fit its content")]
    Length,
    /// Version 2: more than [`LEN_MAX`].
    #[error("it is longer than {LEN_MAX} bytes")]
    TooLong,
}

/// Reads the header at the beginning of `bytes`: with its length, or `None` while more is needed.
///
/// The same for every cut: what is refused is refused at the first byte that shows it, and what
/// follows the header is never looked at.
pub fn decode(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    if begins_with(bytes, V2_SIGNATURE) {
        return decode_v2(bytes);
    }
    if begins_with(bytes, V1_START) {
        return decode_v1(bytes);
    }
    Err(Malformed::Start)
}

/// Whether `bytes` begin with `start`, as far as they go.
fn begins_with(bytes: &[u8], start: &[u8]) -> bool {
    let common = bytes.len().min(start.len());
    bytes[..common] == start[..common]
}

fn decode_v1(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let window = &bytes[..bytes.len().min(V1_LEN_MAX)];
    let Some(end) = window.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        // Of the longest line the last two bytes are its end.
        return if window.len() > V1_LEN_MAX - 2 {
            Err(Malformed::Line)
        } else {
            Ok(None)
        };
    };
    match (window[end], window.get(end + 1)) {
        (b'\r', Some(b'\n')) => {
            let header = words_of_v1(&window[..end])?;
            Ok(Some((header, end + 2)))
        }
        (b'\r', None) if end + 1 < V1_LEN_MAX => Ok(None),
        _ => Err(Malformed::Line),
    }
}

fn words_of_v1(line: &[u8]) -> Result<Header, Malformed> {
    let line = str::from_utf8(line).map_err(|_| Malformed::Words)?;
    // Exactly one blank between words: two parsers that count blanks differently must not see two
    // clients.
    let mut words = line.split(' ').skip(1);
    let mut word = || words.next().ok_or(Malformed::Words);
    let (source, destination) = match word()? {
        // What follows is to be ignored (2.1).
        "UNKNOWN" => return Ok(Header::Local),
        "TCP4" => (ip::<Ipv4Addr>(word()?)?, ip::<Ipv4Addr>(word()?)?),
        "TCP6" => (ip::<Ipv6Addr>(word()?)?, ip::<Ipv6Addr>(word()?)?),
        _ => return Err(Malformed::Words),
    };
    let (source_port, destination_port) = (port(word()?)?, port(word()?)?);
    if words.next().is_some() {
        return Err(Malformed::Words);
    }
    Ok(Header::Tcp {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

fn ip<A: str::FromStr + Into<IpAddr>>(word: &str) -> Result<IpAddr, Malformed> {
    let address: A = word.parse().map_err(|_| Malformed::Words)?;
    Ok(address.into())
}

fn port(word: &str) -> Result<u16, Malformed> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = word.len() > 1 && word.starts_with('0');
    match word.parse() {
        Ok(port) if plain && !leading_zero => Ok(port),
        Ok(_) | Err(_) => Err(Malformed::Words),
    }
}

/// What a header of version 2 is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Local,
    V4,
    V6,
    Unix,
}

fn decode_v2(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    // Judged as soon as they are there, so that the same is refused for every cut.
    let Some(&command) = bytes.get(12) else {
        return Ok(None);
    };
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed::Command),
    };
    let Some(&family) = bytes.get(13) else {
        return Ok(None);
    };
    let kind = match (is_local, family) {
        // Whatever the family is, it is to be ignored (2.2).
        (true, _) | (false, 0x00) => Kind::Local,
        (false, 0x11) => Kind::V4,
        (false, 0x21) => Kind::V6,
        (false, 0x31) => Kind::Unix,
        (false, _) => return Err(Malformed::Family),
    };
    let Some(&[high, low]) = bytes.get(14..V2_HEAD_LEN).and_then(<[u8]>::as_array) else {
        return Ok(None);
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    let addresses_len = match kind {
        Kind::Local => 0,
        Kind::V4 => 12,
        Kind::V6 => 36,
        Kind::Unix => UNIX_LEN,
    };
    if len < addresses_len {
        return Err(Malformed::Length);
    }
    if V2_HEAD_LEN + len > LEN_MAX {
        return Err(Malformed::TooLong);
    }
    let Some(content) = bytes.get(V2_HEAD_LEN..V2_HEAD_LEN + len) else {
        return Ok(None);
    };
    let header = match kind {
        Kind::Local => return Ok(Some((Header::Local, V2_HEAD_LEN + len))),
        Kind::V4 => tcp_of_v2::<4>(content),
        Kind::V6 => tcp_of_v2::<16>(content),
        Kind::Unix => Some(Header::Unix),
    };
    check_extensions(&content[addresses_len..])?;
    // Cannot be missing, since the length was compared.
    let header = header.ok_or(Malformed::Length)?;
    Ok(Some((header, V2_HEAD_LEN + len)))
}

/// Two addresses of `N` bytes each, then two ports.
fn tcp_of_v2<const N: usize>(content: &[u8]) -> Option<Header>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = content.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let (destination_port, _) = rest.split_first_chunk::<2>()?;
    let address = |ip: &[u8; N], port: &[u8; 2]| {
        SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(*port))
    };
    Some(Header::Tcp {
        source: address(source, source_port),
        destination: address(destination, destination_port),
    })
}

/// Extensions are skipped, but must be some: type, length, value, to the end.
fn check_extensions(mut bytes: &[u8]) -> Result<(), Malformed> {
    while !bytes.is_empty() {
        let Some((&[_, high, low], rest)) = bytes.split_first_chunk::<3>() else {
            return Err(Malformed::Length);
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        bytes = rest.get(len..).ok_or(Malformed::Length)?;
    }
    Ok(())
}

/// Writes a header.
pub fn encode(version: ProxyVersion, header: &Header) -> Vec<u8> {
    match version {
        ProxyVersion::V1 => encode_v1(header),
        ProxyVersion::V2 => encode_v2(header),
    }
}

fn encode_v1(header: &Header) -> Vec<u8> {
    let line = match header {
        Header::Local | Header::Unix => "PROXY UNKNOWN\r\n".to_owned(),
        Header::Tcp {
            source,
            destination,
        } => {
            let (source, destination) = of_one_family(*source, *destination);
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            let (from_port, to_port) = (source.port(), destination.port());
            format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n")
        }
    };
    line.into_bytes()
}

fn encode_v2(header: &Header) -> Vec<u8> {
    let mut bytes = V2_SIGNATURE.to_vec();
    match header {
        Header::Local => bytes.extend([0x20, 0x00, 0, 0]),
        // PROXY for something without an address that the receiver could use.
        Header::Unix => bytes.extend([0x21, 0x00, 0, 0]),
        Header::Tcp {
            source,
            destination,
        } => {
            match of_one_family(*source, *destination) {
                (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
                    bytes.extend([0x21, 0x11, 0, 12]);
                    bytes.extend(source.ip().octets());
                    bytes.extend(destination.ip().octets());
                }
                (source, destination) => {
                    bytes.extend([0x21, 0x21, 0, 36]);
                    bytes.extend(mapped(source.ip()).octets());
                    bytes.extend(mapped(destination.ip()).octets());
                }
            }
            bytes.extend(source.port().to_be_bytes());
            bytes.extend(destination.port().to_be_bytes());
        }
    }
    bytes
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// A header has room for one family. An IPv4 client of an IPv6 socket is one of IPv4; only if the
/// two really differ the IPv4 address is written as one of IPv6.
fn of_one_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (
            SocketAddrV4::new(from, source.port()).into(),
            SocketAddrV4::new(to, destination.port()).into(),
        ),
        (from, to) => (
            SocketAddrV6::new(mapped(from), source.port(), 0, 0).into(),
            SocketAddrV6::new(mapped(to), destination.port(), 0, 0).into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{
        Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
    };

    fn tcp(source: &str, destination: &str) -> Header {
        Header::Tcp {
            source: source.parse().expect("an address"),
            destination: destination.parse().expect("an address"),
        }
    }

    fn v2(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
        let len = u16::try_from(content.len()).expect("short").to_be_bytes();
        let head = [V2_SIGNATURE.as_slice(), &[command, family], &len];
        [head.concat(), content.to_vec()].concat()
    }

    /// Every cut of `bytes` asks for more, and with anything behind it the result is the same.
    fn decoded(bytes: &[u8]) -> (Header, usize) {
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
        let result = decode(bytes).expect("legal").expect("whole");
        let more = [bytes, b"PROXY and whatever follows"].concat();
        assert_eq!(decode(&more), Ok(Some(result)));
        result
    }

    #[test]
    fn the_lines_of_version_1_are_read_at_every_cut() {
        let line = "PROXY TCP4 192.0.2.1 203.0.113.9 49152 5671\r\n";
        let header = tcp("192.0.2.1:49152", "203.0.113.9:5671");
        assert_eq!(decoded(line.as_bytes()), (header, line.len()));
        let line = "PROXY TCP6 2001:db8::1 ::1 1 65535\r\n";
        let header = tcp("[2001:db8::1]:1", "[::1]:65535");
        assert_eq!(decoded(line.as_bytes()), (header, line.len()));
        for line in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ff:: ff:: 1 2\r\n"] {
            assert_eq!(decoded(line.as_bytes()), (Header::Local, line.len()));
        }
        let full = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let longest = format!("PROXY UNKNOWN {full} {full} 65535 65535\r\n");
        assert_eq!(longest.len(), V1_LEN_MAX);
        assert_eq!(decoded(longest.as_bytes()), (Header::Local, V1_LEN_MAX));
    }

    #[test]
    fn what_is_no_line_of_version_1_is_refused() {
        for (line, why) in [
            ("GET / HTTP/1.1\r\n", Malformed::Start),
            ("PROXX", Malformed::Start),
            ("proxy TCP4", Malformed::Start),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", Malformed::Line),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rX", Malformed::Line),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", Malformed::Words),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", Malformed::Words),
            ("PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", Malformed::Words),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", Malformed::Words),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", Malformed::Words),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", Malformed::Words),
            ("PROXY TCP4 1.2.3.4 ::1 1 2\r\n", Malformed::Words),
            ("PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n", Malformed::Words),
            ("PROXY TCP6 fe80::1%1 ::1 1 2\r\n", Malformed::Words),
            ("PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", Malformed::Words),
            ("PROXY \r\n", Malformed::Words),
            ("PROXY TCP4 \u{e9}\r\n", Malformed::Words),
        ] {
            assert_eq!(decode(line.as_bytes()), Err(why), "{line:?}");
        }
        let endless = [V1_START, [b'x'; 200].as_slice()].concat();
        for len in V1_START.len()..endless.len() {
            let expected = if len > V1_LEN_MAX - 2 {
                Err(Malformed::Line)
            } else {
                Ok(None)
            };
            assert_eq!(decode(&endless[..len]), expected, "{len}");
        }
    }

    #[test]
    fn the_headers_of_version_2_are_read_at_every_cut_and_extensions_skipped() {
        let v4 = [192, 0, 2, 1, 203, 0, 113, 9, 0xC0, 0, 0x16, 0x27];
        let header = tcp("192.0.2.1:49152", "203.0.113.9:5671");
        assert_eq!(decoded(&v2(0x21, 0x11, &v4)), (header, 28));
        // A server name and no operation.
        let extensions = [2, 0, 3, b'a', b'.', b'b', 4, 0, 0];
        let with = [v4.as_slice(), &extensions].concat();
        assert_eq!(decoded(&v2(0x21, 0x11, &with)), (header, 37));
        let v6 = [Ipv6Addr::LOCALHOST.octets(), Ipv6Addr::UNSPECIFIED.octets()].concat();
        let v6 = [v6.as_slice(), &[0, 1, 0, 2]].concat();
        assert_eq!(
            decoded(&v2(0x21, 0x21, &v6)),
            (tcp("[::1]:1", "[::]:2"), 52)
        );
        assert_eq!(
            decoded(&v2(0x21, 0x31, &[7; UNIX_LEN])),
            (Header::Unix, 232)
        );
        assert_eq!(decoded(&v2(0x20, 0x00, &[])), (Header::Local, 16));
        assert_eq!(decoded(&v2(0x20, 0x11, &v4)), (Header::Local, 28));
        assert_eq!(decoded(&v2(0x20, 0xFF, &[9; 500])), (Header::Local, 516));
        assert_eq!(decoded(&v2(0x21, 0x00, &[9; 5])), (Header::Local, 21));
    }

    #[test]
    fn what_is_no_header_of_version_2_is_refused() {
        let v4 = [0u8; 12];
        for (bytes, why) in [
            (v2(0x11, 0x11, &v4), Malformed::Command),
            (v2(0x22, 0x11, &v4), Malformed::Command),
            (v2(0x21, 0x12, &v4), Malformed::Family),
            (v2(0x21, 0x10, &v4), Malformed::Family),
            (v2(0x21, 0x41, &v4), Malformed::Family),
            (v2(0x21, 0x11, &v4[1..]), Malformed::Length),
            (v2(0x21, 0x21, &v4), Malformed::Length),
            (v2(0x21, 0x31, &[0; UNIX_LEN - 1]), Malformed::Length),
            (v2(0x21, 0x11, &[0; 13]), Malformed::Length),
            (
                v2(0x21, 0x11, &[&v4[..], &[1, 0, 9, 1]].concat()),
                Malformed::Length,
            ),
            (v2(0x21, 0x11, &[0; LEN_MAX]), Malformed::TooLong),
        ] {
            assert_eq!(decode(&bytes), Err(why), "{bytes:?}");
        }
        assert_eq!(decode(b"\r\n\r\n\0\r\nQUIT\r"), Err(Malformed::Start));
    }

    #[test]
    fn addresses_of_two_families_are_told_as_ipv6_and_mapped_ones_as_ipv4() {
        let mixed = tcp("192.0.2.1:1", "[::1]:2");
        assert_eq!(
            encode(ProxyVersion::V1, &mixed),
            b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n"
        );
        assert_eq!(encode(ProxyVersion::V2, &mixed).len(), 52);
        let mapped = tcp("[::ffff:192.0.2.1]:1", "[::ffff:10.0.0.1]:2");
        assert_eq!(
            encode(ProxyVersion::V1, &mapped),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n"
        );
        assert_eq!(encode(ProxyVersion::V2, &mapped).len(), 28);
    }

    fn v4_address() -> impl Strategy<Value = SocketAddr> {
        any::<(u32, u16)>().prop_map(|(bits, port)| (Ipv4Addr::from_bits(bits), port).into())
    }

    fn v6_address() -> impl Strategy<Value = SocketAddr> {
        let address = any::<(u128, u16)>();
        let address = address.prop_map(|(bits, port)| (Ipv6Addr::from_bits(bits), port).into());
        address.prop_filter("mapped", |address: &SocketAddr| {
            address.ip() == address.ip().to_canonical()
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            (source, destination) in prop_oneof![
                (v4_address(), v4_address()),
                (v6_address(), v6_address()),
            ],
            version in prop_oneof![Just(ProxyVersion::V1), Just(ProxyVersion::V2)],
        ) {
            let header = Header::Tcp { source, destination };
            let bytes = encode(version, &header);
            prop_assert_eq!(decoded(&bytes), (header, bytes.len()));
        }

        /// Of anything: no panic, a length within the bytes, the same verdict at each later cut.
        #[test]
        fn a_verdict_stands_whatever_comes_after(
            start in prop_oneof![
                Just(Vec::new()), Just(V1_START.to_vec()), Just(V2_SIGNATURE.to_vec()),
                Just(v2(0x21, 0x11, &[])[..15].to_vec()),
            ],
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [start, rest].concat();
            let mut verdict = None;
            for cut in 0..=bytes.len() {
                let now = decode(&bytes[..cut]);
                if let Ok(Some((_, len))) = now {
                    prop_assert!(len <= cut);
                }
                match verdict {
                    Some(before) => prop_assert_eq!(now, before),
                    None if now != Ok(None) => verdict = Some(now),
                    None => {}
                }
            }
        }
    }
}
