//! `mainstay forward ls`: which service addresses the kernel has, and where they lead.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mainstay_agent::Choice;
use mainstay_control::forward::{Draw, Slots};
use mainstay_forward::explain::Rules;
use mainstay_forward::reading::{self, Reading, ServiceReading, percent};
use mainstay_ids::{InstanceId, ServiceName};
use mainstay_model::forward::BackEndKind;
use serde::Serialize;

use super::known::Known;
use super::table;
use crate::arguments::Place;
use crate::command::{or_dash, print_table};
use crate::outcome::Outcome;
use crate::output;

/// Where what is listed comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum From {
    /// The kernel's rules.
    Kernel,
    /// The control centre: what is to be, since the rules cannot be read.
    ControlCentre,
}

/// What is written with `--json`.
#[derive(Debug, Serialize)]
struct Listed {
    from: From,
    services: Vec<ListedService>,
    /// Instances to which what is under way is reset.
    dead: Vec<SocketAddr>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ListedService {
    service: Option<ServiceName>,
    address: SocketAddr,
    /// By what an instance is chosen; `null`: the rules are not whole.
    by: Option<&'static str>,
    /// Since the rules of the service were made.
    new_connections: Option<u64>,
    instances: Vec<ListedInstance>,
}

#[derive(Debug, Serialize)]
struct ListedInstance {
    instance: Option<InstanceId>,
    address: SocketAddr,
    /// How many of all slots.
    slots: u64,
    slots_of: u64,
    bytes_to: Option<u64>,
    bytes_from: Option<u64>,
    /// By sockets of this network namespace.
    established: Option<u64>,
}

pub(crate) async fn run(place: &Place) -> anyhow::Result<Outcome> {
    let rules = Rules::read(&table()?);
    let known = Known::ask(place).await;
    let mut notes = Vec::new();
    if let Err(why) = &known {
        notes.push(format!("names of services are not known: {why}"));
    }
    let known = known.unwrap_or_default();
    let carried = match rules {
        Rules::None | Rules::Unreadable(_) => by_sockets(place),
        Rules::Read(_) => None,
    };
    let listed = match (rules, carried) {
        (Rules::Read(reading), _) => of_kernel(&reading, &known, notes),
        (_, Some(choice)) => {
            notes.push(format!(
                "connections are carried by {}, whose rules are in no kernel; this is what the control \
                 centre wants",
                choice.back_end
            ));
            notes.extend(choice.refused);
            of_known(&known, notes)
        }
        (Rules::None, None) => {
            notes.push(
                "the kernel of this network namespace forwards nothing of ours; without `[forward]` in \
                 the node file, or `dev --forward`, the gateway serves service addresses"
                    .to_owned(),
            );
            Listed {
                from: From::Kernel,
                services: Vec::new(),
                dead: Vec::new(),
                notes,
            }
        }
        (Rules::Unreadable(why), None) => {
            notes.push(format!("{why}; this is what the control centre wants"));
            of_known(&known, notes)
        }
    };
    if place.json {
        output::json(&listed)?;
    } else {
        print(&listed)?;
    }
    Ok(Outcome::Holds)
}

/// What the agent of this state directory forwards by, if that is in its own process.
fn by_sockets(place: &Place) -> Option<Choice> {
    let choice = Choice::read(&place.state)?;
    match choice.back_end {
        BackEndKind::Userspace => Some(choice),
        BackEndKind::Nft | BackEndKind::Iptables => None,
    }
}

fn of_kernel(reading: &Reading, known: &Known, mut notes: Vec<String>) -> Listed {
    let established = reading::established(&reading.leading()).unwrap_or_else(|error| {
        notes.push(format!("cannot count established connections: {error}"));
        BTreeMap::new()
    });
    if reading.dormant {
        notes.push("somebody switched the rules off (flag dormant)".to_owned());
    }
    if !reading.altered.is_empty() {
        notes.push(format!(
            "somebody changed rules that lead to services: {}",
            reading.altered.join(", ")
        ));
    }
    notes.extend(missing(&reading.services, known));
    let services = reading.services.iter();
    let services = services.map(|service| ListedService {
        service: known.service(service.address).cloned(),
        address: service.address,
        by: service.slots.as_ref().map(by),
        new_connections: Some(service.connections),
        instances: instances(service, reading, &established, known),
    });
    Listed {
        from: From::Kernel,
        services: services.collect(),
        dead: reading.dead.clone(),
        notes,
    }
}

fn by(slots: &Slots) -> &'static str {
    match slots.class().draw() {
        Draw::Random => "chance",
        Draw::Source => "source",
    }
}

