//! Forwarding of connections to service addresses: follows the routes as a gateway does, and brings
//! them about by a back end.
//!
//! What is to be done follows from `mainstay_control::forward::Course`; how, from `mainstay_forward`.
//! The rules outlive the agent: one that ends or is killed leaves connections and maps as they are,
//! and the next one takes them over. All that blocks is done by [`works::Works`] on a blocking thread.

mod file;
mod fill;
mod follower;
mod hindrance;
mod metrics;
mod occupied;
mod repairs;
mod seams;
mod show;
mod works;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mainstay_api::client::Client;
use mainstay_api::consumer;
use mainstay_forward::Meter;
use mainstay_ids::ConsumerId;
use mainstay_model::{Ack, ForwardSettings, Routing};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

pub use file::Choice;
pub use follower::Follower;
use hindrance::Hindrances;
use metrics::Told;
use occupied::Occupied;
pub use seams::{Changes, CleanUp, Deaths, ForwardSeams, Repair};
use works::{Input, News, Works};

use crate::happenings::Diary;

/// The name under which a node that forwards follows the routes.
pub(crate) const CONSUMER: &str = "forward";

/// Between two looks at the rules and at what drains: what somebody else did to our table is undone
/// within that, and a look costs a few microseconds if nobody did.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// An acknowledgement is sent this often even if nothing changed.
const ACKNOWLEDGE_EVERY: Duration = Duration::from_secs(1);

/// What is known of forwarding is put together so often at most, and never while a change waits: with thousands of
/// services that takes some milliseconds.
const DESCRIBE_EVERY: Duration = Duration::from_secs(1);

/// Between two tries to get a back end.
const RETRY: Duration = Duration::from_secs(5);

/// States that wait for the back end. Only the newest counts, so one would do; more keep the watch
/// going while the kernel is slow.
const ROUTINGS: usize = 4;

/// Acknowledgements on their way. Level-triggered: what does not fit is dropped.
const ACKS: usize = 16;

/// Where things come from, and go to.
struct Ways {
    routings: mpsc::Receiver<Routing>,
    acks: mpsc::Sender<Ack>,
    told: watch::Sender<Arc<Told>>,
}

/// What forwarding must know.
pub(crate) struct Forwarding {
    pub(crate) settings: ForwardSettings,
    /// The state directory.
    pub(crate) state: PathBuf,
    /// The node's address, from which its programs speak to services.
    pub(crate) source: IpAddr,
    pub(crate) client: Client,
    pub(crate) consumer: ConsumerId,
    pub(crate) seams: ForwardSeams,
    pub(crate) diary: Diary,
}

