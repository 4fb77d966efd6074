//! Listeners in HTTP mode. To the workers each is a service whose endpoints are its servers, so that
//! a request to a server goes the way of any other: one path serves both. Who may be asked, and how
//! much, is the chief's to say; what becomes of a request is the gateway's.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use mainstay_ids::ListenName;
use tokio::net::TcpStream;

use crate::caller;
use crate::connection::{self, Arrival, Scope};
use crate::listen::roster::RosterListen;
use crate::listen::seat::Floor;
use crate::metrics::{FrontendCounts, ServiceCounts};
use crate::policy::Policy;
use crate::table::{Group, Owner, TableEndpoint};
use crate::worker::Worker;

/// What a listener in HTTP mode is to the workers.
#[derive(Debug)]
pub(crate) struct HttpService {
    pub(crate) name: ListenName,
    pub(crate) counts: Arc<ServiceCounts>,
    /// Where its clients come in.
    pub(crate) frontend: Arc<FrontendCounts>,
    pub(crate) policy: Arc<Policy>,
    /// Those of its servers that take requests.
    pub(crate) endpoints: Vec<TableEndpoint>,
}

impl HttpService {
    pub(crate) fn group(&self) -> Group<'_> {
        Group {
            owner: Owner::Listen(self.name.clone()),
            counts: &self.counts,
            unavailable: None,
            policy: &self.policy,
            endpoints: &self.endpoints,
        }
    }
}

/// Serves a connection of a client to its end.
pub(crate) async fn serve(
    floor: &Floor,
    listen: &RosterListen,
    client: TcpStream,
    peer: SocketAddr,
    address: SocketAddr,
) {
    listen.tally.total.add(1);
    let (Some(worker), Some(http)) = (&floor.worker, &listen.http) else {
        listen.tally.unserved.add(1);
        tracing::warn!(listen = %listen.spec.name, "requests are served only beside a gateway's entry");
        return;
    };
    let talk = talk(worker, (listen, http), client, peer, address);
    // Boxed, so that it moves no further, whoever waits for it.
    floor.all.run_until_cancelled(Box::pin(talk)).await;
}

async fn talk(
    worker: &Rc<Worker>,
    (listen, http): (&RosterListen, &HttpService),
    mut stream: TcpStream,
    peer: SocketAddr,
    address: SocketAddr,
) {
    worker.await_room(&http.frontend).await;
    let place = worker.begin();
    let trusted = listen.spec.accept_proxy.as_deref();
    let identified = Box::pin(caller::identify(trusted, &mut stream, peer)).await;
    let (caller, early) = match identified {
        Ok(identified) => identified,
        Err(error) => {
            listen.tally.refused.add(1);
            let error = &error as &dyn std::error::Error;
            tracing::debug!(listen = %listen.spec.name, %peer, error, "a connection was refused");
            return;
        }
    };
    let Some(place) = worker.settle(place, caller.client.ip(), &http.frontend) else {
        return;
    };
    let arrival = Arrival {
        stream,
        client: caller.client,
        early,
        scope: Scope::Listen(address),
        open: http.frontend.open(),
    };
    let talk = connection::serve(place, Rc::clone(worker), arrival);
    Rc::clone(worker).in_steps(talk).await;
}
