//! What the control centre knows of services with an address. It is asked for lists, not for the
//! routes: whoever follows those is waited for.

use std::net::SocketAddr;
use std::time::Duration;

use mainstay_api::client::Error;
use mainstay_api::wire::{InstanceStatus, ServiceStatus};
use mainstay_control::forward::{Share, Slots, Spread, Staying};
use mainstay_ids::{InstanceId, ServiceName};
use mainstay_model::InstanceState;
use tokio::time::timeout;

use crate::arguments::Place;
use crate::command::client;

/// Names are a help: nobody waits for a control centre that hangs.
const TIME: Duration = Duration::from_secs(2);

/// All services.
#[derive(Debug, Default)]
pub(super) struct Known {
    services: Vec<ServiceStatus>,
    instances: Vec<InstanceStatus>,
}

impl Known {
    /// Asks; in words: why it is not known.
    pub(super) async fn ask(place: &Place) -> Result<Self, String> {
        let client = client(place);
        let asked = async {
            Ok::<_, Error>(Self {
                services: client.get("/v1/services").await?,
                instances: client.get("/v1/instances").await?,
            })
        };
        match timeout(TIME, asked).await {
            Ok(Ok(known)) => Ok(known),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => {
                let seconds = TIME.as_secs();
                Err(format!(
                    "the control centre did not answer within {seconds} s"
                ))
            }
        }
    }

    /// Each service that has an address.
    pub(super) fn addressed(&self) -> impl Iterator<Item = (&ServiceName, SocketAddr)> {
        let services = self.services.iter();
        services.filter_map(|service| Some((&service.service, service.address?)))
    }

    /// The service of an address.
    pub(super) fn service(&self, address: SocketAddr) -> Option<&ServiceName> {
        let mut addressed = self.addressed();
        addressed.find_map(|(service, own)| (own == address).then_some(service))
    }

    /// The instance that listens at an address.
    pub(super) fn instance(&self, address: SocketAddr) -> Option<&InstanceId> {
        let mut instances = self.instances.iter();
        let found = instances.find(|one| one.address == Some(address));
        found.map(|one| &one.instance)
    }

    /// How its connections are to be spread, as far as lists tell: by weights, among those that pass
    /// their probes. Shares of canaries and clients that stay are in the routes alone.
    pub(super) fn spread(&self, service: &ServiceName) -> Spread {
        let takes = |one: &&InstanceStatus| {
            let passes = matches!(one.state, InstanceState::Healthy | InstanceState::Ready);
            one.service == *service && passes && one.intake.takes_any()
        };
        let shares = self.instances.iter().filter(takes).filter_map(|one| {
            let to = one.address?;
            let weight = u64::from(one.intake.weight.percent());
            Some(Share { to, weight })
        });
        let mut shares: Vec<Share> = shares.collect();
        shares.sort_unstable_by_key(|share| share.to);
        shares.dedup_by_key(|share| share.to);
        let staying = Staying::Free;
        Spread { staying, shares }
    }

    /// The same as slots; `None`: nobody is there.
    pub(super) fn slots(&self, service: &ServiceName) -> Option<Slots> {
        Slots::of(&self.spread(service), None)
    }
}
