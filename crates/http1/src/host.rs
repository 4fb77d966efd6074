//! The host that a request is for.

use core::net::Ipv6Addr;

/// The longest name of DNS with its dots (RFC 1035, 2.3.4), with a final one.
const NAME_LEN_MAX: usize = 254;

/// Whether this is `uri-host [ ":" port ]` (RFC 9110, 7.2), in the form in which hosts are used:
/// a name of letters, digits, `-`, `_` and dots, or an address. The grammar would allow
/// percent-encoding, commas and more in names; no name has them, and readers differ about them.
pub(crate) fn is_host(text: &[u8]) -> bool {
    let (host, port) = match text {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else {
                return false;
            };
            return is_ipv6(&rest[..end]) && is_port_or_nothing(&rest[end + 1..]);
        }
        _ => text.split_at(memchr::memchr(b':', text).unwrap_or(text.len())),
    };
    is_name(host) && is_port_or_nothing(port)
}

fn is_ipv6(text: &[u8]) -> bool {
    core::str::from_utf8(text).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

fn is_name(name: &[u8]) -> bool {
    let mut before = b'.';
    for byte in name {
        let fits = match byte {
            b'.' => before != b'.',
            b'-' | b'_' => true,
            _ => byte.is_ascii_alphanumeric(),
        };
        if !fits {
            return false;
        }
        before = *byte;
    }
    !name.is_empty() && name.len() <= NAME_LEN_MAX
}

/// `:` and 1 to 65535, without zeros in front.
fn is_port_or_nothing(text: &[u8]) -> bool {
    match text {
        [] => true,
        [b':', digits @ ..] => {
            let plain = digits.iter().all(u8::is_ascii_digit) && digits.first() != Some(&b'0');
            let number = core::str::from_utf8(digits).map(str::parse::<u16>);
            plain && matches!(number, Ok(Ok(_)))
        }
        _ => false,
    }
}
