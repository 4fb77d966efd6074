//! A running control centre that a test may kill.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use mainstay_api::client::{Client, Error as ClientError, Server};
use mainstay_api::wire::{Applied, Apply, Problem};
use mainstay_control::AcknowledgedDrain;
use mainstay_ids::{Incarnation, NodeName, ServiceName};
use mainstay_model::service::{
    Check, HealthSpec, LimitsSpec, LogSpec, OnFailure, RolloutSpec, ServiceSpec, Step,
};
use mainstay_model::{HostPattern, HttpMatch, PathPrefix, Template, Traffic};
use mainstay_server::{EarlierStop, Error, Options, Sockets, TOKEN_FILE};
use mainstay_testkit::{TempDir, wait_until};
use tokio_util::sync::CancellationToken;

/// No test waits longer for anything; a slow machine may need a good part of it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// What outlives a control centre: its files, and its sockets, which the supervisor holds.
pub(crate) struct Place {
    dir: TempDir,
    state: PathBuf,
    unix: UnixListener,
    tcp: TcpListener,
    incarnation: Incarnation,
    acknowledged_drain: AcknowledgedDrain,
    pub(crate) earlier_stop: EarlierStop,
    api_group: Option<u32>,
}

/// One incarnation; killed when it is dropped.
pub(crate) struct Running {
    kill: CancellationToken,
    stop: CancellationToken,
    thread: Option<JoinHandle<Option<Result<(), Error>>>>,
}

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        let dir = TempDir::new(name);
        let state = dir.path().to_owned();
        Self::with_state(dir, &state)
    }

    /// The state is in `state`, the sockets in `dir`.
    pub(crate) fn with_state(dir: TempDir, state: &Path) -> Self {
        let unix = UnixListener::bind(dir.join("api.sock")).expect("binds");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("binds");
        Self {
            dir,
            state: state.to_owned(),
            unix,
            tcp,
            incarnation: Incarnation(0),
            acknowledged_drain: AcknowledgedDrain::On,
            earlier_stop: EarlierStop::GoesOn,
            api_group: None,
        }
    }

    pub(crate) fn set_api_group(&mut self, group: u32) {
        self.api_group = Some(group);
    }

    pub(crate) fn set_acknowledged_drain(&mut self, drain: AcknowledgedDrain) {
        self.acknowledged_drain = drain;
    }

    /// Starts the next incarnation on the same files and sockets, as the supervisor does.
    pub(crate) fn start(&mut self) -> Running {
        self.incarnation.0 += 1;
        let options = Options {
            ranges: None,
            state: self.state.clone(),
            node: node(),
            incarnation: self.incarnation,
            entry: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            stats: None,
            earlier_stop: self.earlier_stop,
            api_group: self.api_group,
            acknowledged_drain: self.acknowledged_drain,
        };
        let sockets = Sockets {
            api: self.unix.try_clone().expect("clones"),
            api_tcp: Some(self.tcp.try_clone().expect("clones")),
        };
        let (kill, stop) = (CancellationToken::new(), CancellationToken::new());
        let (killed, stopped) = (kill.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().expect("a runtime");
            // At `killed` the runtime is dropped with every task in it, wherever they are.
            runtime.block_on(async {
                tokio::select! {
                    ended = mainstay_server::run(options, sockets, stopped) => Some(ended),
                    () = killed.cancelled() => None,
                }
            })
        });
        Running {
            kill,
            stop,
            thread: Some(thread),
        }
    }

    /// The control centre's own directory.
    pub(crate) fn control(&self) -> PathBuf {
        self.state.join("control")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("api.sock")
    }

    /// The state directory.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    pub(crate) fn client(&self) -> Client {
        Client::unix(&self.socket())
    }

    pub(crate) fn tcp(&self) -> SocketAddr {
        self.tcp.local_addr().expect("is bound")
    }

    pub(crate) fn token(&self) -> String {
        let text = wait_until(DEADLINE, "the token is made", || {
            let text = std::fs::read_to_string(self.state.join(TOKEN_FILE));
            text.map_err(|error| error.to_string())
        });
        text.trim().to_owned()
    }

    pub(crate) fn tcp_client(&self) -> Client {
        Client::new(Server::Tcp {
            address: self.tcp(),
            token: self.token(),
        })
    }
}

impl Running {
    /// Ends it without a word: no task gets to do anything more.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// Tells it to stop, and waits for its end.
    pub(crate) async fn stop(mut self) -> Result<(), Error> {
        self.stop.cancel();
        self.ended().await
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> Result<(), Error> {
        let thread = self.thread.take().expect("was not waited for yet");
        let joined = tokio::task::spawn_blocking(move || thread.join());
        let joined = tokio::time::timeout(DEADLINE, joined)
            .await
            .expect("ends in time");
        let ended = joined.expect("is joined").expect("does not panic");
        ended.expect("was not killed")
    }

    fn end(&mut self) {
        self.kill.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic in it has been printed, and failed the test if it mattered.
            thread.join().ok();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

pub(crate) fn node() -> NodeName {
    NodeName::parse("local").expect("legal")
}

pub(crate) fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).expect("legal")
}

/// A service that is ready as soon as it passes.
pub(crate) fn spec(name: &str, instances: u32) -> ServiceSpec {
    let one = NonZeroU32::MIN;
    let host = Some(HostPattern::parse(name).expect("legal"));
    let path = PathPrefix::parse("/").expect("legal");
    ServiceSpec {
        name: service(name),
        exec: vec![Template::parse("/bin/true").expect("legal")],
        dir: "/".to_owned(),
        user: None,
        env: [].into(),
        address: None,
        http: Some(HttpMatch::new(host, path).into()),
        traffic: Traffic::default(),
        health: HealthSpec {
            check: Check::Tcp,
            every: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            fall: one,
            rise: one,
            start: None,
            restart: None,
        },
        instances,
        rollout: RolloutSpec {
            step: Step::Count(one),
            hold: Duration::ZERO,
            deadline: Duration::from_mins(1),
            progress: mainstay_model::service::PROGRESS,
            canary: None,
            on_failure: OnFailure::Rollback,
        },
        drain: Duration::from_mins(1),
        grace: Duration::from_secs(5),
        log: LogSpec {
            size: 1 << 20,
            keep: 1,
        },
        slo: None,
        needs: std::collections::BTreeSet::new(),
        before: Vec::new(),
        schedule: None,
        limits: LimitsSpec::default(),
        secrets: BTreeMap::new(),
        artifact: None,
    }
}

pub(crate) async fn apply(
    client: &Client,
    services: Vec<ServiceSpec>,
) -> Result<Applied, ClientError> {
    let apply = Apply {
        services,
        dry_run: false,
    };
    client.post("/v1/services", &apply).await
}

/// The problem with which a call was refused.
#[track_caller]
pub(crate) fn problem<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> Problem {
    match outcome {
        Err(ClientError::Refused(problem)) => problem,
        other => panic!("expected a refusal, saw {other:?}"),
    }
}
