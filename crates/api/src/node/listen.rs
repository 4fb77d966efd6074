//! The tables `[listen.NAME]`: entries to servers that Mainstay did not start.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use mainstay_ids::ListenName;
use mainstay_model::listen::{
    self as model, Balance, CheckKind, CheckSpec, ListenDraft, ListenError, Mode, OnDown,
    ProxyVersion, Rank, ServerName, ServerSpec, Timeouts,
};
use mainstay_model::{ListenSpec, Network};
use toml::de::DeValue;

use crate::file::problem::Code;
use crate::file::refusal::{Refused, quoted};
use crate::file::service::span;
use crate::file::suggest::closest;
use crate::file::units::parse_path;
use crate::file::walk::{Entry, Section};

use super::address::parse_bind;
use super::later;

/// More listeners than this are surely a mistake.
const LISTENS_MAX: usize = 256;

/// An address on which the node itself listens.
#[derive(Clone, Copy)]
pub(super) struct Taken {
    pub(super) address: SocketAddr,
    /// Whose it is, for messages.
    pub(super) by: &'static str,
}

const SERVERS_HELP: &str = "write for instance `servers = [\"10.0.0.1:5672\", { address = \"10.0.0.2:5672\", backup = true }]`";

const MS: Duration = Duration::from_millis(1);

/// Reads the table of all listeners, by name. `None`: something in it was refused.
pub(super) fn listens(entry: &Entry<'_, '_>, taken: &[Taken]) -> Option<Vec<ListenSpec>> {
    let entries = entry.entries("a table of listeners", "`[listen.rabbitmq]`")?;
    if entries.len() > LISTENS_MAX {
        let message = format!("a node has up to {LISTENS_MAX} listeners");
        let refused = Refused::new(Code::TooMuch, message);
        entry.refuse(refused.help("put addresses together: `bind = [\":5671\", \":5672\"]`"));
        return None;
    }
    // All are read, so that each mistake is told.
    let read: Vec<Option<ListenSpec>> = entries
        .iter()
        .map(|(name, entry)| listen(name, entry))
        .collect();
    let read = read.into_iter().collect::<Option<Vec<ListenSpec>>>()?;
    let once = bound_once(&read, &entries);
    let free = bound_by_nobody_else(&read, &entries, taken);
    (once && free).then_some(read)
}

/// An address belongs to one listener.
fn bound_once(read: &[ListenSpec], entries: &[(&str, Entry<'_, '_>)]) -> bool {
    let mut once = true;
    for (index, spec) in read.iter().enumerate() {
        for address in &spec.bind {
            let owner = read[..index]
                .iter()
                .position(|other| other.bind.contains(address));
            if let Some(owner) = owner {
                once = false;
                let message = format!("`{}` accepts on {address} already", read[owner].name);
                let refused = Refused::new(Code::Conflict, message).also(&entries[owner].1.at());
                let refused = refused.help("give each listener addresses of its own");
                entries[index].1.refuse(refused);
            }
        }
    }
    once
}

/// An address of a listener is not one of the node's own.
fn bound_by_nobody_else(
    read: &[ListenSpec],
    entries: &[(&str, Entry<'_, '_>)],
    taken: &[Taken],
) -> bool {
    let mut free = true;
    for (spec, (_, entry)) in read.iter().zip(entries) {
        for Taken { address, by } in taken {
            if spec.bind.contains(address) {
                free = false;
                let message = format!("{by} is {address} already");
                let refused = Refused::new(Code::Conflict, message);
                entry.refuse(refused.help("choose another address for one of the two"));
            }
        }
    }
    free
}

fn listen(name: &str, entry: &Entry<'_, '_>) -> Option<ListenSpec> {
    let parsed = ListenName::parse(name);
    if let Err(error) = &parsed {
        let refused = Refused::value(format!("{error}; found {}", quoted(name)));
        entry.walk().refuse(&entry.at_key(), refused);
    }
    let help = format!("write `[listen.{name}]` with `bind` and `servers` below it");
    let draft = entry
        .section("a table", Some(help), later::LISTEN, |s| {
            keys(s, parsed.ok())
        })
        .flatten()?;
    match ListenSpec::new(draft) {
        Ok(spec) => Some(spec),
        Err(errors) => {
            for error in errors {
                entry.refuse(told(&error));
            }
            None
        }
    }
}

