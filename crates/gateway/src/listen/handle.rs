//! The handle: looks at the listeners, and tells the chief what an operator wants.

use mainstay_control::listen::Wanted;
use mainstay_ids::ListenName;
use mainstay_model::listen::{ServerName, WEIGHT_MAX};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::listen::limits::ASK_TIME;
use crate::listen::snapshot::ListenSnapshot;

/// Why nothing came of a question or an order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// There is no such listener.
    #[error("there is no listener `{0}`")]
    NoListen(ListenName),
    /// It has no such server.
    #[error("the listener `{listen}` has no server `{server}`")]
    NoServer {
        /// The listener.
        listen: ListenName,
        /// The server.
        server: ServerName,
    },
    /// More than a server can have.
    #[error("a weight is 0 to {WEIGHT_MAX}, not {0}")]
    Weight(u16),
    /// It is in force, and cannot be written down.
    #[error("it is in force, and will be forgotten when the gateway starts anew: {0}")]
    NotKept(String),
    /// The gateway ends, or is stuck.
    #[error("the listeners do not answer; the gateway ends")]
    Gone,
}

/// One server of one listener.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ServerAt {
    pub(crate) listen: ListenName,
    pub(crate) server: ServerName,
}

/// What an operator changes of a server. What is wanted and its weight are kept over restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Want(Wanted),
    /// `None`: as it is written.
    Weight(Option<u16>),
    /// All its sessions of now end.
    Cut,
}

#[derive(Debug)]
pub(crate) enum Ask {
    Snapshot(oneshot::Sender<Vec<ListenSnapshot>>),
    Change {
        at: ServerAt,
        change: Change,
        done: oneshot::Sender<Result<(), HandleError>>,
    },
}

/// The way to the listeners while they run. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    asks: mpsc::Sender<Ask>,
}

impl Handle {
    pub(crate) fn new(asks: mpsc::Sender<Ask>) -> Self {
        Self { asks }
    }

    /// How all listeners stand, by name.
    pub async fn snapshot(&self) -> Result<Vec<ListenSnapshot>, HandleError> {
        let (answer, answered) = oneshot::channel();
        self.ask(Ask::Snapshot(answer), answered).await
    }

    /// Drains a server, takes it in again, or puts it into maintenance.
    pub async fn want(
        &self,
        listen: ListenName,
        server: ServerName,
        wanted: Wanted,
    ) -> Result<(), HandleError> {
        let at = ServerAt { listen, server };
        self.change(at, Change::Want(wanted)).await
    }

    /// Gives a server another weight, or (`None`) that which is written.
    pub async fn set_weight(
        &self,
        listen: ListenName,
        server: ServerName,
        weight: Option<u16>,
    ) -> Result<(), HandleError> {
        if let Some(weight) = weight
            && weight > WEIGHT_MAX
        {
            return Err(HandleError::Weight(weight));
        }
        let at = ServerAt { listen, server };
        self.change(at, Change::Weight(weight)).await
    }

    /// Closes all sessions that a server has now.
    pub async fn cut_sessions(
        &self,
        listen: ListenName,
        server: ServerName,
    ) -> Result<(), HandleError> {
        let at = ServerAt { listen, server };
        self.change(at, Change::Cut).await
    }

    async fn change(&self, at: ServerAt, change: Change) -> Result<(), HandleError> {
        let (done, answered) = oneshot::channel();
        self.ask(Ask::Change { at, change, done }, answered).await?
    }

    async fn ask<A>(&self, ask: Ask, answered: oneshot::Receiver<A>) -> Result<A, HandleError> {
        let answer = async {
            self.asks.send(ask).await.map_err(|_| HandleError::Gone)?;
            answered.await.map_err(|_| HandleError::Gone)
        };
        timeout(ASK_TIME, answer)
            .await
            .unwrap_or(Err(HandleError::Gone))
    }
}
