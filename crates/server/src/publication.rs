//! What is published, ready to be sent: one newest state each, for any number of readers.

use bytes::Bytes;
use mainstay_ids::Generation;
use mainstay_model::{Directory, NodePlan, Routing};
use serde::Serialize;
use tokio::sync::watch;

/// One published state as the line that goes over the API, shared by all readers.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) generation: Generation,
    pub(crate) line: Bytes,
}

/// The sending ends; `None` until the first publication.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) routing: watch::Sender<Option<Published>>,
    pub(crate) plan: watch::Sender<Option<Published>>,
    pub(crate) directory: watch::Sender<Option<Published>>,
    /// The number of the newest event: a doorbell, the events are asked for.
    pub(crate) events: watch::Sender<u64>,
}

impl Publication {
    pub(crate) fn new() -> Self {
        Self {
            routing: watch::Sender::new(None),
            plan: watch::Sender::new(None),
            directory: watch::Sender::new(None),
            events: watch::Sender::new(0),
        }
    }

    pub(crate) fn publish_routing(&self, routing: &Routing) {
        publish(&self.routing, routing.generation, routing);
    }

    pub(crate) fn publish_plan(&self, plan: &NodePlan) {
        publish(&self.plan, plan.generation, plan);
    }

    pub(crate) fn publish_directory(&self, directory: &Directory) {
        publish(&self.directory, directory.generation, directory);
    }
}

fn publish(to: &watch::Sender<Option<Published>>, generation: Generation, state: &impl Serialize) {
    to.send_if_modified(|published| {
        let last = published.as_ref().map(|published| published.generation);
        if last == Some(generation) {
            return false;
        }
        debug_assert!(
            last < Some(generation),
            "{last:?} is newer than {generation}"
        );
        let mut line = serde_json::to_vec(state).expect("a state is JSON");
        line.push(b'\n');
        *published = Some(Published {
            generation,
            line: line.into(),
        });
        true
    });
}
