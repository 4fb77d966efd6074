//! What forwards: the trait, and what it is told.

use std::net::SocketAddr;

use mainstay_control::forward::Batch;
use mainstay_model::forward::BackEndKind;

use crate::router::Opened;

/// What a look at the rules found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// They are as we left them.
    InForce,
    /// Somebody had changed them, and they are as we left them again. In words: what was wrong.
    Repaired(String),
}

/// What an instance was sent and has sent through service addresses, since counting began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Bytes to it.
    pub sent: u64,
    /// Bytes from it.
    pub received: u64,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// Rules need a right that this process does not have.
    #[error("forwarding by {back_end} needs CAP_NET_ADMIN in this network namespace")]
    Forbidden {
        /// By what.
        back_end: BackEndKind,
        /// What the kernel said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The host does not have what it takes.
    #[error("this host cannot forward by {back_end}")]
    Missing {
        /// By what.
        back_end: BackEndKind,
        /// What is missing.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A change was refused; everything is as before.
    #[error("{back_end} could not change {what}; everything is as before")]
    Refused {
        /// By what.
        back_end: BackEndKind,
        /// Of which service, if it is known.
        what: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another program changes the same rules again and again.
    #[error("another program changes rules all the time: tried {0} times")]
    Overtaken(usize),
}

/// Reads what a back end counts, beside it: thousands of counters take some ten milliseconds, for which no
/// change shall wait. Of the network namespace of the thread that made it.
pub trait Meter: Send {
    /// New connections to each service address since its rules were made.
    fn connections(&mut self) -> Result<Vec<(SocketAddr, u64)>, ForwardError>;

    /// What each instance was sent and has sent. `None`: it is not counted.
    fn traffic(&mut self) -> Result<Option<Vec<(SocketAddr, Counted)>>, ForwardError>;

    /// Connections and flows of each instance that are open now, if the back end has them in its own
    /// hands. `None`: the kernel has them.
    fn in_flight(&mut self) -> Result<Option<Vec<(SocketAddr, u64)>>, ForwardError> {
        Ok(None)
    }
}

/// Brings about what it is told. Calls block for as long as the kernel takes: some milliseconds for a
/// change, a second for all of very many services.
pub trait BackEnd: Send {
    /// Which one it is.
    fn kind(&self) -> BackEndKind;

    /// The service addresses and dead instances that are in force: after a start, those that an
    /// earlier process left.
    fn in_force(&self) -> (Vec<SocketAddr>, Vec<SocketAddr>);

    /// Changes all of it or nothing. In force when it returns.
    fn apply(&mut self, batch: &Batch) -> Result<(), ForwardError>;

    /// Looks whether rules are as they were left, and repairs them. Cheap if nobody changed any.
    fn check(&mut self) -> Result<Found, ForwardError>;

    /// Has nothing be forwarded of these versions of IP but connections to service addresses, since it was
    /// us who had the host forward them. Whether it can: `false` changes nothing.
    fn limit(&mut self, _opened: Opened) -> Result<bool, ForwardError> {
        Ok(false)
    }

    /// What reads its counts beside it.
    fn meter(&self) -> Result<Box<dyn Meter>, ForwardError>;

    /// Takes everything away that it made.
    fn remove(&mut self) -> Result<(), ForwardError>;
}
