//! Forwarding without the link to a control centre: whoever has routing states hands them over.

use std::net::IpAddr;
use std::path::Path;

use mainstay_ids::{ConsumerId, Incarnation};
use mainstay_model::{Ack, ForwardSettings, Routing};

use super::seams::ForwardSeams;
use super::works::{Input, Works};
use crate::happenings::Diary;

/// The forwarding of a node, as its agent drives it: the same rules, the same care for who is under
/// way, the same file. `mainstay prove` has one in a network of its own.
pub struct Follower {
    works: Works,
    consumer: ConsumerId,
}

impl Follower {
    /// Begins in the network namespace of the calling thread. `state` is where its file lies, `source`
    /// the address from which the node's programs speak. What is wrong is told in words.
    pub fn start(
        settings: &ForwardSettings,
        state: &Path,
        source: IpAddr,
        seams: ForwardSeams,
    ) -> Result<Self, String> {
        let consumer = ConsumerId {
            name: super::CONSUMER.to_owned(),
            incarnation: Incarnation(0),
        };
        let works = Works::start(settings, state, source, seams, Diary::default())?;
        Ok(Self { works, consumer })
    }

    /// Brings a routing state about. When it returns this is in force, or it is told why not.
    pub fn follow(&mut self, routing: Routing) -> Result<Ack, String> {
        self.works.turn(Input::Routes(routing));
        match self.works.trouble() {
            Some(trouble) => Err(trouble.to_owned()),
            None => Ok(self.ack()),
        }
    }

    /// Looks, as an agent does some times in a second, whether all is as it should be.
    pub fn look(&mut self) -> Ack {
        self.works.turn(Input::Tick);
        self.ack()
    }

    fn ack(&self) -> Ack {
        self.works.ack(self.consumer.clone())
    }
}
