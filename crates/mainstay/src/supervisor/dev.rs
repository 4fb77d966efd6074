//! `mainstay dev [FILE]`: everything on one machine, in the foreground.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mainstay_api::client::{Client, Error};
use mainstay_api::wire::{Applied, Apply, ServiceState, Status};
use mainstay_model::ServiceSpec;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::backups::{Backups, Listener};
use super::front::{Front, Hangup, NOT_ROOT, Rest, STOP_POLL, Stops, Voice, absolute, is_refused};
use super::household::Household;
use super::settings::Settings;
use super::wish::WISHES;
use crate::arguments::{Dev, Place};
use crate::command::events::{Position, ago};
use crate::command::status::has_deaf_address;
use crate::command::{API_SOCKET, or_dash, tell_notes, up};
use crate::outcome::Outcome;
use crate::output;
use crate::service_file;

/// How far back the events go that are shown first where nothing is declared.
const PAST_SHOWN: Duration = Duration::from_hours(1);

pub(crate) async fn run(place: &Place, dev: Dev) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let services = match &dev.file {
        Some(file) => Some(service_file::read(file, place)?),
        None => None,
    };
    let place = Place {
        state: absolute(place)?,
        json: place.json,
    };
    let settings = Settings::of_dev(&place.state, &dev)?;
    let (mut household, mut stops) = Household::set_up(settings, Hangup::Stops).await?;
    let shown = Shown(Front {
        client: Client::unix(&place.state.join(API_SOCKET)),
        place,
        started,
        voice: Voice::Terminal,
    });
    let front = &shown.0;
    front.say(format_args!(
        "mainstay {} keeps {}",
        env!("CARGO_PKG_VERSION"),
        front.place.state.display()
    ));
    if !rustix::process::geteuid().is_root() {
        front.say(NOT_ROOT);
    }
    if let Some(broker) = household.family.settings.addresses.broker {
        front.say(format_args!("broker  amqp://{broker}"));
    }
    if let Some(names) = household.family.settings.addresses.names {
        front.say(format_args!("names  {names}"));
    }
    // Nobody changes anything while `dev` runs.
    let (_wishes, mut inbox) = mpsc::channel(WISHES);
    // Whoever develops makes his own.
    let (_backup, wanted) = watch::channel(None);
    let backups = Backups::new(&front.place.state, wanted, Listener::Nobody);
    let (ended, rest) = tokio::select! {
        ended = shown.run(services, &mut stops) => ended,
        kept = household.family.keep(&mut inbox) => (kept.map(|never| match never {}), Rest::GoesOn),
        never = backups.keep() => match never {},
    };
    let stopped = household.wind_up(rest, "mainstay dev").await;
    if rest == Rest::Ends && stopped.is_ok() {
        front.say("stopped");
    }
    stopped.and(ended)
}

/// What the user sees: the steps, the addresses, the end.
struct Shown(Front);

impl Shown {
    async fn run(
        &self,
        services: Option<Vec<ServiceSpec>>,
        stops: &mut Stops,
    ) -> (anyhow::Result<Outcome>, Rest) {
        let ended = tokio::select! {
            ended = self.show(services) => ended,
            () = stops.next() => Ok(Outcome::Holds),
        };
        if let Err(error) = &ended
            && !is_refused(error)
        {
            return (ended, Rest::GoesOn);
        }
        let front = &self.0;
        front
            .say("stopping: instances finish their requests first; Ctrl-C again ends them at once");
        front.end(stops).await;
        (ended, Rest::Ends)
    }

    /// Declares the services and prints what happens, for ever.
    async fn show(&self, services: Option<Vec<ServiceSpec>>) -> anyhow::Result<Outcome> {
        let front = &self.0;
        let status = front.first_status().await?;
        // Without a declaration, to see where it stands; `mainstay events` has what is older.
        let since = ago(PAST_SHOWN);
        let mut position = Position { after: None, since };
        if let Some(services) = services {
            let apply = Apply {
                services,
                dry_run: false,
            };
            let applied: Result<Applied, Error> = front.client.post("/v1/services", &apply).await;
            if let Err(Error::Refused(_)) = applied {
                output::warn("`mainstay dev` without a file keeps what was declared before");
            }
            let applied = applied?;
            up::changes(&applied).for_each(|change| front.say(change));
            tell_notes(&applied.notes);
            position.after = Some(applied.event);
        }
        for entry in &status.entry {
            front.say(format_args!("entry  http://{entry}"));
        }
        if let Some(stats) = status.stats {
            front.say(format_args!("stats  http://{stats}/stats"));
        }
        let told = self.tell_when_ready();
        tokio::select! {
            ended = front.print_events(&mut position) => ended,
            never = async { told.await; std::future::pending().await } => never,
        }
    }

    /// Says once that everything is ready, or what is in the way.
    async fn tell_when_ready(&self) {
        let front = &self.0;
        let mut warned = BTreeSet::new();
        loop {
            sleep(STOP_POLL).await;
            let Ok(status) = front.client.get::<Status>("/v1/status").await else {
                continue;
            };
            let mut all = !status.services.is_empty();
            for service in &status.services {
                let deaf = has_deaf_address(&status, service);
                all &= service.state == ServiceState::Steady && !deaf;
                if deaf && warned.insert(service.service.clone()) {
                    let (name, address) = (&service.service, or_dash(service.address));
                    output::warn(format_args!(
                        "warning: {name} cannot be reached at {address}: another program listens there"
                    ));
                }
            }
            if all {
                let took = front.started.elapsed().as_millis();
                front.say(format_args!(
                    "ready after {took} ms: all services are as wanted"
                ));
                return;
            }
        }
    }
}
