//! The way from the service's address to one instance.

use std::net::SocketAddr;

use mainstay_kernel::netlink::route::Leads;

use super::{Effect, Facts, Step, described};
use crate::host;

/// Where it goes if this instance is drawn, and whom the instance sees.
pub(super) fn way_to(facts: &Facts, instance: SocketAddr, share: &str) -> Step {
    let head = format!("{instance} gets {share}");
    let Some(way) = facts.ways.get(&instance.ip()).and_then(Option::as_ref) else {
        let what = format!("{head}: no route leads there, and the client is told so");
        return Step::new(Effect::Blocked, what).remedy("look at `ip route get` of that address");
    };
    match (way.leads, facts.question.from) {
        (Leads::Here, Some(_)) if is_loopback(instance) && !facts.survey.takes_loopback() => {
            let concern = host::loopback_unreachable();
            Step::new(
                Effect::Blocked,
                format!("{head}, on this host: {}", concern.what),
            )
            .remedy(concern.remedy)
        }
        (Leads::Here, from) => {
            let whom = from.map_or_else(
                || "an address of this host".to_owned(),
                |from| from.to_string(),
            );
            Step::passes(format!(
                "{head}, on this host: translated to it and not masqueraded, it sees {whom} as its client"
            ))
        }
        (Leads::On, from) => {
            let how = match from {
                None => {
                    "and masqueraded if the program speaks from a service's address, as without an \
                         address of this host in the route"
                }
                Some(_) => {
                    "and masqueraded, since else it would answer the client by itself, who knows \
                            nothing of it"
                }
            };
            Step::passes(format!(
                "{head}, by {}: translated to it, {how}; it sees an address of this host as its client",
                described(way)
            ))
        }
        (Leads::Otherwise(kind), _) => Step::new(
            Effect::Blocked,
            format!(
                "{head}: {}, of kind {kind}, leads to no host",
                described(way)
            ),
        ),
    }
}

fn is_loopback(instance: SocketAddr) -> bool {
    matches!(instance, SocketAddr::V4(v4) if v4.ip().is_loopback())
}
