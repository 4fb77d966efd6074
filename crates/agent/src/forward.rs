//! Forwarding of connections to service addresses: follows the routes as a gateway does, and brings
//! them about by a back end.
//!
//! What is to be done follows from `mainstay_control::forward::Course`; how, from `mainstay_forward`.
//! The rules outlive the agent: one that ends or is killed leaves connections and maps as they are,
//! and the next one takes them over. All that blocks is done by [`works::Works`] on a blocking thread.

mod file;
mod follower;
mod hindrance;
mod repairs;
mod seams;
mod works;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use mainstay_api::client::Client;
use mainstay_api::consumer;
use mainstay_ids::ConsumerId;
use mainstay_model::{Ack, ForwardSettings, Routing};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

pub use follower::Follower;
use hindrance::Hindrances;
pub use seams::{Changes, CleanUp, Deaths, ForwardSeams, Repair, SeamError};
use works::{Input, News, Works};

/// The name under which a node that forwards follows the routes.
pub(crate) const CONSUMER: &str = "forward";

/// Between two looks at the rules and at what drains: what somebody else did to our table is undone
/// within that, and a look costs a few microseconds if nobody did.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// An acknowledgement is sent this often even if nothing changed.
const ACKNOWLEDGE_EVERY: Duration = Duration::from_secs(1);

/// Between two tries to get a back end.
const RETRY: Duration = Duration::from_secs(5);

/// States that wait for the back end. Only the newest counts, so one would do; more keep the watch
/// going while the kernel is slow.
const ROUTINGS: usize = 4;

/// Acknowledgements on their way. Level-triggered: what does not fit is dropped.
const ACKS: usize = 16;

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
}

impl Forwarding {
    /// Works until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let Some(works) = self.start(&stop).await else {
            return;
        };
        let (to_us, routings) = mpsc::channel(ROUTINGS);
        let (acks, to_centre) = mpsc::channel(ACKS);
        let following = consumer::run(self.client.clone(), self.consumer.clone(), to_us, to_centre);
        // Ends when nobody acknowledges any more.
        let mut link = tokio::spawn(following);
        let works = self.drive(works, routings, acks, &stop).await;
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
            let (source, seams) = (self.source, self.seams);
            let start = move || Works::start(&settings, &state, source, seams);
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
    async fn drive(
        &self,
        mut works: Works,
        mut routings: mpsc::Receiver<Routing>,
        acks: mpsc::Sender<Ack>,
        stop: &CancellationToken,
    ) -> Option<Works> {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut acknowledged = Instant::now();
        let mut hindrances = Hindrances::new(&self.settings.ranges);
        loop {
            let input = tokio::select! {
                () = stop.cancelled() => return Some(works),
                Some(mut routing) = routings.recv() => {
                    while let Ok(newer) = routings.try_recv() {
                        routing = newer;
                    }
                    Input::Routes(routing)
                }
                _ = looks.tick() => Input::Tick,
            };
            let turn = move || {
                let news = works.turn(input);
                (works, news)
            };
            let Ok((back, news)) = spawn_blocking(turn).await else {
                tracing::error!("forwarding panicked; its rules stay as they are");
                return None;
            };
            works = back;
            hindrances.take_in().await;
            hindrances.look_if_due(|| works.instances());
            if news == News::Some || acknowledged.elapsed() >= ACKNOWLEDGE_EVERY {
                // One that finds no room is made good by the next, which says the same and more.
                acks.try_send(works.ack(self.consumer.clone())).ok();
                acknowledged = Instant::now();
            }
        }
    }
}
