//! Which instance gets which share of a service's connections.

use alloc::vec::Vec;
use core::net::SocketAddr;

use mainstay_model::routing::{Endpoint, EndpointHealth, ServiceRoutes};
use mainstay_model::traffic::Sticky;

/// Weights are counted in this part of an ordinary instance's, so that shares of canaries, which are
/// given in millionths, lose nothing.
const FINENESS: u64 = 1_000_000;

/// Whether a client's connections stay with one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Staying {
    /// Each goes where chance sends it.
    #[default]
    Free,
    /// Those of one source address go to one instance, as long as it is there.
    Source,
}

/// An instance and how much it gets beside the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Where the instance listens.
    pub to: SocketAddr,
    /// Its weight; never 0. Only what it is beside the others' counts.
    pub weight: u64,
}

/// How the connections to one service address are spread.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spread {
    /// Whether clients stay with an instance.
    pub staying: Staying,
    /// Who gets any, each address once, in their order. None: there is nobody.
    pub shares: Vec<Share>,
}

impl Spread {
    /// What the routes say. Instances whose probes fail get nothing while any other passes, and are
    /// tried if none does. What an operator drained gets no new connection; a new version on trial
    /// gets the share that its canaries are to have.
    pub fn of(routes: &ServiceRoutes) -> Self {
        let staying = match routes.traffic.sticky {
            Some(Sticky::Source) => Staying::Source,
            // A cookie or header is read by the gateway alone.
            Some(Sticky::Cookie { .. } | Sticky::Header(_)) | None => Staying::Free,
        };
        let taking = |health: EndpointHealth| {
            let endpoints = routes.endpoints.iter();
            let taking = endpoints.filter(move |one| one.health == health);
            taking.filter(|one| one.intake.takes_any())
        };
        let mut chosen: Vec<&Endpoint> = taking(EndpointHealth::Passing).collect();
        if chosen.is_empty() {
            chosen = taking(EndpointHealth::Failing).collect();
        }
        Self {
            staying,
            shares: shares(routes, &chosen),
        }
    }

    /// All weights together.
    pub fn total(&self) -> u64 {
        self.shares.iter().map(|share| share.weight).sum()
    }
}

fn shares(routes: &ServiceRoutes, chosen: &[&Endpoint]) -> Vec<Share> {
    let on_trial = |one: &Endpoint| {
        let split = routes.split.as_ref();
        split.is_some_and(|split| split.version == one.version)
    };
    let percents = |trial: bool| -> u64 {
        let of_part = chosen.iter().filter(|one| on_trial(one) == trial);
        of_part
            .map(|one| u64::from(one.intake.weight.percent()))
            .sum()
    };
    let (trial, rest) = (percents(true), percents(false));
    let mut shares: Vec<Share> = chosen
        .iter()
        .map(|one| {
            let percent = u64::from(one.intake.weight.percent());
            let weight = match &routes.split {
                // Each part's weights add up to its share: those of the other part stand beside.
                Some(split) if trial > 0 && rest > 0 => {
                    let ppm = u64::from(split.traffic.weight.ppm());
                    if on_trial(one) {
                        percent * ppm * rest
                    } else {
                        percent * (FINENESS - ppm) * trial
                    }
                }
                Some(_) | None => percent * FINENESS,
            };
            let to = one.address;
            Share { to, weight }
        })
        .filter(|share| share.weight > 0)
        .collect();
    shares.sort_unstable_by_key(|share| share.to);
    // Two attempts of one instance at one address are one place to the kernel.
    shares.dedup_by(|later, first| {
        let same = later.to == first.to;
        if same {
            first.weight = first.weight.max(later.weight);
        }
        same
    });
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use alloc::vec;
    use mainstay_ids::{Attempt, InstanceId, ServiceName, Version};
    use mainstay_model::Intake;
    use mainstay_model::intake::{IntakeState, Weight};
    use mainstay_model::routing::Split;
    use mainstay_model::traffic::CanaryTraffic;

    fn endpoint(number: u8) -> Endpoint {
        let service = ServiceName::parse("orders").expect("a name");
        Endpoint {
            instance: InstanceId {
                service,
                number: number.into(),
            },
            attempt: Attempt(1),
            version: Version(1),
            address: SocketAddr::from(([10, 77, 0, number], 80)),
            health: EndpointHealth::Passing,
            handle: None,
            intake: Intake::default(),
        }
    }

    fn routes(endpoints: Vec<Endpoint>) -> ServiceRoutes {
        ServiceRoutes {
            service: ServiceName::parse("orders").expect("a name"),
            http: None,
            address: None,
            health_path: None,
            endpoints,
            unavailable: None,
            dead: Vec::new(),
            traffic: mainstay_model::traffic::Traffic::default(),
            rewrites: Vec::new(),
            split: None,
        }
    }

    /// In thousandths of all, by the last number of the address.
    fn thousandths(routes: &ServiceRoutes) -> Vec<(u8, u64)> {
        let spread = Spread::of(routes);
        let total = spread.total();
        let shares = spread.shares.iter().map(|share| match share.to {
            SocketAddr::V4(to) => (to.ip().octets()[3], share.weight * 1000 / total),
            SocketAddr::V6(_) => unreachable!("all are IPv4"),
        });
        shares.collect()
    }

    #[test]
    fn those_that_fail_their_probes_get_nothing_while_another_passes() {
        let mut both = vec![endpoint(1), endpoint(2)];
        both[0].health = EndpointHealth::Failing;
        assert_eq!(thousandths(&routes(both.clone())), [(2, 1000)]);
        both[1].health = EndpointHealth::Failing;
        assert_eq!(thousandths(&routes(both)), [(1, 500), (2, 500)]);
    }

    #[test]
    fn what_an_operator_wants_counts() {
        let mut three = vec![endpoint(1), endpoint(2), endpoint(3)];
        three[0].intake.weight = Weight::new(50).expect("a weight");
        three[2].intake.state = IntakeState::Drain;
        assert_eq!(thousandths(&routes(three.clone())), [(1, 333), (2, 666)]);
        for one in &mut three {
            one.intake.state = IntakeState::Maintenance;
        }
        assert_eq!(thousandths_or_none(&routes(three)), None);
    }

    fn thousandths_or_none(routes: &ServiceRoutes) -> Option<Vec<(u8, u64)>> {
        (!Spread::of(routes).shares.is_empty()).then(|| thousandths(routes))
    }

    #[test]
    fn a_version_on_trial_gets_its_share_however_many_instances_it_has() {
        let mut four = vec![endpoint(1), endpoint(2), endpoint(3), endpoint(4)];
        four[3].version = Version(2);
        let mut routes = routes(four);
        routes.split = Some(Split {
            version: Version(2),
            traffic: CanaryTraffic {
                weight: mainstay_model::Share::from_ppm(100_000).expect("a share"),
                headers: BTreeMap::new(),
                cookies: BTreeMap::new(),
            },
        });
        assert_eq!(
            thousandths(&routes),
            [(1, 300), (2, 300), (3, 300), (4, 100)]
        );
        // Alone it gets all.
        routes.endpoints.drain(..3);
        assert_eq!(thousandths(&routes), [(4, 1000)]);
    }

    #[test]
    fn clients_stay_only_by_what_the_kernel_sees() {
        let mut routes = routes(vec![endpoint(1)]);
        assert_eq!(Spread::of(&routes).staying, Staying::Free);
        routes.traffic.sticky = Some(Sticky::Source);
        assert_eq!(Spread::of(&routes).staying, Staying::Source);
    }
}
