//! Texts that stand for something: durations, sizes, percents, addresses, accounts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use mainstay_ids::duration;
use mainstay_model::route::MatchError;
use mainstay_model::service::AddressSpec;
use mainstay_model::{HostName, HostPattern, PathPrefix, Share};

use super::limits::USER_LEN_MAX;
use super::refusal::{Refused, quoted};

/// A duration, with a guess at what was meant when it is none.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, Refused> {
    duration::parse(text).map_err(|error| {
        let refused = Refused::value(format!("{error}; found {}", quoted(text)));
        match likely_duration(text) {
            Some(likely) => refused.help(format!("did you mean `{likely}`?")),
            None => refused,
        }
    })
}

/// `1.5s`, `10 sec`, `10` as the duration that they surely mean.
fn likely_duration(text: &str) -> Option<String> {
    let plain = text.replace([' ', '_'], "").to_lowercase();
    let number_len = plain
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(plain.len());
    let (number, unit) = plain.split_at(number_len);
    let unit_ms = match unit {
        "ms" | "msec" | "millis" | "milliseconds" => 1.0,
        "" | "s" | "sec" | "secs" | "second" | "seconds" => 1000.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60_000.0,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600_000.0,
        "d" | "day" | "days" => 86_400_000.0,
        _ => return None,
    };
    let seconds = number.parse::<f64>().ok()? * unit_ms / 1000.0;
    let likely = duration::display(Duration::try_from_secs_f64(seconds).ok()?);
    duration::parse(&likely).ok().map(|_| likely)
}

const SIZE_UNITS: [(&str, u64); 7] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// A size: a whole number with a unit, `10MiB` or `10MB`.
pub(crate) fn parse_size(text: &str) -> Result<u64, Refused> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let known = SIZE_UNITS.iter().find(|(name, _)| *name == unit);
    let refused = |message: &str| Refused::value(format!("{message}; found {}", quoted(text)));
    if let (Some((_, bytes)), false) = (known, number.is_empty()) {
        let number = number.parse::<u64>().ok();
        return number
            .and_then(|number| number.checked_mul(*bytes))
            .ok_or_else(|| refused("a size of more than 16 EiB is surely a mistake"));
    }
    let units = "a size is a whole number with B, KB, MB, GB, KiB, MiB or GiB, as in `10MiB`";
    let letter = unit.trim().chars().next().map(|c| c.to_ascii_uppercase());
    let guess = match letter.filter(|c| !number.is_empty() && "KMG".contains(*c)) {
        Some(letter) if unit.to_lowercase().contains('i') => format!("`{number}{letter}iB`"),
        Some(letter) => format!("`{number}{letter}iB` or `{number}{letter}B`"),
        None if unit.is_empty() && !number.is_empty() => format!("`{number}B`"),
        None => return Err(refused(units)),
    };
    Err(refused(units).help(format!("did you mean {guess}?")))
}

/// A size so that [`parse_size`] reads it back.
pub(crate) fn display_size(bytes: u64) -> String {
    let unit = |(_, size): &&(&str, u64)| bytes.is_multiple_of(*size);
    let binary = SIZE_UNITS[..4].iter().rfind(unit);
    binary.map_or_else(
        || format!("{bytes}B"),
        |(name, size)| format!("{}{name}", bytes / size),
    )
}

/// A share of requests from 0 % to 100 %.
pub(super) fn parse_weight(text: &str) -> Result<Share, Refused> {
    if text == "0%" {
        return Ok(Share::NONE);
    }
    let ppm = parse_share(text)?;
    Share::from_ppm(ppm).map_err(|error| Refused::value(error.to_string()))
}

/// A share of requests above 0 % and up to 100 %, in parts per million.
pub(crate) fn parse_share(text: &str) -> Result<u32, Refused> {
    let wrong = || {
        let message = "a share is a percentage above 0% and up to 100%, with up to four decimals, \
                       as in `99.95%`";
        Refused::value(format!("{message}; found {}", quoted(text)))
    };
    let Some(number) = text.strip_suffix('%') else {
        let percent = text.trim_end();
        return Err(match parse_share(&format!("{percent}%")) {
            Ok(_) if !percent.ends_with('%') => wrong().help(format!("did you mean `{percent}%`?")),
            _ => wrong(),
        });
    };
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 4 {
        return Err(wrong());
    }
    let ppm = format!("{whole}{decimals:0<4}").parse::<u32>();
    ppm.ok()
        .filter(|ppm| (1..=1_000_000).contains(ppm))
        .ok_or_else(wrong)
}

/// A step as a whole percentage.
pub(crate) fn parse_step(text: &str) -> Result<NonZeroU32, Refused> {
    let percent = text.strip_suffix('%').filter(|number| {
        // `u32::from_str` would take a sign.
        number.bytes().all(|b| b.is_ascii_digit())
    });
    let percent = percent.and_then(|number| number.parse::<NonZeroU32>().ok());
    percent
        .filter(|percent| percent.get() <= 100)
        .ok_or_else(|| {
            let message = "a step is a whole percentage from `1%` to `100%`, or a number";
            let refused = Refused::value(format!("{message}; found {}", quoted(text)));
            match text.parse::<u32>() {
                Ok(number) => refused.help(format!(
                    "write {number} without quotes for {number} instances at a time, or \
                     `{number}%`"
                )),
                Err(_) => refused,
            }
        })
}

