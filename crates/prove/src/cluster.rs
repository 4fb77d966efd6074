//! The running Mainstay as this crate sees it: what the public API tells and takes, and nothing
//! else. No other file of this crate calls it.

use mainstay_api::client::{Client, Error, Server};
use mainstay_api::wire::{
    Accepted, Applied, Apply, EventLine, InstanceStatus, Scale, ServiceStatus, Status,
};
use mainstay_ids::{ServiceName, Version};
use mainstay_model::{Event, ServiceSpec};

/// A running Mainstay.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    client: Client,
}

/// The services and instances at one moment, or nearly: two calls apart.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) services: Vec<ServiceStatus>,
    pub(crate) instances: Vec<InstanceStatus>,
}

/// A change that the control centre has taken over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    /// The version that is wanted now.
    pub(crate) version: Version,
    /// The number of the last event before it.
    pub(crate) event: u64,
}

impl Cluster {
    pub(crate) fn new(server: Server) -> Self {
        Self {
            client: Client::new(server),
        }
    }

    pub(crate) async fn status(&self) -> Result<Status, Error> {
        self.client.get("/v1/status").await
    }

    pub(crate) async fn instances(&self) -> Result<Vec<InstanceStatus>, Error> {
        self.client.get("/v1/instances").await
    }

    pub(crate) async fn snapshot(&self) -> Result<Snapshot, Error> {
        let services = self.client.get("/v1/services").await?;
        Ok(Snapshot {
            services,
            instances: self.instances().await?,
        })
    }

    pub(crate) async fn spec(&self, service: &ServiceName) -> Result<ServiceSpec, Error> {
        self.client
            .get(&format!("/v1/services/{service}/spec"))
            .await
    }

    /// Declares one service; `None`: the answer does not name it.
    pub(crate) async fn apply(&self, spec: &ServiceSpec) -> Result<Option<Change>, Error> {
        let apply = Apply {
            services: vec![spec.clone()],
            dry_run: false,
        };
        let applied: Applied = self.client.post("/v1/services", &apply).await?;
        let event = applied.event;
        Ok(applied.services.first().map(|service| Change {
            version: service.version,
            event,
        }))
    }

    pub(crate) async fn scale(&self, service: &ServiceName, instances: u32) -> Result<(), Error> {
        let path = format!("/v1/services/{service}/scale");
        let _: Accepted = self.client.post(&path, &Scale { instances }).await?;
        Ok(())
    }

    /// What has happened to a service behind the event of that number.
    pub(crate) async fn events(
        &self,
        service: &ServiceName,
        after: u64,
    ) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        let mut stream = self
            .client
            .watch(&format!("/v1/events?after={after}&follow=false"))
            .await?;
        while let Some(event) = stream.next().await? {
            // Behind the start of a scenario there are fewer than are kept.
            let EventLine::Event(event) = event else {
                continue;
            };
            if event.service.as_ref() == Some(service) {
                events.push(*event);
            }
        }
        Ok(events)
    }
}

impl Snapshot {
    pub(crate) fn service(&self, name: &ServiceName) -> Option<&ServiceStatus> {
        self.services
            .iter()
            .find(|service| service.service == *name)
    }

    /// A service's instances by number.
    pub(crate) fn of(&self, name: &ServiceName) -> Vec<&InstanceStatus> {
        let mut of: Vec<_> = self
            .instances
            .iter()
            .filter(|i| i.service == *name)
            .collect();
        of.sort_by_key(|instance| instance.instance.number);
        of
    }
}
