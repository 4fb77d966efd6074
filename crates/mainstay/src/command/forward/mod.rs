//! `mainstay forward`: what the kernel of this network namespace does with service addresses. Looks at
//! the kernel itself, so that it works without any other process of ours; names come from the control
//! centre, if it answers.

pub(crate) mod explain;
pub(crate) mod ls;

use std::time::Duration;

use anyhow::Context as _;
use mainstay_forward::nft;
use mainstay_ids::{InstanceId, ServiceName};
use mainstay_kernel::netlink::nft::Name;
use mainstay_model::routing::{Routing, ServiceRoutes};
use tokio::time::timeout;

use super::client;
use crate::arguments::Place;

/// Names are a help: nobody waits for a control centre that hangs.
const ROUTES_TIME: Duration = Duration::from_secs(2);

/// The table of the agent.
pub(crate) fn table() -> anyhow::Result<Name> {
    Name::new(nft::TABLE).context("the table's name is one")
}

/// The routes as the control centre has them now; in words: why they are not known.
async fn routes(place: &Place) -> Result<Vec<ServiceRoutes>, String> {
    let first = async {
        let client = client(place);
        let mut watch = client.watch::<Routing>("/v1/watch/routes").await?;
        watch.next().await
    };
    match timeout(ROUTES_TIME, first).await {
        Ok(Ok(Some(routing))) => Ok(routing.services),
        Ok(Ok(None)) => Err("the control centre ended its answer".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!(
            "the control centre did not answer within {} s",
            ROUTES_TIME.as_secs()
        )),
    }
}

/// The service that has an address.
fn service_at(routes: &[ServiceRoutes], address: std::net::SocketAddr) -> Option<&ServiceRoutes> {
    let mut services = routes.iter();
    services.find(|service| service.address == Some(address))
}

/// The names of a service and of its instance at an address.
fn names(
    routes: &[ServiceRoutes],
    address: std::net::SocketAddr,
    instance: std::net::SocketAddr,
) -> (Option<ServiceName>, Option<InstanceId>) {
    let service = service_at(routes, address);
    let mut endpoints = service.into_iter().flat_map(|service| &service.endpoints);
    let endpoint = endpoints.find(|endpoint| endpoint.address == instance);
    (
        service.map(|service| service.service.clone()),
        endpoint.map(|endpoint| endpoint.instance.clone()),
    )
}
