//! What is done to the holder of the address, and how what the clients saw is judged.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::clients::Clients;
use super::report::{Done, Evidence, Move, Report, judge};
use super::rig::{ADDRESS, NODES, PORT, Rig};
use super::{Error, Options};

/// The undisturbed round before.
const CONTROL: Duration = Duration::from_secs(2);
/// How long clients go on when all has become what it should.
const SETTLED: Duration = Duration::from_secs(3);

/// The first node holds the address at the begin.
const HOLDER: usize = 0;
const OTHER: usize = 1;

/// One way to take the address from its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Scenario {
    /// SIGKILL of its gateway.
    #[serde(rename = "vip-gateway-killed")]
    GatewayKilled,
    /// SIGSTOP of its gateway.
    #[serde(rename = "vip-gateway-frozen")]
    GatewayFrozen,
    /// All of its processes are killed, and its cable is pulled.
    #[serde(rename = "vip-host-gone")]
    HostGone,
    /// Its cable is pulled and plugged in again.
    #[serde(rename = "vip-link-cut")]
    LinkCut,
    /// Its gateway is replaced.
    #[serde(rename = "vip-upgrade")]
    Upgrade,
    /// It gives the address away on purpose.
    #[serde(rename = "vip-move")]
    Move,
    /// Its whole node is stopped, as an operator does, and started again.
    #[serde(rename = "vip-stop")]
    Stop,
}

