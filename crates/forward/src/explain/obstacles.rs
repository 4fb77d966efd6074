//! What on the host stands in the way of a connection that the rules would lead to an instance.

use std::net::SocketAddr;

use mainstay_kernel::netlink::route::Leads;

use super::{Effect, Facts, Step};
use crate::host::{self, Version};

/// Others who translate first connections before ours do.
pub(super) fn translated_by_others(facts: &Facts) -> Vec<Step> {
    let mut steps = Vec::new();
    if !facts.earlier.is_empty() {
        let what = format!(
            "asked before ours, or at the same priority, in the order in which they were made: {}",
            facts.earlier.join(", ")
        );
        steps.push(Step::remark(what));
    }
    steps
}

/// What may drop it between here and an instance.
pub(super) fn on_the_way(facts: &Facts, instances: &[(SocketAddr, u64)]) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(concern) = facts.survey.filling() {
        steps.push(Step::remark(concern.what).remedy(concern.remedy));
    }
    let leads_on = instances.iter().any(|(instance, _)| {
        let way = facts.ways.get(&instance.ip()).and_then(Option::as_ref);
        way.is_some_and(|way| way.leads == Leads::On)
    });
    // A program of this host sends by itself: nothing is forwarded.
    if facts.question.from.is_some() && leads_on {
        steps.extend(forwarding(facts));
    }
    steps.extend(reverse_path(facts));
    if facts.question.from.is_some() && facts.bridges_filtered {
        steps.push(Step::remark(
            "bridges of this host pass what they carry by the rules of IP, too (bridge-nf-call-iptables is \
             1): a packet of a container that goes on to another port of its bridge meets them while it \
             is bridged, with the same outcome",
        ));
    }
    steps
}

fn forwarding(facts: &Facts) -> Vec<Step> {
    let version = Version::of(facts.question.to);
    if !facts.survey.forwards(version) {
        let concern = host::not_forwarding(version);
        return vec![Step::new(Effect::Blocked, concern.what).remedy(concern.remedy)];
    }
    let mut steps = Vec::new();
    if facts.opened.has(version) {
        steps.push(Step::passes(format!(
            "this host forwards {version} since Mainstay switched {} on: connections to service addresses, \
             and nothing else (chain `guard-forward`); for a host that is a router for others, too, write \
             `ip_forward = false` in `[forward]`, start the agent anew and switch it on yourself",
            version.forwarding()
        )));
    }
    let dropped = facts.survey.dropping.iter();
    let dropped: Vec<Step> = dropped
        .filter_map(|dropping| {
            // What a firewall of nf_tables accepts is not known.
            let effect = match dropping {
                host::Dropping::Iptables { .. } => Effect::Blocked,
                host::Dropping::Nft { .. } => Effect::Remark,
            };
            let concern = facts.survey.dropped(dropping)?;
            Some(Step::new(effect, concern.what).remedy(concern.remedy))
        })
        .collect();
    if dropped.is_empty() {
        steps.push(Step::passes(format!(
            "this host forwards {version}, and no policy that is known here drops it"
        )));
    }
    steps.extend(dropped);
    steps
}

fn reverse_path(facts: &Facts) -> Option<Step> {
    const STRICT: u8 = 1;
    let client = facts.question.from?;
    let back = facts.client_way.as_ref();
    let Some(interface) = back.and_then(|way| way.interface.as_ref()) else {
        let what = format!("no route leads back to {client}: whatever it sends is not answered");
        return Some(Step::new(Effect::Blocked, what));
    };
    let strict: Vec<&str> = facts
        .reverse_path
        .iter()
        .filter(|(name, value)| **value == STRICT && *name != interface)
        .map(|(name, _)| name.as_str())
        .collect();
    let is_here = back.is_some_and(|way| way.leads == Leads::Here);
    (!strict.is_empty() && client.is_ipv4() && !is_here).then(|| {
        Step::remark(format!(
            "answers to {client} leave by `{interface}`; if it comes by another interface, its packets \
             are dropped (rp_filter is 1 on {})",
            strict.join(", ")
        ))
        .remedy("sysctl -w net.ipv4.conf.INTERFACE.rp_filter=2, where the ways differ")
    })
}
