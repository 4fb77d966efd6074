//! The tables `[vip.NAME]`: addresses that several machines can hold, and one holds.

use std::net::IpAddr;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use mainstay_ids::VipName;
use mainstay_model::VipSpec;
use mainstay_model::vip::{
    self as model, Floating, Hardware, OnDead, Preempt, TrackSpec, Tracked, VrrpVersion,
    check_together,
};
use toml::de::DeValue;

use crate::file::problem::Code;
use crate::file::refusal::{Refused, quoted};
use crate::file::service::span;
use crate::file::units::parse_duration;
use crate::file::walk::{Entry, Section};

use super::address::parse_bind;
use super::later;
use super::listen::word;

const TRACK_HELP: &str = "write `\"gateway\"`, `{ process = \"haproxy\" }`, `{ tcp = \":5672\" }` or `{ exec = [\"/usr/local/bin/check\"] }`";

const MS: Duration = Duration::from_millis(1);

/// Whether the node has a gateway, on which its addresses depend then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnGateway {
    Runs,
    No,
}

/// Reads the table of all floating addresses, by name. `None`: something in it was refused.
pub(super) fn vips(entry: &Entry<'_, '_>, own: OwnGateway) -> Option<Vec<VipSpec>> {
    let entries = entry.entries("a table of floating addresses", "`[vip.entry]`")?;
    if entries.len() > model::VIPS_MAX {
        let message = format!("a node has up to {} floating addresses", model::VIPS_MAX);
        let refused = Refused::new(Code::TooMuch, message);
        entry.refuse(refused.help("let addresses move together: `address` takes a list"));
        return None;
    }
    let mut read = Vec::new();
    let mut all = true;
    // All are read, so that each mistake is told.
    for (name, entry) in &entries {
        let Some(spec) = vip(name, entry, own) else {
            all = false;
            continue;
        };
        read.push(spec);
        for error in check_together(&read) {
            all = false;
            let refused = told(Code::Conflict, &error.to_string());
            entry.refuse(refused);
        }
    }
    all.then_some(read)
}

/// What the model says, with its remedy apart.
fn told(code: Code, text: &str) -> Refused {
    match text.split_once("; ") {
        Some((message, help)) => Refused::new(code, message).help(help),
        None => Refused::new(code, text),
    }
}

fn vip(name: &str, entry: &Entry<'_, '_>, own: OwnGateway) -> Option<VipSpec> {
    let parsed = VipName::parse(name);
    if let Err(error) = &parsed {
        let refused = Refused::value(format!("{error}; found {}", quoted(name)));
        entry.walk().refuse(&entry.at_key(), refused);
    }
    let help = format!("write `[vip.{name}]` with `address`, `interface` and `vrid` below it");
    let spec = entry
        .section("a table", Some(help), later::VIP, |s| {
            keys(s, parsed.ok(), own)
        })
        .flatten()?;
    let wrong = spec.check();
    for error in &wrong {
        entry.refuse(told(Code::Value, &error.to_string()));
    }
    wrong.is_empty().then_some(spec)
}

/// The order is that of the list in messages.
fn keys(s: &mut Section<'_, '_>, name: Option<VipName>, own: OwnGateway) -> Option<VipSpec> {
    let addresses = s.required(
        "address",
        "write for instance `address = \"10.0.0.100/32\"`",
    );
    let addresses = addresses.and_then(|e| several(&e, floating));
    let interface = s.required("interface", "write for instance `interface = \"eth0\"`");
    let interface = interface.and_then(|e| {
        e.text(
            "the name of an interface",
            "`interface = \"eth0\"`",
            |text| Ok::<String, Refused>(text.to_owned()),
        )
    });
    let vrid = s.required("vrid", "write `vrid = 51`, the same on all machines");
    let vrid = vrid.and_then(|e| number(&e));
    let version = s.or("version", VrrpVersion::V3, version);
    let priority = s.or("priority", PRIORITY, number);
    let preempt = s.or("preempt", Preempt::Never, preempt);
    let advert = s.or("advert", model::ADVERT, |e| span(e, MS));
    let peers = s.or("peers", Vec::new(), |e| several(e, address));
    let hardware = s.or("virtual_mac", Hardware::Own, hardware);
    let track = s.or("track", usual_track(own), |e| several(e, |e| track(e, own)));
    let on_dead = s.or("on_dead", OnDead::default(), |e| {
        let words = [
            ("yield-at-once", OnDead::YieldAtOnce),
            ("restart-then-yield", OnDead::RestartThenYield),
        ];
        word(e, &words)
    });
    let notify = s.or("notify", Vec::new(), command);
    Some(VipSpec {
        name: name?,
        interface: interface?,
        vrid: vrid?,
        version: version?,
        addresses: addresses?,
        priority: priority?,
        preempt: preempt?,
        advert: advert?,
        peers: peers?,
        hardware: hardware?,
        track: track?,
        on_dead: on_dead?,
        notify: notify?,
    })
}

