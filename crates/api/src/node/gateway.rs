//! The keys of `[gateway]`.

use std::net::SocketAddr;
use std::time::Duration;

use mainstay_model::GatewayLimits;
use mainstay_model::gateway::{AccessLog, DRAIN, GatewaySettings, StatsAuth};
use mainstay_model::listen::Trusted;
use toml::de::DeValue;

use crate::file::problem::Code;
use crate::file::refusal::{Refused, quoted};
use crate::file::service::span;
use crate::file::walk::{Entry, Section};

use super::address::{bind, parse_bind};
use super::limits::limits;
use super::{Gateway, defaults, later};

/// More threads than any machine has processors for are surely a mistake; each is a socket more.
const WORKERS: std::ops::RangeInclusive<u32> = 1..=256;

/// The shortest password: whoever finds the port may try as many as he likes.
const PASSWORD_LEN_MIN: usize = 8;

const AUTH_HELP: &str = "write `stats_auth = \"admin:${STATS_PASSWORD}\"`";

pub(super) fn default_gateway() -> Gateway {
    Gateway {
        http: parse_bind(defaults::HTTP).expect("the default is an address"),
        stats: Some(parse_bind(defaults::STATS).expect("the default is an address")),
        workers: None,
        settings: GatewaySettings::default(),
    }
}

pub(super) fn gateway(entry: &Entry<'_, '_>) -> Option<Gateway> {
    let help = Some("write `[gateway]` with keys below it".to_owned());
    entry
        .section("a table", help, later::GATEWAY, keys)
        .flatten()
}

/// The order is that of the list in messages.
fn keys(s: &mut Section<'_, '_>) -> Option<Gateway> {
    let default = default_gateway();
    let http = s.or("http", default.http, bind);
    let stats_entry = s.take("stats");
    let stats = stats_entry.as_ref().map_or(Some(default.stats), stats);
    let stats_auth = s.optional("stats_auth", auth);
    if let (Some(Some(address)), Some(None), Some(entry)) = (stats, &stats_auth, &stats_entry)
        && !address.ip().is_loopback()
    {
        let message = format!(
            "the statistics at {address} can be reached from other machines, so `stats_auth` is \
             required"
        );
        let refused = Refused::new(Code::MissingKey, message);
        entry.refuse(refused.help(format!("{AUTH_HELP}, or listen on loopback only")));
    }
    let workers = s.optional("workers", |e| {
        e.integer(WORKERS).and_then(|n| u16::try_from(n).ok())
    });
    let access_log = s.or("access_log", defaults::ACCESS_LOG, Entry::boolean);
    let drain = s.or("drain", DRAIN, |e| span(e, Duration::ZERO));
    let accept_proxy = s.or("proxy", None, proxy);
    let limits = s.or("limits", GatewayLimits::default(), limits);
    Some(Gateway {
        http: http?,
        stats: stats?,
        workers: workers?,
        settings: GatewaySettings {
            limits: limits?,
            access_log: access(access_log?),
            stats_auth: stats_auth?,
            drain: drain?,
            accept_proxy: accept_proxy?,
            // Tables of their own: `keys` puts them in.
            listens: Vec::new(),
            // The whole file says it.
            forwarded: Vec::new(),
        },
    })
}

fn access(on: bool) -> AccessLog {
    if on { AccessLog::On } else { AccessLog::Off }
}

/// Proxies in front of the entry.
#[expect(
    clippy::option_option,
    reason = "refused and not accepted are two things"
)]
fn proxy(entry: &Entry<'_, '_>) -> Option<Option<Trusted>> {
    let Some(networks) = super::listen::proxy(entry)? else {
        return Some(None);
    };
    match Trusted::new(networks) {
        Ok(trusted) => Some(Some(trusted)),
        Err(error) => {
            entry.refuse(super::listen::told(&error));
            None
        }
    }
}

/// An address, or `"off"`.
#[expect(clippy::option_option, reason = "refused and off are two things")]
fn stats(entry: &Entry<'_, '_>) -> Option<Option<SocketAddr>> {
    match entry.value() {
        DeValue::String(text) if text.as_ref() == "off" => Some(None),
        _ => bind(entry).map(Some),
    }
}

fn auth(entry: &Entry<'_, '_>) -> Option<StatsAuth> {
    entry.text("a name and a password", AUTH_HELP, |text| {
        let wrong = |message: &str| Err(Refused::value(message).help(AUTH_HELP));
        // What was found may be a password, which no message repeats.
        let Some((user, password)) = text.split_once(':') else {
            return wrong("`stats_auth` is a name and a password with a colon between");
        };
        if user.is_empty() || !user.bytes().all(|b| b.is_ascii_graphic()) {
            let message = format!(
                "a name is letters, digits and signs; found {}",
                quoted(user)
            );
            return Err(Refused::value(message).help(AUTH_HELP));
        }
        if password.chars().count() < PASSWORD_LEN_MIN || password.contains(char::is_control) {
            let message = format!(
                "the password has at least {PASSWORD_LEN_MIN} characters, none of which is a \
                 control character"
            );
            return wrong(&message);
        }
        Ok(StatsAuth {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    })
}
