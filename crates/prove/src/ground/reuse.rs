//! `forward-reuse`: the address and port of an instance is given to one of another service at once, after
//! it left in peace and after its host died with it.

use std::time::{Duration, Instant};

use super::clients::Kind;
use super::crowd::address;
use super::cut::NOTICED;
use super::datagrams::{DatagramReport, Datagrams};
use super::field::Place;
use super::scene::Scene;
use crate::load::REQUEST_DEADLINE;
use crate::scenario::{Outage, Trouble, Victims};
use crate::verdict::Figure;

const SERVICES: [(&str, &str); 2] = [("orders", "10.96.255.1:80"), ("billing", "10.96.255.2:80")];
/// Where the instances are that stay, of each service.
const OWN: [u16; 2] = [8001, 8002];
/// The port that goes from hand to hand, on the node and on a host.
const SHARED: u16 = 9000;

/// A client whose SYN was lost sends it again after a second: long enough for it to come to whoever has
/// the address then.
const AFTER: Duration = Duration::from_millis(1500);

/// What was under way to the dead host is lost, and some of its clients find out by their own time-out
/// alone: those of other hosts, that only wait. They may lose; they may not be answered by another.
const LOST: Duration = REQUEST_DEADLINE.saturating_add(Duration::from_secs(1));

/// How long a client that asks by datagrams may be without an answer after a death was declared.
const SILENCE_MS_MAX: u64 = 1000;

/// Who has an address now: which service, and its instance's number.
#[derive(Clone, Copy)]
struct Tenant {
    place: Place,
    service: usize,
    number: u64,
}

impl Scene {
    pub(crate) fn prepare_reuse(&mut self) -> Result<(), Trouble> {
        self.demand.kinds = vec![Kind::Fresh, Kind::Kept, Kind::Foreign];
        for ((service, at), port) in SERVICES.into_iter().zip(OWN) {
            self.serve(service, address(at));
            self.start(service, 1, (Place::Node, port))?;
        }
        let (first, _) = SERVICES[0];
        self.start(first, 2, (Place::Node, SHARED))?;
        self.start(first, 3, (Place::FirstHost, SHARED))?;
        self.publish()
    }

    pub(crate) fn play_reuse(&mut self) -> Result<(), Trouble> {
        let services = SERVICES.map(|(name, at)| (name, address(at)));
        let from = [&self.field.node, &self.field.client];
        let datagrams = Datagrams::start(&from, &services)?;
        let played = self.hand_around();
        let report = datagrams.finish()?;
        self.record.figures.push(silence(&report));
        self.record.datagrams = Some(report);
        played
    }

    fn hand_around(&mut self) -> Result<(), Trouble> {
        let tenant = |place, number| Tenant {
            place,
            service: 0,
            number,
        };
        let mut tenants = [tenant(Place::Node, 2), tenant(Place::FirstHost, 3)];
        let mut next = 4;
        let mut round = 0;
        while round < tenants.len() || self.has_time() {
            let former = tenants[round % tenants.len()];
            let heir = Tenant {
                service: 1 - former.service,
                number: next,
                ..former
            };
            match former.place {
                Place::Node => self.inherit_in_peace(former, heir)?,
                Place::FirstHost | Place::SecondHost => self.inherit_from_the_dead(former, heir)?,
            }
            self.record.whole_again(round);
            tenants[round % tenants.len()] = heir;
            next += 1;
            round += 1;
            self.pause(AFTER)?;
        }
        Ok(())
    }

    fn inherit_in_peace(&mut self, former: Tenant, heir: Tenant) -> Result<(), Trouble> {
        let (one, other) = (SERVICES[former.service].0, SERVICES[heir.service].0);
        let at = former.place.at(SHARED);
        self.record.begin(format!(
            "{one}-{} left, and its {at} given to {other}-{}",
            former.number, heir.number
        ));
        self.withdraw(one, former.number)?;
        self.start(other, heir.number, (heir.place, SHARED))?;
        self.publish()
    }

    fn inherit_from_the_dead(&mut self, former: Tenant, heir: Tenant) -> Result<(), Trouble> {
        let (one, other) = (SERVICES[former.service].0, SERVICES[heir.service].0);
        let at = former.place.at(SHARED);
        self.record.begin(format!(
            "the host of {one}-{} cut off and declared dead, and its {at} given to {other}-{}",
            former.number, heir.number
        ));
        let begin = self.record.since(Instant::now());
        self.field.cut(former.place)?;
        self.pause(NOTICED)?;
        self.board.bury(one, former.number);
        self.publish()?;
        self.record.outages.push(Outage {
            begin,
            bar: LOST,
            victims: Victims::ByEnd,
        });
        self.kill(one, former.number);
        self.field.mend(former.place)?;
        self.start(other, heir.number, (heir.place, SHARED))?;
        self.publish()
    }
}

fn silence(report: &DatagramReport) -> Figure {
    let noticed = u64::try_from(NOTICED.as_millis()).unwrap_or(u64::MAX);
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a proof")]
    let [value, bar] = [report.silence_ms_max, noticed + SILENCE_MS_MAX].map(|ms| ms as f64);
    Figure {
        what: "the longest silence for a client that asks by datagrams".to_owned(),
        unit: "ms",
        value,
        bar: Some(bar),
    }
}
