//! The keys of `[broker]`.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use crate::file::problem::Code;
use crate::file::refusal::Refused;
use crate::file::service::span;
use crate::file::units::parse_size;
use crate::file::walk::{Entry, Section};

use super::address::bind;
use super::forward::metrics;
use super::keys::path;
use super::listen::Taken;
use super::{Broker, BrokerTls, CertificateFile, CertificateFiles, Outside, defaults, later};

/// Less than this, and the broker blocks publishers before it has a queue.
const MEMORY_MIN: u64 = 64 * 1024 * 1024;

/// Less than this, and consumers that are only slow lose their channels.
const CONSUMER_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// As many as a machine has memory for: an empty one takes some kilobytes.
const QUEUES: RangeInclusive<u32> = 1..=1_000_000;

pub(super) fn default_broker() -> Broker {
    Broker {
        bind: defaults::broker(),
        memory: None,
        disk_free: defaults::DISK_FREE,
        tls: None,
        consumer_timeout: defaults::CONSUMER_TIMEOUT,
        queues: None,
        metrics: Some(defaults::broker_metrics()),
    }
}

pub(super) fn broker(
    entry: &Entry<'_, '_>,
    taken: &[Taken],
    outside: Outside<'_>,
) -> Option<Broker> {
    let help = "write `[broker]` with `bind = \"127.0.0.1:5672\"` below it".to_owned();
    entry
        .section("a table", Some(help), later::BROKER, |s| {
            keys(s, taken, outside)
        })
        .flatten()
}

/// The order is that of the list in messages.
fn keys(s: &mut Section<'_, '_>, taken: &[Taken], outside: Outside<'_>) -> Option<Broker> {
    let bind = s.or("bind", defaults::broker(), |e| address(e, taken));
    let memory = s.optional("memory", |e| size(e, MEMORY_MIN));
    let disk_free = s.or("disk_free", defaults::DISK_FREE, |e| size(e, 0));
    let mut taken = taken.to_vec();
    taken.extend(bind.map(|address| Taken {
        address,
        by: "`bind` in `[broker]`",
    }));
    let beside = bind.unwrap_or(defaults::broker());
    let tls = s.optional("tls", |e| tls(e, beside, &taken, outside));
    let consumer_timeout = s.or("consumer_timeout", defaults::CONSUMER_TIMEOUT, patience);
    let queues = s.optional("queues", |e| e.integer(QUEUES));
    let metrics = s.or("metrics", Some(defaults::broker_metrics()), |e| {
        metrics(e, "the broker", "15692")
    });
    Some(Broker {
        bind: bind?,
        memory: memory?,
        disk_free: disk_free?,
        tls: tls?,
        consumer_timeout: consumer_timeout?,
        queues: queues?,
        metrics: metrics?,
    })
}

fn tls(
    entry: &Entry<'_, '_>,
    beside: SocketAddr,
    taken: &[Taken],
    outside: Outside<'_>,
) -> Option<BrokerTls> {
    let help = "write `[broker.tls]` with `certificate` and `key` below it".to_owned();
    entry
        .section("a table", Some(help), later::BROKER_TLS, |s| {
            tls_keys(s, beside, taken, outside)
        })
        .flatten()
}

/// The order is that of the list in messages.
fn tls_keys(
    s: &mut Section<'_, '_>,
    beside: SocketAddr,
    taken: &[Taken],
    outside: Outside<'_>,
) -> Option<BrokerTls> {
    let usual = SocketAddr::new(beside.ip(), defaults::BROKER_TLS_PORT);
    let bind = s.or("bind", usual, |e| address(e, taken));
    let of = |entry: &Option<Entry<'_, '_>>| entry.as_ref().and_then(|e| path(e, outside.dir));
    let certificate_at = s.required(
        "certificate",
        "write for instance `certificate = \"/etc/mainstay/broker.crt\"`",
    );
    let certificate = of(&certificate_at);
    let key_at = s.required(
        "key",
        "write for instance `key = \"/etc/mainstay/broker.key\"`",
    );
    let key = of(&key_at);
    let client_ca_at = s.take("client_ca");
    let client_ca = match &client_ca_at {
        None => None,
        Some(entry) => Some(path(entry, outside.dir)?),
    };
    let files = CertificateFiles {
        certificate: certificate?,
        key: key?,
        client_ca,
    };
    if let Err(unfit) = (outside.look)(&files) {
        let at = match unfit.file {
            CertificateFile::Certificate => certificate_at,
            CertificateFile::Key => key_at,
            CertificateFile::ClientCa => client_ca_at,
        };
        at?.refuse(Refused::value(unfit.message).help(unfit.help));
        return None;
    }
    Some(BrokerTls { bind: bind?, files })
}

/// A duration. RabbitMQ's key of this name is a number of milliseconds.
fn patience(entry: &Entry<'_, '_>) -> Option<Duration> {
    if let DeValue::Integer(number) = entry.value() {
        let help =
            format!("RabbitMQ counts milliseconds; here write `consumer_timeout = \"{number}ms\"`");
        entry.wrong_type("a duration, as in `30m`", Some(help));
        return None;
    }
    span(entry, CONSUMER_TIMEOUT_MIN)
}

fn address(entry: &Entry<'_, '_>, taken: &[Taken]) -> Option<SocketAddr> {
    let address = bind(entry)?;
    if let Some(Taken { address, by }) = taken.iter().find(|taken| taken.address == address) {
        let refused = Refused::new(Code::Conflict, format!("{by} is {address} already"));
        entry.refuse(refused.help("choose another address for one of the two"));
        return None;
    }
    Some(address)
}

fn size(entry: &Entry<'_, '_>, least: u64) -> Option<u64> {
    entry.text("a size", "`\"1GiB\"`", |text| {
        let size = parse_size(text)?;
        if size < least {
            let message = format!("the broker needs {} MiB at least", least >> 20);
            return Err(Refused::value(message).help("a third of the machine's memory is usual"));
        }
        Ok(size)
    })
}