/// What the model says of a listener, with its remedy apart.
pub(super) fn told(error: &ListenError) -> Refused {
    let text = error.to_string();
    match text.split_once("; ") {
        Some((message, help)) => Refused::value(message).help(help),
        None => Refused::value(text.as_str()),
    }
}

/// The order is that of the list in messages.
fn keys(s: &mut Section<'_, '_>, name: Option<ListenName>) -> Option<ListenDraft> {
    let bind = s.required("bind", "write for instance `bind = \":5671\"`");
    let bind = bind.and_then(|e| binds(&e));
    let servers = s
        .required("servers", SERVERS_HELP)
        .and_then(|e| servers(&e));
    let mode = s.or("mode", Mode::Tcp, |e| {
        word(e, &[("tcp", Mode::Tcp), ("http", Mode::Http)])
    });
    let balance = s.or("balance", Balance::default(), |e| word(e, &Balance::ALL));
    let check = s.or("check", Some(CheckSpec::of(CheckKind::Tcp)), check);
    let accept_proxy = s.or("proxy", None, proxy);
    let send_proxy = s.optional("send_proxy", |e| {
        word(e, &[("v1", ProxyVersion::V1), ("v2", ProxyVersion::V2)])
    });
    let timeouts = s.or("timeouts", Timeouts::default(), timeouts);
    let connections_max = s.or("connections", model::CONNECTIONS, |e| {
        e.integer(1..=model::CONNECTIONS_MAX)
    });
    let on_down = s.or("on_down", OnDown::Keep, |e| {
        word(e, &[("keep", OnDown::Keep), ("close", OnDown::Close)])
    });
    let slow_start = s.optional("slow_start", |e| span(e, MS));
    Some(ListenDraft {
        name: name?,
        bind: bind?,
        mode: mode?,
        servers: servers?,
        balance: balance?,
        check: check?,
        accept_proxy: accept_proxy?,
        send_proxy: send_proxy?,
        timeouts: timeouts?,
        connections_max: connections_max?,
        on_down: on_down?,
        slow_start: slow_start?,
    })
}

/// One of a few words.
pub(super) fn word<T: Copy>(entry: &Entry<'_, '_>, words: &[(&'static str, T)]) -> Option<T> {
    let listed: Vec<String> = words
        .iter()
        .map(|(word, _)| format!("`\"{word}\"`"))
        .collect();
    let listed = listed.join(", ");
    let example = format!("`{} = \"{}\"`", entry.name(), words[0].0);
    entry.text(&format!("one of {listed}"), &example, |text| {
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let message = format!(
                "`{}` is one of {listed}; found {}",
                entry.name(),
                quoted(text)
            );
            let refused = Refused::value(message);
            let meant = match text {
                // HAProxy's words.
                "leastconn" => Some("least-connections"),
                "roundrobin" | "static-rr" => Some("round-robin"),
                _ => closest(text, words.iter().map(|(word, _)| *word)),
            };
            match meant {
                Some(meant) => refused.help(format!("did you mean `{meant}`?")),
                None => refused,
            }
        })
    })
}

/// One address, or a list of them.
fn binds(entry: &Entry<'_, '_>) -> Option<Vec<SocketAddr>> {
    let one = |e: &Entry<'_, '_>| {
        e.text(
            "an address, as in `:5671`",
            "`bind = \":5671\"`",
            parse_bind,
        )
    };
    if let DeValue::Array(_) = entry.value() {
        let listed = entry.list("a list of addresses", None)?;
        let read: Vec<Option<SocketAddr>> = listed.iter().map(one).collect();
        return read.into_iter().collect();
    }
    one(entry).map(|address| vec![address])
}

