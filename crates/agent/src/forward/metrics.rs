//! What is measured of forwarding, in Prometheus' text format, version 0.0.4.
//!
//! Labels are services, instances and words of ours: all of them end with what they name, and of
//! instances so many are told as [`INSTANCES_MAX`] says.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use mainstay_control::forward::Place;
use mainstay_exposition::{HelpEnds, Text, families};
use mainstay_forward::host::ConcernKind;
use mainstay_forward::reading::{self, Leading};
use mainstay_forward::{Counted, Meter};
use mainstay_ids::{InstanceId, ServiceName};
use mainstay_kernel::netlink::conntrack::Fill;
use mainstay_model::forward::BackEndKind;

#[cfg(test)]
mod tests;

/// Of how many instances the values are told: 5,000 services with three each, and some. With all lines
/// that is 6 MiB; the others are counted in [`UNTOLD`].
const INSTANCES_MAX: usize = 16_384;

#[rustfmt::skip]
families! {
    UP = Gauge "mainstay_forward_up" [] "1 if this node forwards connections to service addresses";
    INFO = Gauge "mainstay_forward_info" ["back_end"] "Always 1; the label tells what forwards";
    SERVICES = Gauge "mainstay_forward_services" [] "Services whose address this node forwards";
    UNTOLD = Gauge "mainstay_forward_untold_instances" [] "Instances whose values are left out here, since there are too many";
    REPAIRS = Counter "mainstay_forward_repairs_total" [] "How often somebody else changed our rules, and they were put back";
    HINDRANCE = Gauge "mainstay_forward_hindrance" ["kind"] "1 if something of the host stands in the way, or soon will; the log says what, and what to do";
    ENTRIES = Gauge "mainstay_conntrack_entries" [] "Entries of connection tracking in this network namespace";
    ENTRIES_LIMIT = Gauge "mainstay_conntrack_entries_limit" [] "How many there may be: what would begin one more is dropped";

    S_CONNECTIONS = Counter "mainstay_forward_service_connections_total" ["service"] "New connections and flows of datagrams; begins again when the number of instances changes";

    I_CONNECTIONS = Gauge "mainstay_forward_instance_connections" ["service" "instance"] "Established connections: of an instance here all, of one elsewhere those of programs here";
    I_IN_FLIGHT = Gauge "mainstay_forward_instance_in_flight" ["service" "instance"] "Of an instance that leaves: the connections for which its stop waits";
    I_TO = Counter "mainstay_forward_instance_request_bytes_total" ["service" "instance"] "Bytes of packets to it, without those of TCP that only open, acknowledge or close; by userspace, of what they carry";
    I_FROM = Counter "mainstay_forward_instance_response_bytes_total" ["service" "instance"] "Bytes of packets from it; as above";
}

/// What whoever forwards tells of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// `None`: nothing forwards.
    pub(super) back_end: Option<BackEndKind>,
    /// Whose each service address is.
    pub(super) services: BTreeMap<SocketAddr, ServiceName>,
    /// Where instances listen, those that leave included.
    pub(super) places: Vec<Place>,
    /// Of those that leave, what is under way to them.
    pub(super) in_flight: BTreeMap<InstanceId, u64>,
    pub(super) repairs: u64,
    pub(super) hindrances: Vec<ConcernKind>,
}

/// Reads all counts and writes them. Blocks for some ten milliseconds with thousands of services. What
/// cannot be read is left out.
pub(super) fn exposition(meter: Option<&mut dyn Meter>, told: &Told) -> String {
    let mut text = Text::new(HelpEnds::Bare, 0);
    text.all(&UP, [([], u64::from(told.back_end.is_some()))]);
    text.all(&INFO, told.back_end.iter().map(|kind| ([kind.as_str()], 1)));
    text.all(&SERVICES, [([], told.services.len())]);
    let places = &told.places[..told.places.len().min(INSTANCES_MAX)];
    text.all(&UNTOLD, [([], told.places.len() - places.len())]);
    text.all(&REPAIRS, [([], told.repairs)]);
    let hindrances = ConcernKind::ALL.into_iter();
    let hindrances =
        hindrances.map(|kind| ([kind.word()], u64::from(told.hindrances.contains(&kind))));
    text.all(&HINDRANCE, hindrances);
    let fill = Fill::read().ok();
    text.all(&ENTRIES, fill.map(|fill| ([], fill.entries)));
    text.all(&ENTRIES_LIMIT, fill.map(|fill| ([], fill.entries_max)));
    let names: Vec<String> = places
        .iter()
        .map(|place| place.instance.to_string())
        .collect();
    let instances = Instances { places, names };
    if let Some(meter) = meter {
        connections(&mut text, meter, told);
        instances.established(&mut text);
        instances.in_flight(&mut text, told);
        instances.traffic(&mut text, meter);
    }
    text.into_string()
}

fn connections(text: &mut Text, meter: &mut dyn Meter, told: &Told) {
    let Some(counted) = read("new connections", meter.connections()) else {
        return;
    };
    // Services of which nobody was led anywhere yet are there, too.
    let mut by_service: BTreeMap<&str, u64> = BTreeMap::new();
    for service in told.services.values() {
        by_service.insert(service.as_str(), 0);
    }
    for (address, count) in counted {
        if let Some(service) = told.services.get(&address) {
            *by_service.entry(service.as_str()).or_default() += count;
        }
    }
    let all = by_service.into_iter();
    text.all(
        &S_CONNECTIONS,
        all.map(|(service, count)| ([service], count)),
    );
}

fn read<T>(what: &str, found: Result<T, impl std::error::Error>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(error) => {
            tracing::debug!(what, error = %crate::chain(&error), "metrics are left out");
            None
        }
    }
}

struct Instances<'a> {
    places: &'a [Place],
    names: Vec<String>,
}

impl<'a> Instances<'a> {
    fn labelled(&'a self) -> impl Iterator<Item = (&'a Place, [&'a str; 2])> {
        let both = self.places.iter().zip(&self.names);
        both.map(|(place, name)| (place, [place.instance.service.as_str(), name.as_str()]))
    }

    fn established(&self, text: &mut Text) {
        let mut leading: BTreeMap<SocketAddr, Vec<SocketAddr>> = BTreeMap::new();
        for place in self.places {
            leading
                .entry(place.through)
                .or_default()
                .push(place.address);
        }
        let leading: Vec<Leading> = leading
            .into_iter()
            .map(|(service, instances)| Leading { service, instances })
            .collect();
        let Some(counts) = read("connections", reading::established(&leading)) else {
            return;
        };
        let all = self.labelled().filter_map(|(place, labels)| {
            let count = counts.get(&place.address)?;
            Some((labels, *count))
        });
        text.all(&I_CONNECTIONS, all);
    }

    fn in_flight(&self, text: &mut Text, told: &Told) {
        let all = self.labelled().filter_map(|(place, labels)| {
            let count = told.in_flight.get(&place.instance)?;
            Some((labels, *count))
        });
        text.all(&I_IN_FLIGHT, all);
    }

    fn traffic(&self, text: &mut Text, meter: &mut dyn Meter) {
        let Some(Some(traffic)) = read("bytes", meter.traffic()) else {
            return;
        };
        let traffic: HashMap<SocketAddr, Counted> = traffic.into_iter().collect();
        let of = |place: &Place| traffic.get(&place.address).copied().unwrap_or_default();
        let sent = self
            .labelled()
            .map(|(place, labels)| (labels, of(place).sent));
        text.all(&I_TO, sent);
        let received = self.labelled();
        let received = received.map(|(place, labels)| (labels, of(place).received));
        text.all(&I_FROM, received);
    }
}
