//! How a connection to an address would go, and why: `facts` gathers what the kernel has,
//! [`explain`] says what follows from it, step by step. [`text`] writes rules as other programs
//! would load them.

mod facts;
mod instance;
mod obstacles;
pub mod text;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use mainstay_control::forward::{Draw, Slots};
use mainstay_kernel::netlink::route::{Leads, Way};
use mainstay_model::forward::BackEndKind;
use serde::Serialize;

pub use facts::{Facts, Question, Rules, gather};

use crate::reading::{Reading, ServiceReading, percent};

/// What a step means for the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It goes on.
    Passes,
    /// It is refused at once, and the client is told.
    Refused,
    /// It ends here, or goes another way than Mainstay's.
    Diverted,
    /// It, or a part of such connections, does not arrive, and clients wait in vain.
    Blocked,
    /// What becomes of it cannot be told.
    Unknown,
    /// Something that can be otherwise than it seems.
    Remark,
}

/// A step on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What happens, and why.
    pub what: String,
    /// What that means.
    pub effect: Effect,
    /// What to do about it, if there is anything to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Step {
    fn new(effect: Effect, what: impl Into<String>) -> Self {
        let what = what.into();
        let remedy = None;
        Self {
            what,
            effect,
            remedy,
        }
    }

    fn passes(what: impl Into<String>) -> Self {
        Self::new(Effect::Passes, what)
    }

    fn remark(what: impl Into<String>) -> Self {
        Self::new(Effect::Remark, what)
    }

    fn remedy(self, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        Self { remedy, ..self }
    }
}

/// How a connection would go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The worst of its steps.
    pub verdict: Effect,
    /// One after the other.
    pub steps: Vec<Step>,
}

/// Says how the connection would go.
pub fn explain(facts: &Facts) -> Explanation {
    let mut steps = vec![arrival(facts)];
    let goes_on = |steps: &[Step]| verdict(steps) == Effect::Passes;
    if goes_on(&steps) {
        steps.extend(meeting_rules(facts));
    }
    if goes_on(&steps) {
        steps.extend(services(facts));
    }
    let verdict = verdict(&steps);
    Explanation { verdict, steps }
}

fn verdict(steps: &[Step]) -> Effect {
    let has = |effect: &Effect| steps.iter().any(|step| step.effect == *effect);
    let worst = [
        Effect::Diverted,
        Effect::Blocked,
        Effect::Refused,
        Effect::Unknown,
    ];
    worst.into_iter().find(has).unwrap_or(Effect::Passes)
}

/// Whether the address is the machine's own, by our route.
fn arrival(facts: &Facts) -> Step {
    let to = facts.question.to;
    let Some(way) = &facts.way else {
        let what =
            format!("no route leads to {to}, and it is in no range of service addresses here");
        return Step::new(Effect::Diverted, what).remedy(
            "is forwarding on, and is this a node? `[forward]` in the node file says in which range \
             service addresses lie",
        );
    };
    let route = described(way);
    match (way.leads, way.is_ours) {
        (Leads::Here, true) => Step::passes(format!(
            "{to} is this machine's own by {route} (AnyIP): no interface has it, and no neighbour is told"
        )),
        (Leads::Here, false) => {
            let what = format!("{to} is this machine's own by {route}, which is not Mainstay's");
            if in_our_range(facts) {
                Step::passes(what)
            } else {
                Step::new(Effect::Diverted, format!("{what}: no service address"))
            }
        }
        (Leads::On, _) => Step::new(
            Effect::Diverted,
            format!("{to} is not this machine's own: packets to it take {route}"),
        )
        .remedy("a service address lies in a range that `[forward]` in the node file names"),
        (Leads::Otherwise(kind), _) => Step::new(
            Effect::Diverted,
            format!("{to} takes {route}, of kind {kind}: it leads to no host"),
        ),
    }
}

fn in_our_range(facts: &Facts) -> bool {
    let mut ranges = facts.ranges.iter();
    let by_range = ranges.any(|range| range.contains(facts.question.to));
    let services = facts
        .rules
        .reading()
        .map_or(&[][..], |reading| &reading.services);
    by_range
        || services
            .iter()
            .any(|one| one.address.ip() == facts.question.to)
}