fn servers(entry: &Entry<'_, '_>) -> Option<Vec<ServerSpec>> {
    let listed = entry.list("a list of servers", Some(SERVERS_HELP.to_owned()))?;
    let read: Vec<Option<ServerSpec>> = listed.iter().map(server).collect();
    read.into_iter().collect()
}

/// An address, or a table with one.
fn server(entry: &Entry<'_, '_>) -> Option<ServerSpec> {
    let DeValue::Table(_) = entry.value() else {
        return server_address(entry).map(ServerSpec::at);
    };
    let read = |s: &mut Section<'_, '_>| {
        let address = s.required("address", "write `address = \"10.0.0.1:5672\"`");
        let address = address.and_then(|e| server_address(&e));
        let name = s.optional("name", |e| {
            e.text("a name", "`name = \"a\"`", |text| {
                ServerName::parse(text)
                    .map_err(|error| Refused::value(format!("{error}; found {}", quoted(text))))
            })
        });
        let weight = s.or("weight", 1, |e| e.integer(0..=model::WEIGHT_MAX.into()));
        let backup = s.or("backup", false, Entry::boolean);
        let connections_max = s.optional("connections", |e| {
            e.integer(1..=model::CONNECTIONS_MAX)
                .and_then(NonZeroU32::new)
        });
        let address = address?;
        Some(ServerSpec {
            name: name?.unwrap_or_else(|| ServerName::of_address(address)),
            address,
            weight: u16::try_from(weight?).ok()?,
            rank: if backup? { Rank::Backup } else { Rank::Main },
            connections_max: connections_max?,
        })
    };
    entry
        .section("a table", None, later::SERVER, read)
        .flatten()
}

fn server_address(entry: &Entry<'_, '_>) -> Option<SocketAddr> {
    entry.text("an address, as in `10.0.0.1:5672`", "`\"10.0.0.1:5672\"`", |text| {
        text.parse().map_err(|_| {
            let message = format!(
                "a server is an IP address with a port, as in `10.0.0.1:5672`; found {}",
                quoted(text)
            );
            let refused = Refused::value(message);
            match text.split_once(':') {
                Some(("localhost", port)) => refused.help(format!("did you mean `127.0.0.1:{port}`?")),
                Some(_) | None => {
                    refused.help("names are not looked up, so that no server depends on who answers for them")
                }
            }
        })
    })
}

/// A table, or `"off"`.
#[expect(clippy::option_option, reason = "refused and off are two things")]
fn check(entry: &Entry<'_, '_>) -> Option<Option<CheckSpec>> {
    match entry.value() {
        DeValue::String(text) if text.as_ref() == "off" => return Some(None),
        _ => {}
    }
    let help = "write for instance `check = { amqp = true, every = \"1s\" }`, or `check = \"off\"`";
    let read = |s: &mut Section<'_, '_>| {
        let kind = check_kind(s);
        let every = s.or("every", model::CHECK_EVERY, |e| {
            span(e, model::CHECK_EVERY_MIN)
        });
        let timeout = s.or("timeout", model::CHECK_TIMEOUT, |e| span(e, MS));
        let fall = s.or("fall", model::CHECK_FALL, count);
        let rise = s.or("rise", model::CHECK_RISE, count);
        Some(CheckSpec {
            kind: kind?,
            every: every?,
            timeout: timeout?,
            fall: fall?,
            rise: rise?,
        })
    };
    let read = entry.section(
        "a table, or `\"off\"`",
        Some(help.to_owned()),
        later::CHECK,
        read,
    );
    read.flatten().map(Some)
}

/// More in a row than a hundred are surely a mistake, as with services.
fn count(entry: &Entry<'_, '_>) -> Option<NonZeroU32> {
    entry.integer(1..=100).and_then(NonZeroU32::new)
}

