//! How the API's tasks reach the one that owns the state.

use std::time::Duration;

use mainstay_api::wire::{Problem, ProblemCode};
use mainstay_control::{Input, Reply};
use mainstay_journal::Outline;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::chronicle::Shelf;
use crate::publication::{Publication, Published};
use crate::views::View;

/// Questions that wait for the owner: each connection has at most a few under way. When it is
/// full the askers wait, each for at most [`ANSWER_DEADLINE`].
pub(crate) const INBOX_LEN: usize = 256;

/// How long an asker waits: for one save, and perhaps one before it, on a disk that hangs. Below
/// the ten seconds after which callers of the API give up.
const ANSWER_DEADLINE: Duration = Duration::from_secs(8);

/// A question to the owner of the state.
pub(crate) enum Ask {
    /// Something happened, or somebody wants a change.
    HandIn(Asked),
    /// Somebody wants to look.
    Read(Look),
}

/// A look at the state that sends away by itself what it saw.
pub(crate) type Look = Box<dyn FnOnce(&View<'_>) + Send>;

/// An input and who waits for its outcome.
pub(crate) struct Asked {
    pub(crate) input: Input,
    pub(crate) answer: oneshot::Sender<Result<Reply, Problem>>,
}

/// The asking end; cheap to clone.
#[derive(Clone)]
pub(crate) struct Handle {
    inbox: mpsc::Sender<Ask>,
    routing: watch::Receiver<Option<Published>>,
    plan: watch::Receiver<Option<Published>>,
    directory: watch::Receiver<Option<Published>>,
    events: watch::Receiver<u64>,
    shelf: Shelf,
}

impl Handle {
    pub(crate) fn new(inbox: mpsc::Sender<Ask>, publication: &Publication, shelf: Shelf) -> Self {
        Self {
            inbox,
            routing: publication.routing.subscribe(),
            plan: publication.plan.subscribe(),
            directory: publication.directory.subscribe(),
            events: publication.events.subscribe(),
            shelf,
        }
    }

    /// Hands an input in. `Ok`: it was taken over, durably if it is somebody's wish.
    pub(crate) async fn hand_in(&self, input: Input) -> Result<Reply, Problem> {
        let (answer, outcome) = oneshot::channel();
        self.ask(Ask::HandIn(Asked { input, answer }), outcome)
            .await?
    }

    /// Looks at the state.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let (answer, outcome) = oneshot::channel();
        let look = Box::new(move |view: &View<'_>| {
            // An asker that went away needs no answer.
            let _ = answer.send(look(view));
        });
        self.ask(Ask::Read(look), outcome).await
    }

    async fn ask<T>(&self, ask: Ask, outcome: oneshot::Receiver<T>) -> Result<T, Problem> {
        let exchange = async {
            self.inbox.send(ask).await.map_err(|_| stopping())?;
            outcome.await.map_err(|_| stopping())
        };
        timeout(ANSWER_DEADLINE, exchange)
            .await
            .map_err(|_| slow())?
    }

    /// The newest routing state and those to come.
    pub(crate) fn routing(&self) -> watch::Receiver<Option<Published>> {
        self.routing.clone()
    }

    /// The newest plan and those to come.
    pub(crate) fn plan(&self) -> watch::Receiver<Option<Published>> {
        self.plan.clone()
    }

    /// The newest directory and those to come.
    pub(crate) fn directory(&self) -> watch::Receiver<Option<Published>> {
        self.directory.clone()
    }

    /// The history on disk as it is now.
    pub(crate) fn outline(&self) -> Option<Outline> {
        self.shelf.borrow().clone()
    }

    /// The number of the newest event.
    pub(crate) fn events(&self) -> watch::Receiver<u64> {
        self.events.clone()
    }
}

fn stopping() -> Problem {
    Problem::new(
        ProblemCode::CentreStopping,
        "the control centre is stopping",
    )
}

fn slow() -> Problem {
    Problem::new(
        ProblemCode::StorageSlow,
        format!(
            "the disk did not take the state within {ANSWER_DEADLINE:?}; \
             whether the change was taken over is not known yet"
        ),
    )
}