fn described(way: &Way) -> String {
    let to = way.to.map_or_else(
        || "the default route".to_owned(),
        |range| format!("the route to {range}"),
    );
    let gateway = way.gateway.map(|gateway| format!(" via {gateway}"));
    let interface = way.interface.as_ref();
    let interface = interface.map(|interface| format!(" by interface `{interface}`"));
    format!(
        "{to}{}{}",
        gateway.unwrap_or_default(),
        interface.unwrap_or_default()
    )
}

/// Which rules its first packet meets.
fn meeting_rules(facts: &Facts) -> Vec<Step> {
    let Facts {
        question, table, ..
    } = facts;
    let mut steps = Vec::new();
    let reading = match &facts.rules {
        Rules::Read(reading) => reading,
        Rules::None => {
            let what = format!(
                "there is no table `{table}`: nothing is translated, and a program that listens on all \
                 addresses would answer"
            );
            return vec![Step::new(Effect::Diverted, what).remedy(
                "does the agent run? `mainstay status`; its log says why it does not forward",
            )];
        }
        Rules::Unreadable(why) => {
            let what = format!("the rules cannot be read: {why}");
            return vec![Step::new(Effect::Unknown, what).remedy("try as root")];
        }
    };
    if reading.dormant {
        let what = format!("somebody switched the table `{table}` off (flag dormant)");
        steps.push(
            Step::new(Effect::Diverted, what)
                .remedy("the agent repairs it within a second; who does it again and again?"),
        );
    }
    if !reading.altered.is_empty() {
        let what = format!(
            "somebody changed rules that lead to services: {}",
            reading.altered.join(", ")
        );
        steps.push(
            Step::new(Effect::Blocked, what)
                .remedy("the agent repairs it within a second; who does it again and again?"),
        );
    }
    steps.extend(obstacles::translated_by_others(facts));
    let whose = match question.from {
        None => "a program of this machine".to_owned(),
        Some(from) => from.to_string(),
    };
    let meets = match (reading.back_end, question.from) {
        (BackEndKind::Iptables, None) => of_iptables("OUTPUT"),
        (BackEndKind::Iptables, Some(_)) => of_iptables("PREROUTING"),
        (BackEndKind::Nft | BackEndKind::Userspace, from) => format!(
            "the chain `{}` of table `{table}`, which looks into the map `services{}`",
            if from.is_none() {
                "output"
            } else {
                "prerouting"
            },
            digit(facts)
        ),
    };
    steps.push(Step::passes(format!(
        "its first packet, from {whose}, meets {meets}; later packets follow the entry of connection tracking"
    )));
    steps
}

fn of_iptables(chain: &str) -> String {
    format!(
        "the chain `{chain}` of table `nat` of iptables, which leads to `MAINSTAY-SERVICES` and to a rule for \
         each service"
    )
}

fn services(facts: &Facts) -> Vec<Step> {
    let Question { to, port, .. } = facts.question;
    let Some(reading) = facts.rules.reading() else {
        return Vec::new();
    };
    if let Some(port) = port {
        let asked = SocketAddr::new(to, port);
        return match reading.service(asked) {
            Some(service) => served(facts, reading, service),
            None => refused(facts, reading.back_end, asked),
        };
    }
    let at = reading.services.iter().filter(|one| one.address.ip() == to);
    let found: Vec<&ServiceReading> = at.collect();
    match &found[..] {
        [] => vec![Step::new(
            Effect::Refused,
            format!("no service has a port of {to}: every connection to it is refused at once"),
        )],
        [one] => served(facts, reading, one),
        many => {
            let names: Vec<String> = many.iter().map(|one| one.address.to_string()).collect();
            let what = format!("{to} has several services: {}", names.join(", "));
            vec![Step::new(Effect::Unknown, what).remedy("name one with its port")]
        }
    }
}