/// The one thing that is tried; without any, that the port accepts connections.
fn check_kind(s: &mut Section<'_, '_>) -> Option<CheckKind> {
    let (get, expect) = (s.take("get"), s.take("expect"));
    let (tcp, amqp) = (s.take("tcp"), s.take("amqp"));
    let mut given: Vec<&Entry<'_, '_>> = [&get, &tcp, &amqp].into_iter().flatten().collect();
    given.sort_by_key(|entry| entry.at_key().place.span.start);
    if let [first, second, ..] = given.as_slice() {
        let message = format!(
            "a check tries one thing, and `{}` is one already (line {})",
            first.name(),
            first.at_key().place.line
        );
        let refused = Refused::new(Code::Conflict, message).also(&first.at_key());
        let refused = refused.help("keep the one that tells best that the server can serve");
        s.walk().refuse(&second.at_key(), refused);
        return None;
    }
    let expected = expect.as_ref().map_or(Some(None), |e| {
        let status = e.integer(100..=599)?;
        u16::try_from(status).ok().map(Some)
    });
    if let (None, Some(expect), Some(_)) = (&get, &expect, expected) {
        let message = "`expect` is the status of the answer to a `get`, and there is none";
        let refused = Refused::new(Code::Conflict, message);
        expect.refuse(refused.help("add `get = \"/health\"`, or take `expect` out"));
        return None;
    }
    let get = get.map(|e| {
        let path = e.text("a path", "`get = \"/health\"`", parse_path)?;
        Some(CheckKind::Http {
            path,
            expect: expected?,
        })
    });
    let tcp = tcp.map(|e| on(&e).map(|()| CheckKind::Tcp));
    let amqp = amqp.map(|e| on(&e).map(|()| CheckKind::Amqp));
    // Refused for its type, if it stands alone.
    expected?;
    get.or(tcp).or(amqp).unwrap_or(Some(CheckKind::Tcp))
}

/// `true`, since there is nothing else to write.
fn on(entry: &Entry<'_, '_>) -> Option<()> {
    if entry.boolean()? {
        return Some(());
    }
    let name = entry.name();
    let message = format!("`{name}` is `true` or not there");
    entry.refuse(Refused::value(message).help("take it out"));
    None
}

/// `{ accept = true, from = [..] }`.
#[expect(
    clippy::option_option,
    reason = "refused and not accepted are two things"
)]
pub(super) fn proxy(entry: &Entry<'_, '_>) -> Option<Option<Vec<Network>>> {
    let help = "write `proxy = { accept = true, from = [\"10.0.0.0/8\"] }`";
    let read = |s: &mut Section<'_, '_>| {
        let accept = s.or("accept", true, Entry::boolean);
        let from = s.or("from", Vec::new(), |e| {
            let listed = e.list("a list of networks", Some(help.to_owned()))?;
            let read: Vec<Option<Network>> = listed.iter().map(network).collect();
            read.into_iter().collect()
        });
        let from = from?;
        Some(accept?.then_some(from))
    };
    entry
        .section("a table", Some(help.to_owned()), later::NONE, read)
        .flatten()
}

pub(super) fn network(entry: &Entry<'_, '_>) -> Option<Network> {
    entry.text(
        "a network, as in `10.0.0.0/8`",
        "`\"10.0.0.0/8\"`",
        |text| {
            Network::parse(text)
                .map_err(|error| Refused::value(format!("{error}; found {}", quoted(text))))
        },
    )
}

fn timeouts(entry: &Entry<'_, '_>) -> Option<Timeouts> {
    let help = "write for instance `timeouts = { connect = \"2s\" }`";
    let read = |s: &mut Section<'_, '_>| {
        let default = Timeouts::default();
        let connect = s.or("connect", default.connect, |e| span(e, MS));
        let idle = s.or("idle", default.idle, |e| span(e, MS));
        let half_open = s.or("half_open", default.half_open, |e| span(e, MS));
        let drain = s.or("drain", default.drain, |e| span(e, Duration::ZERO));
        Some(Timeouts {
            connect: connect?,
            idle: idle?,
            half_open: half_open?,
            drain: drain?,
        })
    };
    entry
        .section("a table", Some(help.to_owned()), later::TIMEOUTS, read)
        .flatten()
}