/// A service address: `auto`, or an address and port. Whether a node serves it is not known here.
pub(crate) fn parse_address(text: &str) -> Result<AddressSpec, Refused> {
    const EXPECTED: &str =
        "an address is `auto`, or an IP address with a port, as in `127.96.0.10:8080`";
    if text == "auto" {
        return Ok(AddressSpec::Auto);
    }
    let Ok(address) = text.parse::<SocketAddr>() else {
        let refused = Refused::value(format!("{EXPECTED}; found {}", quoted(text)));
        let port = text.rsplit_once(':').map_or(text, |(_, port)| port);
        let guess = match (text.parse::<IpAddr>(), port.parse::<NonZeroU16>()) {
            (Ok(ip), _) => SocketAddr::new(ip, 8080).to_string(),
            (Err(_), Ok(port)) => format!("{EXAMPLE_IP}:{port}"),
            (Err(_), Err(_)) => return Err(refused),
        };
        return Err(refused.help(format!("did you mean `{guess}`?")));
    };
    if address.ip().is_unspecified() || address.ip().is_multicast() {
        let message = format!("{} is no address of one service", address.ip());
        let help = format!("did you mean `{EXAMPLE_IP}:{}`?", address.port());
        return Err(Refused::value(message).help(help));
    }
    if address.port() == 0 {
        let help = "write the port, or `address = \"auto\"` and Mainstay picks an address";
        return Err(Refused::value("port 0 is not a port to be reached at").help(help));
    }
    Ok(AddressSpec::Fixed(address))
}

/// Not 127.0.0.1, where the gateway's entry and the instances listen.
const EXAMPLE_IP: Ipv4Addr = Ipv4Addr::new(127, 96, 0, 10);

/// A host name, or `*.` and one.
pub(super) fn parse_host_pattern(text: &str) -> Result<HostPattern, Refused> {
    match HostPattern::parse(text) {
        Ok(pattern) => Ok(pattern),
        Err(MatchError::HostWildcard) => {
            let message = format!("{}; found {}", MatchError::HostWildcard, quoted(text));
            Err(Refused::value(message).help("without `host`, any host matches"))
        }
        Err(_) => parse_host(text).map(HostPattern::from),
    }
}

/// A host name, without port and without wildcards.
pub(crate) fn parse_host(text: &str) -> Result<HostName, Refused> {
    HostName::parse(text).map_err(|error| {
        let refused = Refused::value(format!("{error}; found {}", quoted(text)));
        let bare = text.rsplit_once("://").map_or(text, |(_, rest)| rest);
        let bare = bare.split_once('/').map_or(bare, |(host, _)| host);
        let bare = bare.split_once(':').map_or(bare, |(host, _)| host);
        let bare = bare.trim_end_matches('.');
        match HostName::parse(bare) {
            _ if text.contains('*') => refused.help("one host is named here: a wildcard cannot be"),
            Ok(host) => refused.help(format!("did you mean `{host}`?")),
            Err(_) => refused,
        }
    })
}

/// The beginning of a path.
pub(crate) fn parse_path(text: &str) -> Result<PathPrefix, Refused> {
    PathPrefix::parse(text).map_err(|error| {
        let refused = Refused::value(format!("{error}; found {}", quoted(text)));
        let bare = text.split_once("://").map_or(text, |(_, rest)| {
            rest.split_once('/').map_or("", |(_, path)| path)
        });
        let bare = bare.split(['?', '#']).next().unwrap_or_default();
        match PathPrefix::parse(&format!("/{}", bare.trim_start_matches('/'))) {
            Ok(path) => refused.help(format!("did you mean `{path}`?")),
            Err(_) => refused,
        }
    })
}

/// The name of an account.
pub(crate) fn parse_user(text: &str) -> Result<String, Refused> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    let start = |b: &u8| b.is_ascii_alphabetic() || *b == b'_';
    let starts = text.as_bytes().first().is_some_and(start);
    if starts && text.len() <= USER_LEN_MAX && text.bytes().all(legal) {
        return Ok(text.to_owned());
    }
    let message = format!(
        "an account's name has 1 to {USER_LEN_MAX} characters of a-z, 0-9, `_`, `-` and `.`, and \
         starts with a letter or `_`; found {}",
        quoted(text)
    );
    let refused = Refused::value(message);
    Err(match text.parse::<u32>() {
        Ok(_) => refused.help("write the account's name instead of its number"),
        Err(_) => refused,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_back_as_they_were_written() {
        for text in ["0GiB", "1B", "4KiB", "10MiB", "2GiB", "1500B"] {
            let size = parse_size(text).expect("legal");
            assert_eq!(display_size(size), text);
        }
        assert_eq!(parse_size("10MB").ok(), Some(10_000_000));
        for text in ["", "MiB", "10", "10M", "-1B", "1.5MiB", "99999999999GiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_exact_to_a_millionth() {
        for (text, ppm) in [
            ("100%", 1_000_000),
            ("99.95%", 999_500),
            ("99.9999%", 999_999),
            ("0.0001%", 1),
        ] {
            assert_eq!(parse_share(text).ok(), Some(ppm), "{text}");
        }
        for text in [
            "",
            "%",
            "0%",
            "101%",
            "100.0001%",
            "99.99999%",
            "99.%",
            "+9%",
            "99,9%",
        ] {
            assert!(parse_share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_was_surely_meant_by_a_duration_is_guessed() {
        for (typed, meant) in [
            ("10", Some("10s")),
            ("1.5s", Some("1s500ms")),
            ("10 sec", Some("10s")),
            ("2 Minutes", Some("2m")),
            ("-1s", None),
            ("soon", None),
            ("1e9s", None),
        ] {
            assert_eq!(likely_duration(typed).as_deref(), meant, "{typed}");
        }
    }
}