/// Nobody serves it.
fn refused(facts: &Facts, back_end: BackEndKind, asked: SocketAddr) -> Vec<Step> {
    if facts.listeners.contains(&asked) {
        let what = format!(
            "no service has {asked}, and a program of this machine listens there: if it is Mainstay's own \
             server of names, it answers; any other is refused"
        );
        return vec![Step::new(Effect::Unknown, what)];
    }
    let (found, guard, list) = match back_end {
        BackEndKind::Iptables => (
            "no rule is for",
            "MAINSTAY-REFUSE",
            "iptables-save -t nat".to_owned(),
        ),
        BackEndKind::Nft | BackEndKind::Userspace => (
            "the map has no",
            "guard-input",
            format!("nft list map {} services{}", facts.table, digit(facts)),
        ),
    };
    let mut steps = vec![
        Step::new(
            Effect::Refused,
            format!(
                "{found} {asked}: no service has it, or it has no instance that takes \
                 connections; the chain `{guard}` answers RST to TCP and \"port unreachable\" to UDP"
            ),
        )
        .remedy(format!(
            "`mainstay status` shows services and their addresses; `{list}` what the kernel has"
        )),
    ];
    let everywhere = facts.listeners.iter().filter(|one| {
        let same = one.is_ipv6() || asked.is_ipv4();
        one.ip().is_unspecified() && same
    });
    let everywhere: Vec<String> = everywhere.map(ToString::to_string).collect();
    if !everywhere.is_empty() {
        let what = format!(
            "a program listens on {} and would have answered without that rule",
            everywhere.join(" and ")
        );
        steps.push(Step::remark(what));
    }
    steps
}

fn served(facts: &Facts, reading: &Reading, service: &ServiceReading) -> Vec<Step> {
    let address = service.address;
    let Some(slots) = &service.slots else {
        let what = format!(
            "{address} is known, but its {} not whole: somebody edited the table, and some \
             connections fail until the agent has repaired it",
            match reading.back_end {
                BackEndKind::Iptables => "rules are",
                BackEndKind::Nft | BackEndKind::Userspace => "slots are",
            }
        );
        return vec![
            Step::new(Effect::Blocked, what).remedy("does the agent run? `mainstay status`"),
        ];
    };
    let counts = service.counts();
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    let mut steps = vec![Step::passes(format!(
        "{address} is a service of {} ({} new connections so far): {}",
        instances(counts.len()),
        service.connections,
        drawing(slots, reading.back_end, facts)
    ))];
    for (instance, count) in &counts {
        let percent = percent(*count, all);
        let share = match reading.back_end {
            BackEndKind::Iptables => percent,
            BackEndKind::Nft | BackEndKind::Userspace => {
                format!("{count} of {all} slots, {percent}")
            }
        };
        steps.push(instance::way_to(facts, *instance, &share));
        if reading.dead.contains(instance) {
            let what = format!(
                "{instance} is declared dead: what is under way to it is reset as soon as it sends"
            );
            steps.push(Step::new(Effect::Refused, what));
        }
    }
    steps.extend(obstacles::on_the_way(facts, &counts));
    steps
}

fn instances(count: usize) -> String {
    match count {
        1 => "1 instance".to_owned(),
        many => format!("{many} instances"),
    }
}

fn drawing(slots: &Slots, back_end: BackEndKind, facts: &Facts) -> String {
    let (count, digit) = (slots.class().slots(), digit(facts));
    match (back_end, slots.class().draw()) {
        (BackEndKind::Iptables, Draw::Random) => {
            "its rules are tried one after the other, each with its chance".to_owned()
        }
        (BackEndKind::Iptables, Draw::Source) => format!(
            "two hashes of the client's address choose one of {count} rules: a client stays with its instance"
        ),
        (BackEndKind::Nft | BackEndKind::Userspace, Draw::Random) => {
            format!("chance draws one of {count} slots (`random{digit}-{count}`)")
        }
        (BackEndKind::Nft | BackEndKind::Userspace, Draw::Source) => format!(
            "a hash of the client's address chooses one of {count} slots (`source{digit}-{count}`): a client \
             stays with its instance"
        ),
    }
}

fn digit(facts: &Facts) -> u8 {
    if facts.question.to.is_ipv4() { 4 } else { 6 }
}