const PRIORITY: NonZeroU8 = NonZeroU8::new(model::PRIORITY).expect("not zero");

fn usual_track(own: OwnGateway) -> Vec<TrackSpec> {
    match own {
        OwnGateway::Runs => vec![TrackSpec::of(Tracked::Gateway)],
        OwnGateway::No => Vec::new(),
    }
}

/// One thing, or a list of them.
fn several<T>(entry: &Entry<'_, '_>, one: impl Fn(&Entry<'_, '_>) -> Option<T>) -> Option<Vec<T>> {
    if let DeValue::Array(_) = entry.value() {
        let listed = entry.list("a list", None)?;
        // All are read, so that each mistake is told.
        let read: Vec<Option<T>> = listed.iter().map(one).collect();
        return read.into_iter().collect();
    }
    one(entry).map(|one| vec![one])
}

fn number(entry: &Entry<'_, '_>) -> Option<NonZeroU8> {
    let number = entry.integer(1..=255)?;
    NonZeroU8::new(u8::try_from(number).ok()?)
}

fn floating(entry: &Entry<'_, '_>) -> Option<Floating> {
    entry.text(
        "an address with its network, as in `10.0.0.100/32`",
        "`address = \"10.0.0.100/32\"`",
        |text| {
            let (address, len) = text.split_once('/').unwrap_or((text, ""));
            let address: Option<IpAddr> = address.parse().ok();
            let alone = address.map(|address| if address.is_ipv4() { 32 } else { 128 });
            let prefix_len = if len.is_empty() && !text.contains('/') {
                alone
            } else {
                len.parse().ok().filter(|len| alone.is_some_and(|alone| *len <= alone))
            };
            let message = || {
                let found = quoted(text);
                Refused::value(format!("a floating address is an IP address with its network, as in `10.0.0.100/32`; found {found}"))
            };
            Ok(Floating {
                address: address.ok_or_else(message)?,
                prefix_len: prefix_len.ok_or_else(message)?,
            })
        },
    )
}

fn address(entry: &Entry<'_, '_>) -> Option<IpAddr> {
    entry.text(
        "an IP address, as in `10.0.0.2`",
        "`peers = [\"10.0.0.2\"]`",
        |text| {
            text.parse().map_err(|_| {
                let found = quoted(text);
                let refused = Refused::value(format!("a peer is an IP address; found {found}"));
                refused.help(
                    "names are not looked up, so that no election depends on who answers for them",
                )
            })
        },
    )
}

fn version(entry: &Entry<'_, '_>) -> Option<VrrpVersion> {
    match entry.integer(2..=3)? {
        2 => Some(VrrpVersion::V2),
        _ => Some(VrrpVersion::V3),
    }
}

/// `true`, `false`, or after how long.
fn preempt(entry: &Entry<'_, '_>) -> Option<Preempt> {
    match entry.value() {
        DeValue::Boolean(true) => Some(Preempt::Always),
        DeValue::Boolean(false) => Some(Preempt::Never),
        _ => entry.text(
            "true, false, or after how long, as in `30s`",
            "`preempt = \"30s\"`",
            |text| Ok::<_, Refused>(Preempt::After(parse_duration(text)?)),
        ),
    }
}

fn hardware(entry: &Entry<'_, '_>) -> Option<Hardware> {
    let virtual_mac = entry.boolean()?;
    Some(if virtual_mac {
        Hardware::Virtual
    } else {
        Hardware::Own
    })
}