/// A text that names none of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no scenario of floating addresses; expected vip-gateway-killed, vip-gateway-frozen, vip-host-gone, \
     vip-link-cut, vip-upgrade, vip-move or vip-stop"
)]
pub struct ScenarioError {
    text: String,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::GatewayKilled,
        Self::GatewayFrozen,
        Self::HostGone,
        Self::LinkCut,
        Self::Upgrade,
        Self::Move,
        Self::Stop,
    ];

    /// What it does, for people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::GatewayKilled => "the gateway of the address's holder is killed",
            Self::GatewayFrozen => "the gateway of the address's holder is frozen",
            Self::HostGone => "the machine that holds the address vanishes, and returns",
            Self::LinkCut => "the cable of the address's holder is pulled, and plugged in again",
            Self::Upgrade => "the gateway of the address's holder is replaced",
            Self::Move => "the address is moved on purpose",
            Self::Stop => "the node that holds the address is stopped, and started again",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::GatewayKilled => "vip-gateway-killed",
            Self::GatewayFrozen => "vip-gateway-frozen",
            Self::HostGone => "vip-host-gone",
            Self::LinkCut => "vip-link-cut",
            Self::Upgrade => "vip-upgrade",
            Self::Move => "vip-move",
            Self::Stop => "vip-stop",
        }
    }

    /// For how long new connections may not be served, beside the longest pause of the undisturbed round: at adverts of
    /// 100 ms and a priority of 100, three of them and the skew; at the death of a process what the holder takes to see
    /// it, and at a freeze how often it looks; on purpose what a failure of an instance may cost.
    pub(super) fn outage_max(self) -> Duration {
        Duration::from_millis(match self {
            Self::GatewayKilled => 30,
            Self::GatewayFrozen => 80,
            Self::HostGone | Self::LinkCut => 361,
            Self::Upgrade | Self::Move | Self::Stop => 250,
        })
    }

    /// Whether it takes place on purpose: no request may fail.
    pub(super) fn is_planned(self) -> bool {
        match self {
            Self::Upgrade | Self::Move | Self::Stop => true,
            Self::GatewayKilled | Self::GatewayFrozen | Self::HostGone | Self::LinkCut => false,
        }
    }

    /// How often the address gets a new holder.
    pub(super) fn moves(self) -> usize {
        match self {
            Self::Upgrade => 0,
            Self::GatewayKilled
            | Self::GatewayFrozen
            | Self::HostGone
            | Self::LinkCut
            | Self::Move
            | Self::Stop => 1,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Scenario {
    type Err = ScenarioError;

    fn from_str(text: &str) -> Result<Self, ScenarioError> {
        let found = Self::ALL.into_iter().find(|one| one.name() == text);
        found.ok_or_else(|| ScenarioError {
            text: text.to_owned(),
        })
    }
}

/// A scenario under way.
struct Play<'a> {
    rig: Rig,
    started: Instant,
    done: Vec<(Instant, String)>,
    tell: &'a mut (dyn FnMut(&str) + Send),
    stop: &'a CancellationToken,
}

/// Plays one with two nodes of its own.
pub(super) async fn play(
    scenario: Scenario,
    options: &Options,
    tell: &mut (dyn FnMut(&str) + Send),
    stop: &CancellationToken,
) -> Result<Report, Error> {
    let built = stop.run_until_cancelled(Rig::build(options)).await;
    let rig = built.ok_or(Error::Stopped)??;
    let address = SocketAddr::new(ADDRESS.parse().map_err(|_| Error::Stopped)?, PORT);
    let begun_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    let begun_ms = u64::try_from(begun_ms).unwrap_or(u64::MAX);
    let clients = Clients::start(&rig.clients(), address)?;
    let mut play = Play {
        rig,
        started: Instant::now(),
        done: Vec::new(),
        tell,
        stop,
    };
    let played = play.all(scenario).await;
    // Nobody else waits for this thread.
    let asked = clients.stop();
    played?;
    let moves = moves(&play.rig, begun_ms);
    Ok(judge(Evidence {
        scenario,
        started: play.started,
        done: play.done,
        asked,
        moves,
    }))
}

impl Play<'_> {
    async fn all(&mut self, scenario: Scenario) -> Result<(), Error> {
        self.pause(CONTROL).await?;
        match scenario {
            Scenario::GatewayKilled => self.gateway(Signal::KILL, "SIGKILL of").await,
            Scenario::GatewayFrozen => self.freeze().await,
            Scenario::HostGone => self.host_gone().await,
            Scenario::LinkCut => self.link_cut().await,
            Scenario::Upgrade => self.upgrade().await,
            Scenario::Move => self.planned_move().await,
            Scenario::Stop => self.stop_node().await,
        }
    }

    fn note(&mut self, what: String) {
        let at = Instant::now();
        let ms = at.duration_since(self.started).as_millis();
        (self.tell)(&format!("  {ms:>6} ms  {what}"));
        self.done.push((at, what));
    }

    /// Waits until the other node has the address. That it does not come is seen by the clients, and told.
    async fn taken(&mut self) {
        let taken = self.stop.run_until_cancelled(self.rig.wait_taken(OTHER));
        if taken.await == Some(false) {
            let node = NODES[OTHER];
            (self.tell)(&format!("  node {node} does not take the address"));
        }
    }

    async fn pause(&self, time: Duration) -> Result<(), Error> {
        let slept = self.stop.run_until_cancelled(sleep(time)).await;
        slept.ok_or(Error::Stopped)
    }

    async fn gateway(&mut self, signal: Signal, word: &str) -> Result<(), Error> {
        let pid = self.holders_gateway()?;
        self.note(format!("{word} the gateway of node {}", NODES[HOLDER]));
        send(pid, signal)?;
        self.taken().await;
        self.pause(SETTLED).await
    }

    async fn freeze(&mut self) -> Result<(), Error> {
        let pid = self.holders_gateway()?;
        self.gateway(Signal::STOP, "SIGSTOP of").await?;
        send(pid, Signal::CONT)?;
        self.rig.wait_serves(HOLDER).await?;
        self.pause(SETTLED).await
    }

    async fn host_gone(&mut self) -> Result<(), Error> {
        self.note(format!(
            "node {} vanishes: its cable and all its processes",
            NODES[HOLDER]
        ));
        self.rig.cut(HOLDER)?;
        self.rig.kill_all(HOLDER);
        self.taken().await;
        self.pause(SETTLED).await?;
        self.rig.heal(HOLDER)?;
        self.rig.start(HOLDER)?;
        self.rig.wait_serves(HOLDER).await?;
        self.rig.wait_state(HOLDER, "backup").await?;
        self.pause(SETTLED).await
    }

    async fn link_cut(&mut self) -> Result<(), Error> {
        self.note(format!("the cable of node {} is pulled", NODES[HOLDER]));
        self.rig.cut(HOLDER)?;
        self.taken().await;
        self.pause(SETTLED).await?;
        self.note(format!(
            "the cable of node {} is plugged in again",
            NODES[HOLDER]
        ));
        self.rig.heal(HOLDER)?;
        self.rig.wait_state(OTHER, "backup").await?;
        self.pause(SETTLED).await
    }

    async fn upgrade(&mut self) -> Result<(), Error> {
        let old = self.holders_gateway()?;
        let supervisor = self.rig.supervisor(HOLDER).ok_or(Error::Stopped)?;
        self.note(format!("upgrade of the gateway of node {}", NODES[HOLDER]));
        send(supervisor, Signal::USR1)?;
        let rig = &self.rig;
        rig.wait("the gateway was not replaced", || {
            match rig.gateway(HOLDER) {
                Some(new) if new != old => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        self.pause(SETTLED).await
    }

    async fn planned_move(&mut self) -> Result<(), Error> {
        self.note(format!(
            "mainstay vip move entry, on node {}",
            NODES[HOLDER]
        ));
        self.rig.run(HOLDER, &["vip", "move", "entry"])?;
        self.taken().await;
        self.pause(SETTLED).await
    }

    async fn stop_node(&mut self) -> Result<(), Error> {
        let supervisor = self.rig.supervisor(HOLDER).ok_or(Error::Stopped)?;
        self.note(format!(
            "SIGTERM of `mainstay run` on node {}",
            NODES[HOLDER]
        ));
        send(supervisor, Signal::TERM)?;
        self.taken().await;
        self.rig.wait_ended(HOLDER).await?;
        self.pause(SETTLED).await?;
        self.rig.start(HOLDER)?;
        self.rig.wait_serves(HOLDER).await?;
        self.rig.wait_state(HOLDER, "backup").await?;
        self.pause(SETTLED).await
    }

    fn holders_gateway(&self) -> Result<Pid, Error> {
        self.rig.gateway(HOLDER).ok_or_else(|| Error::NotInTime {
            what: "no gateway is kept".to_owned(),
            seconds: 0,
            seen: "supervisor.json names none".to_owned(),
        })
    }
}

fn send(to: Pid, signal: Signal) -> Result<(), Error> {
    kill_process(to, signal).map_err(|error| Error::Io {
        attempt: format!("send a signal to process {}", to.as_raw_nonzero()),
        source: error.into(),
    })
}

/// The changes that a node remembers.
fn past(rig: &Rig, node: usize) -> Vec<Value> {
    let shown = rig.shown(node).unwrap_or_default();
    shown["past"].as_array().cloned().unwrap_or_default()
}

/// Those that came since, of both nodes.
fn moves(rig: &Rig, begun_ms: u64) -> Vec<Move> {
    let mut moves = Vec::new();
    for (node, name) in NODES.iter().enumerate() {
        let text = |moment: &Value, key: &str| moment[key].as_str().unwrap_or_default().to_owned();
        moves.extend(past(rig, node).iter().filter_map(|moment| {
            let at_ms = moment["at"].as_u64()?.checked_sub(begun_ms)?;
            Some(Move {
                node: (*name).to_owned(),
                at_ms,
                state: text(moment, "state"),
                why: text(moment, "why"),
            })
        }));
    }
    moves.sort_by_key(|one| one.at_ms);
    moves
}

impl Done {
    pub(super) fn of(started: Instant, (at, what): &(Instant, String)) -> Self {
        let at_ms = at.duration_since(started).as_millis();
        Self {
            at_ms: u64::try_from(at_ms).unwrap_or(u64::MAX),
            what: what.clone(),
        }
    }
}