impl Forwarding {
    /// Works until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let (told, to_show) = watch::channel(Arc::default());
        let (meter, to_read) = oneshot::channel();
        let at = self.settings.metrics;
        let showing = stop.child_token();
        // Ends with us; should it end before, only metrics are missing.
        let shown = at.map(|at| tokio::spawn(show::run(at, to_show, to_read, showing.clone())));
        self.forward(told, meter, stop).await;
        showing.cancel();
        if let Some(Err(error)) = match shown {
            Some(shown) => Some(shown.await),
            None => None,
        } {
            tracing::error!(%error, "showing metrics of forwarding panicked");
        }
    }

    async fn forward(
        self,
        told: watch::Sender<Arc<Told>>,
        meter: oneshot::Sender<Box<dyn Meter>>,
        stop: CancellationToken,
    ) {
        let Some(works) = self.start(&stop).await else {
            return;
        };
        match works.meter() {
            // Where nothing is shown nobody takes it.
            Ok(made) => drop(meter.send(made)),
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "counts of forwarding cannot be read");
            }
        }
        let (to_us, routings) = mpsc::channel(ROUTINGS);
        let (acks, to_centre) = mpsc::channel(ACKS);
        let following = consumer::run(self.client.clone(), self.consumer.clone(), to_us, to_centre);
        // Ends when nobody acknowledges any more.
        let mut link = tokio::spawn(following);
        let ways = Ways {
            routings,
            acks,
            told,
        };
        let works = self.drive(works, ways, &stop).await;
        if timeout(consumer::PARTING_TIME, &mut link).await.is_err() {
            link.abort();
        }
        let removed = spawn_blocking(move || works.is_some_and(Works::wind_up));
        if removed.await.unwrap_or(false) {
            consumer::say_farewell(&self.client, self.consumer).await;
        }
    }

    /// `None`: it is to stop.
    async fn start(&self, stop: &CancellationToken) -> Option<Works> {
        let mut told = None;
        loop {
            let (settings, state) = (self.settings.clone(), self.state.clone());
            let (source, seams, diary) = (self.source, self.seams, self.diary.clone());
            let start = move || Works::start(&settings, &state, source, seams, diary);
            let started = spawn_blocking(start);
            let error = match started.await {
                Ok(Ok(works)) => return Some(works),
                Ok(Err(error)) => error,
                Err(error) => error.to_string(),
            };
            if told.as_ref() != Some(&error) {
                tracing::error!(%error, "connections to service addresses are not forwarded; trying again");
                told = Some(error);
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = sleep(RETRY) => {}
            }
        }
    }

    /// Until `stop`. `None`: the works panicked.
    async fn drive(&self, mut works: Works, ways: Ways, stop: &CancellationToken) -> Option<Works> {
        let Ways {
            mut routings,
            acks,
            told,
        } = ways;
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut acknowledged = Instant::now();
        let mut hindrances = Hindrances::new(&self.settings.ranges);
        let mut unforwarded = Vec::new();
        let mut described_at: Option<Instant> = None;
        let mut is_stale = true;
        let mut occupied = Occupied::new(&self.settings.ranges);
        loop {
            let input = tokio::select! {
                () = stop.cancelled() => return Some(works),
                input = next_input(&mut routings, &mut looks) => input,
            };
            let mut hindering = hindrances.told().to_vec();
            hindering.extend(occupied.concern());
            let known = Arc::clone(&told.borrow());
            let versions = std::mem::take(&mut unforwarded);
            if !versions.is_empty() {
                hindrances.look_again();
            }
            is_stale |= known.hindrances != hindering;
            let is_quiet = match input {
                Input::Routes(_) => false,
                Input::Tick => described_at.is_none_or(|at| at.elapsed() >= DESCRIBE_EVERY),
            };
            let turn = move || {
                works.open(&versions);
                let news = works.turn(input);
                let is_due = is_quiet && (is_stale || news == News::Some);
                let described = is_due.then(|| Told {
                    hindrances: hindering,
                    ..works.describe()
                });
                (works, news, described)
            };
            let Ok((back, news, described)) = spawn_blocking(turn).await else {
                tracing::error!("forwarding panicked; its rules stay as they are");
                told.send_replace(Arc::default());
                return None;
            };
            works = back;
            is_stale |= news == News::Some;
            if let Some(described) = described {
                told.send_replace(Arc::new(described));
                described_at = Some(Instant::now());
                is_stale = false;
            }
            occupied.take_in().await;
            // Sockets of our own listen on what is this host's.
            if works.instances().is_some() {
                occupied.ask_if_due(told.borrow().services.keys());
            }
            unforwarded = hindrances.take_in().await;
            hindrances.look_if_due(|| works.instances());
            if news == News::Some || acknowledged.elapsed() >= ACKNOWLEDGE_EVERY {
                // One that finds no room is made good by the next, which says the same and more.
                acks.try_send(works.ack(self.consumer.clone())).ok();
                acknowledged = Instant::now();
            }
        }
    }
}

/// The newest routes, or that it is time for a look. What was not taken yet is there the next time.
async fn next_input(routings: &mut mpsc::Receiver<Routing>, looks: &mut Interval) -> Input {
    tokio::select! {
        Some(mut routing) = routings.recv() => {
            while let Ok(newer) = routings.try_recv() {
                routing = newer;
            }
            Input::Routes(routing)
        }
        _ = looks.tick() => Input::Tick,
    }
}