/// `"gateway"`, or a table.
fn track(entry: &Entry<'_, '_>, own: OwnGateway) -> Option<TrackSpec> {
    let DeValue::Table(_) = entry.value() else {
        return entry.text("what is tracked", TRACK_HELP, |text| match (text, own) {
            ("gateway", OwnGateway::Runs) => Ok(TrackSpec::of(Tracked::Gateway)),
            ("gateway", OwnGateway::No) => {
                let message = "`roles` has no `gateway`, so that there is none to track";
                let refused = Refused::new(Code::Conflict, message);
                Err(refused.help("add the role `gateway`, or track something else"))
            }
            (other, _) => {
                let found = quoted(other);
                Err(
                    Refused::value(format!("there is nothing called {found} to track"))
                        .help(TRACK_HELP),
                )
            }
        });
    };
    let read = |s: &mut Section<'_, '_>| {
        let what = tracked(s);
        let every = s.or("every", model::TRACK_EVERY, |e| {
            span(e, model::TRACK_EVERY_MIN)
        });
        let timeout = s.or("timeout", model::TRACK_TIMEOUT, |e| span(e, MS));
        let fall = s.or("fall", model::TRACK_FALL, count);
        let rise = s.or("rise", model::TRACK_RISE, count);
        let restart = s.or("restart", Vec::new(), command);
        Some(TrackSpec {
            what: what?,
            every: every?,
            timeout: timeout?,
            fall: fall?,
            rise: rise?,
            restart: restart?,
        })
    };
    entry
        .section("a table", Some(TRACK_HELP.to_owned()), later::TRACK, read)
        .flatten()
}

/// More in a row than a hundred are surely a mistake, as with services.
fn count(entry: &Entry<'_, '_>) -> Option<NonZeroU32> {
    entry.integer(1..=100).and_then(NonZeroU32::new)
}

/// The one thing that is looked at.
fn tracked(s: &mut Section<'_, '_>) -> Option<Tracked> {
    let (process, tcp, exec) = (s.take("process"), s.take("tcp"), s.take("exec"));
    let given: Vec<&Entry<'_, '_>> = [&process, &tcp, &exec].into_iter().flatten().collect();
    match given.as_slice() {
        [] => {
            let refused = Refused::new(Code::MissingKey, "it is not said what is tracked");
            s.walk().refuse(s.at(), refused.help(TRACK_HELP));
            return None;
        }
        [_] => {}
        [_, second, ..] => {
            let message = "one thing is looked at, and there are several";
            let refused = Refused::new(Code::Conflict, message);
            let help = "write a table for each: `track = [{ tcp = \":5672\" }, { process = \"haproxy\" }]`";
            s.walk().refuse(&second.at_key(), refused.help(help));
            return None;
        }
    }
    let process = process.map(|e| {
        e.text("the name of a process", "`process = \"haproxy\"`", |text| {
            if text.is_empty() || text.contains('/') {
                let refused =
                    Refused::value("a process has the name of its program, without a path");
                return Err(refused.help("`ps -e -o comm` lists them"));
            }
            Ok(Tracked::Process(text.to_owned()))
        })
    });
    let tcp = tcp.map(|e| {
        e.text("an address, as in `:5672`", "`tcp = \":5672\"`", |text| {
            let mut address = parse_bind(text)?;
            if address.ip().is_unspecified() {
                // A port alone is this machine's own.
                address.set_ip(match address.ip() {
                    IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
                    IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1_u16]),
                });
            }
            Ok::<_, Refused>(Tracked::Tcp(address))
        })
    });
    let exec = exec.map(|e| command(&e).map(Tracked::Exec));
    process.or(tcp).or(exec).flatten()
}

/// A program with its arguments.
fn command(entry: &Entry<'_, '_>) -> Option<Vec<String>> {
    let help = format!(
        "write `{} = [\"/usr/local/bin/program\", \"argument\"]`",
        entry.name()
    );
    let listed = entry.list("a list: a program and its arguments", Some(help.clone()))?;
    if listed.is_empty() {
        entry.refuse(Refused::value("the list has no program").help(help));
        return None;
    }
    let mut words = Vec::new();
    for one in &listed {
        words.push(one.text("a text", "`\"argument\"`", |text| {
            if text.contains('\0') {
                return Err(Refused::value("an argument has no NUL"));
            }
            Ok(text.to_owned())
        })?);
    }
    Some(words)
}
