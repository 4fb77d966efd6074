//! The control centre as a process: the API, the desired state and the watches around the decisions
//! of `mainstay-control`.
//!
//! It decides nothing itself and touches no instance. Only it touches the store; whoever wants to
//! know or change something goes through its API. When it is away, gateways and agents go on with
//! what it published last.
//!
//! ```text
//!   api.sock ──┐   one task per connection            one task
//!              ├─▶ http: admission, router ──Ask──▶  centre: owns Control ──lends──▶ thread that
//!   :7770 ─────┘     ▲ ▲    ▲                 mpsc       │ │                        writes:
//!                    │ │    └──answer─────── oneshot ────┘ │ └──────registry─────── state.db
//!                    │ └────── newest routing, plan, ──────┤
//!                    │         number of last event: watch │ events: mpsc, 16
//!                    └───────── outline: watch ───────── scribe ──lends chronicle─▶ thread: history/
//! ```
//!
//! One turn of the centre: everything that waits in the inbox, decide, save, publish, answer.
//! Invariants: nothing is answered or planned that was not durable before; a reader that does not
//! read holds one state; the tasks of connections hold no state of their own.
//!
//! Start reading at [`run`], then at `centre` for the loop and what happens when the disk is full,
//! then at `http::endpoints` for the paths.

mod archive;
mod centre;
mod chronicle;
mod handle;
mod history;
mod http;
mod layout;
mod past;
mod publication;
mod registry;
mod safekeeping;
mod secrets;
mod takeover;
mod token;
mod views;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use mainstay_control::AcknowledgedDrain;
use mainstay_ids::{Incarnation, NodeName};
use mainstay_model::forward::Ranges;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::centre::Centre;
use crate::http::{Admission, Api, Listener};
use crate::safekeeping::Copier;
use crate::secrets::Secrets;
use crate::token::Token;

pub use crate::archive::StateError;
pub use crate::centre::{RunError, StartError};
pub use crate::http::ListenError;
pub use crate::layout::LayoutError;
pub use crate::registry::{LoadError, SaveError};
pub use crate::safekeeping::{Held, Restored, SafekeepingError, backup, look, restore};
pub use crate::token::{TOKEN_FILE, TokenError};

/// How long an end waits for the last events to be written: what is true is durable already.
const LAST_EVENTS_DEADLINE: Duration = Duration::from_secs(2);

/// What a control centre is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The state directory; the control centre's own files are in `control` below it.
    pub state: PathBuf,
    /// The node that it controls.
    pub node: NodeName,
    /// Which start of it. It grows with each, and never faster than the epoch: where the state was
    /// lost or is an old one, the epoch follows it.
    pub incarnation: Incarnation,
    /// Where the gateway listens for clients outside, to be told in the status.
    pub entry: Vec<SocketAddr>,
    /// Where the gateway shows statistics, to be told; `None`: nowhere.
    pub stats: Option<SocketAddr>,
    /// What becomes of a stop of everything that the incarnation before was at.
    pub earlier_stop: EarlierStop,
    /// The group whose members may call on the unix socket, beside the own account and root.
    pub api_group: Option<u32>,
    /// Where service addresses may lie, beside loopback; `auto` ones are picked from the first.
    pub ranges: Option<Ranges>,
    /// A test seam, see [`AcknowledgedDrain`].
    pub acknowledged_drain: AcknowledgedDrain,
}

/// What becomes of a stop of everything in which the control centre was killed, or that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlierStop {
    /// Whoever asked for it still waits: it goes on.
    GoesOn,
    /// Mainstay was started again since: what is declared is kept up.
    IsOver,
}

/// The listening sockets that were handed over.
#[derive(Debug)]
pub struct Sockets {
    /// The unix socket.
    pub api: UnixListener,
    /// The loopback port; anybody on the machine may connect, so that calls need the token.
    pub api_tcp: Option<TcpListener>,
}

/// Why a control centre ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A socket cannot be used.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// It cannot start.
    #[error("cannot start the control centre")]
    Start(#[from] StartError),
    /// It cannot go on.
    #[error("the control centre cannot go on")]
    Run(#[from] RunError),
    /// A task of it panicked. What is on disk is whole; the next start continues from there.
    #[error("a task of the control centre failed")]
    Task(#[from] JoinError),
}

/// Runs the control centre until `stop`, on the current runtime.
///
/// At the end watches end, connections finish what they are at within two seconds, and the last
/// turn of the loop is completed.
pub async fn run(options: Options, sockets: Sockets, stop: CancellationToken) -> Result<(), Error> {
    // First the sockets: until the state is open callers wait instead of being refused.
    let mut listeners = vec![Listener::unix(sockets.api)?];
    if let Some(socket) = sockets.api_tcp {
        listeners.push(Listener::loopback(socket)?);
    }
    let (centre, handle, scribe, store) = Centre::open(&options).await?;
    let admission = Admission::new(Token::load_or_make(&options.state)?, options.api_group);
    tracing::info!(incarnation = options.incarnation.0, node = %options.node, "control centre starts");

    // The listeners end first, so that every question that was let in gets its answer.
    let stop_listening = stop.child_token();
    let stop_centre = CancellationToken::new();
    let router = Api::new(
        handle,
        Secrets::of(&options.state),
        Copier::new(store),
        options.node,
        stop_listening.clone(),
    )
    .router();
    let mut serving = JoinSet::new();
    for listener in listeners {
        serving.spawn(listener.serve(router.clone(), admission.clone(), stop_listening.clone()));
    }
    drop(router);
    let mut centre = AbortOnDropHandle::new(tokio::spawn(centre.run(stop_centre.clone())));
    let mut scribe = AbortOnDropHandle::new(tokio::spawn(scribe.run()));
    tokio::select! {
        () = stop.cancelled() => {}
        // Without the owner of the state every call would fail: better to be started anew.
        ended = &mut centre => {
            stop_listening.cancel();
            while let Some(served) = serving.join_next().await {
                served?;
            }
            return Ok(ended??);
        }
        Some(Err(panicked)) = serving.join_next() => return Err(panicked.into()),
        // It ends before the centre only by a panic.
        written = &mut scribe => return Ok(written??),
    }
    while let Some(served) = serving.join_next().await {
        served?;
    }
    stop_centre.cancel();
    centre.await??;
    // The centre's end is the scribe's sign to write the rest.
    if let Ok(written) = timeout(LAST_EVENTS_DEADLINE, scribe).await {
        written??;
    } else {
        tracing::warn!("the disk did not take the last events; they are not kept");
    }
    Ok(())
}
