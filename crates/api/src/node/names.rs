//! The keys of `[names]`.

use std::net::{IpAddr, SocketAddr};

use mainstay_model::Network;
use mainstay_model::directory::{ALLOW_MAX, UPSTREAMS_MAX};

use crate::file::problem::Code;
use crate::file::refusal::{Refused, quoted};
use crate::file::walk::{Entry, Section};

use super::address::bind;
use super::listen::{Taken, network};
use super::{Names, later};

/// The port of servers of names.
const PORT: u16 = 53;

const LISTEN_HELP: &str = "write for instance `listen = \"127.0.0.1:53\"`";

pub(super) fn names(entry: &Entry<'_, '_>, taken: &[Taken]) -> Option<Names> {
    let help = "write `[names]` with `listen = \"127.0.0.1:53\"` below it".to_owned();
    entry
        .section("a table", Some(help), later::NAMES, |s| keys(s, taken))
        .flatten()
}

/// The order is that of the list in messages.
fn keys(s: &mut Section<'_, '_>, taken: &[Taken]) -> Option<Names> {
    let listen = s.required("listen", LISTEN_HELP);
    let listen = listen.and_then(|entry| address(&entry, taken));
    let upstream = s.optional("upstream", |e| upstreams(e, listen));
    let allow = s.or("allow", Vec::new(), networks);
    Some(Names {
        listen: listen?,
        upstream: upstream?,
        allow: allow?,
    })
}

/// One address: an answer from a socket that listens on all would go out from another one than was asked.
fn address(entry: &Entry<'_, '_>, taken: &[Taken]) -> Option<SocketAddr> {
    let address = bind(entry)?;
    if address.ip().is_unspecified() || address.ip().is_multicast() {
        let message =
            format!("names are answered at one address of this machine, not at {address}");
        let help = format!("did you mean `127.0.0.1:{}`?", address.port());
        entry.refuse(Refused::value(message).help(help));
        return None;
    }
    if let Some(Taken { address, by }) = taken.iter().find(|taken| taken.address == address) {
        let refused = Refused::new(Code::Conflict, format!("{by} is {address} already"));
        entry.refuse(refused.help("choose another address for one of the two"));
        return None;
    }
    Some(address)
}

fn upstreams(entry: &Entry<'_, '_>, own: Option<SocketAddr>) -> Option<Vec<SocketAddr>> {
    let help = "write for instance `upstream = [\"192.0.2.1\", \"192.0.2.2\"]`";
    let listed = entry.list("a list of servers", Some(help.to_owned()))?;
    if listed.len() > UPSTREAMS_MAX {
        let message = format!("names are asked of up to {UPSTREAMS_MAX} servers");
        let refused = Refused::new(Code::TooMuch, message);
        entry.refuse(refused.help("keep those that answer for certain"));
        return None;
    }
    // All are read, so that each mistake is told.
    let read: Vec<Option<SocketAddr>> = listed.iter().map(|entry| upstream(entry, own)).collect();
    read.into_iter().collect()
}

fn upstream(entry: &Entry<'_, '_>, own: Option<SocketAddr>) -> Option<SocketAddr> {
    let parse = |text: &str| {
        let alone = text.parse().map(|ip: IpAddr| SocketAddr::new(ip, PORT));
        alone.or_else(|_| text.parse()).map_err(|_| {
            let message = format!(
                "a server of names is an IP address, or one with a port; found {}",
                quoted(text)
            );
            Refused::value(message)
        })
    };
    let address = entry.text("an IP address", "`\"192.0.2.1\"`", parse)?;
    if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
        entry.refuse(Refused::value(format!("nobody can be asked at {address}")));
        return None;
    }
    if Some(address) == own {
        let message = format!("{address} is this server itself: names would go in a circle");
        let refused = Refused::new(Code::Conflict, message);
        entry.refuse(refused.help("name the servers that this machine asked before"));
        return None;
    }
    Some(address)
}

fn networks(entry: &Entry<'_, '_>) -> Option<Vec<Network>> {
    let help = "write for instance `allow = [\"172.17.0.0/16\"]`";
    let listed = entry.list("a list of networks", Some(help.to_owned()))?;
    if listed.len() > ALLOW_MAX {
        let message = format!("up to {ALLOW_MAX} networks are answered");
        let refused = Refused::new(Code::TooMuch, message);
        entry.refuse(refused.help("put neighbours together: two /25 are a /24"));
        return None;
    }
    let read: Vec<Option<Network>> = listed.iter().map(network).collect();
    read.into_iter().collect()
}