fn instances(
    service: &ServiceReading,
    reading: &Reading,
    established: &BTreeMap<SocketAddr, u64>,
    known: &Known,
) -> Vec<ListedInstance> {
    let counts = service.counts();
    let slots_of = counts.iter().map(|(_, slots)| slots).sum();
    let listed = counts.iter().map(|(address, slots)| {
        let traffic = reading.traffic.get(address);
        ListedInstance {
            instance: known.instance(*address).cloned(),
            address: *address,
            slots: *slots,
            slots_of,
            bytes_to: traffic.map(|traffic| traffic.sent),
            bytes_from: traffic.map(|traffic| traffic.received),
            established: established.get(address).copied(),
        }
    });
    listed.collect()
}

/// Services that should be there, and are not.
fn missing(present: &[ServiceReading], known: &Known) -> Vec<String> {
    let is_there = |address| present.iter().any(|service| service.address == address);
    let missing = known
        .addressed()
        .filter(|(service, address)| !is_there(*address) && known.slots(service).is_some());
    let told = missing.map(|(service, address)| {
        format!("{service} has the address {address}, which the kernel does not forward")
    });
    told.collect()
}

fn of_known(known: &Known, notes: Vec<String>) -> Listed {
    let services = known.addressed().map(|(service, address)| {
        let wanted = ServiceReading {
            address,
            slots: known.slots(service),
            connections: 0,
        };
        let counts = wanted.counts();
        let slots_of = counts.iter().map(|(_, slots)| slots).sum();
        let instances = counts.iter().map(|(to, slots)| ListedInstance {
            instance: known.instance(*to).cloned(),
            address: *to,
            slots: *slots,
            slots_of,
            bytes_to: None,
            bytes_from: None,
            established: None,
        });
        ListedService {
            service: Some(service.clone()),
            address,
            by: wanted.slots.as_ref().map(by),
            new_connections: None,
            instances: instances.collect(),
        }
    });
    Listed {
        from: From::ControlCentre,
        services: services.collect(),
        dead: Vec::new(),
        notes,
    }
}

fn print(listed: &Listed) -> anyhow::Result<()> {
    let heading = [
        "SERVICE", "ADDRESS", "BY", "NEW", "INSTANCE", "AT", "SHARE", "OPEN", "TO", "FROM",
    ];
    let mut rows = crate::command::table(&heading);
    for service in &listed.services {
        let own = [
            or_dash(service.service.as_ref()),
            service.address.to_string(),
            or_dash(service.by),
            or_dash(service.new_connections),
        ];
        if service.instances.is_empty() {
            rows.add_row(own.iter().cloned().chain(["-", "-"].map(str::to_owned)));
        }
        for (index, instance) in service.instances.iter().enumerate() {
            // The service is named once; a blank cell means the one above.
            let own = own.iter().map(|cell| {
                if index == 0 {
                    cell.clone()
                } else {
                    String::new()
                }
            });
            let its = [
                or_dash(instance.instance.as_ref()),
                instance.address.to_string(),
                percent(instance.slots, instance.slots_of),
                or_dash(instance.established),
                or_dash(instance.bytes_to),
                or_dash(instance.bytes_from),
            ];
            rows.add_row(own.chain(its));
        }
    }
    if !listed.services.is_empty() {
        print_table(&rows)?;
    }
    for dead in &listed.dead {
        output::line(format_args!("{dead} is declared dead"))?;
    }
    for note in &listed.notes {
        output::warn(format_args!("note: {note}"));
    }
    Ok(())
}
