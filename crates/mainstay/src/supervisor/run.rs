//! `mainstay run --config FILE`: the processes of one node, as its file says, as a daemon.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use mainstay_api::client::Client;
use mainstay_api::node::{Backup, NodeFile, Role};
use mainstay_api::wire::{Applied, Apply};
use mainstay_kernel::looked_at::{LOOK_EVERY, LookedAt};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::backups::{Backups, Listener};
use super::front::{Front, Hangup, NOT_ROOT, Rest, Stops, Voice, is_refused};
use super::household::Household;
use super::notify::{Stage, notify};
use super::settings::Settings;
use super::wish::{WISHES, Wish};
use crate::arguments::{Place, Run};
use crate::command::events::{Position, ago};
use crate::command::{API_SOCKET, tell_notes, up};
use crate::outcome::{self, Outcome};
use crate::output;
use crate::{node_file, service_file};

pub(crate) async fn run(place: &Place, run: Run) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let looked_at = LookedAt::new(vec![run.config.clone()]);
    let file = node_file::read(&run.config, place)?;
    // Before anything runs: SIGHUP would end us.
    let reread = signal(SignalKind::hangup()).context("cannot await SIGHUP")?;
    let mut settings = Settings::of_node(&file)?;
    settings.gateway_seams = run.unsafe_gateway_seams;
    settings.vip_seams = run.unsafe_vip_seams;
    let hangup = Hangup::MeansSomethingElse;
    let (mut household, mut stops) = Household::set_up(settings, hangup).await?;
    let (wishes, mut inbox) = mpsc::channel(WISHES);
    let (backup, wanted) = watch::channel(file.backup.clone());
    let listener = if file.roles.contains(&Role::Control) {
        Listener::ControlCentre
    } else {
        Listener::Nobody
    };
    let backups = Backups::new(&file.state, wanted, listener);
    let mut daemon = Daemon {
        front: Front {
            client: Client::unix(&file.state.join(API_SOCKET)),
            place: Place {
                state: file.state.clone(),
                json: false,
            },
            started,
            voice: Voice::Log,
        },
        config: run.config,
        file,
        looked_at,
        reread,
        wishes,
        backup,
    };
    daemon.introduce();
    let (ended, rest) = tokio::select! {
        ended = daemon.run(&mut stops) => ended,
        kept = household.family.keep(&mut inbox) => (kept.map(|never| match never {}), Rest::GoesOn),
        never = backups.keep() => match never {},
    };
    let stopped = household.wind_up(rest, "mainstay run").await;
    if rest == Rest::Ends && stopped.is_ok() {
        daemon.front.say("stopped");
    }
    stopped.and(ended)
}

/// The front end: declares what the file names, tells what happens, follows the file.
struct Daemon {
    front: Front,
    config: PathBuf,
    file: NodeFile,
    looked_at: LookedAt,
    reread: Signal,
    wishes: mpsc::Sender<Wish>,
    /// What is wanted of backups.
    backup: watch::Sender<Option<Backup>>,
}

impl Daemon {
    fn introduce(&self) {
        let roles: Vec<&str> = self.file.roles.iter().map(|role| role.as_str()).collect();
        self.front.say(format_args!(
            "mainstay {} keeps {} as {}",
            env!("CARGO_PKG_VERSION"),
            self.file.state.display(),
            roles.join(", ")
        ));
        if self.has(Role::Agent) && !rustix::process::geteuid().is_root() {
            self.front.say(NOT_ROOT);
        }
    }

    fn has(&self, role: Role) -> bool {
        self.file.roles.contains(&role)
    }

    async fn run(&mut self, stops: &mut Stops) -> (anyhow::Result<Outcome>, Rest) {
        let ended = tokio::select! {
            ended = self.serve() => ended,
            () = stops.next() => Ok(Outcome::Holds),
        };
        if ended.as_ref().is_err_and(|error| !is_refused(error)) {
            return (ended, Rest::GoesOn);
        }
        notify(Stage::Stopping);
        self.front
            .say("stopping: what is under way is finished first; a second signal ends it at once");
        if self.has(Role::Vip) {
            self.give_addresses_away(stops).await;
        }
        if self.has(Role::Control) {
            self.front.end(stops).await;
        }
        (ended, Rest::Ends)
    }

    /// Before anything else ends: clients of a floating address are served by another machine then.
    async fn give_addresses_away(&self, stops: &mut Stops) {
        let (told, gone) = oneshot::channel();
        // Closed means that the family has failed, and everything ends.
        self.wishes.send(Wish::Addresses(told)).await.ok();
        tokio::select! {
            // Nothing is ever said: its end is what is waited for, which comes within the holder's patience.
            _ = gone => {}
            () = stops.next() => self.front.say("not waiting any longer"),
        }
    }

    async fn serve(&mut self) -> anyhow::Result<Outcome> {
        let mut position = Position {
            after: None,
            since: ago(self.front.started.elapsed()),
        };
        if self.has(Role::Control) {
            self.front.first_status().await?;
        }
        notify(Stage::Ready);
        self.declare().await;
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // What it returns for is done outside, so that no event is lost in between.
            let asked = {
                let events = async {
                    if self.file.roles.contains(&Role::Control) {
                        self.front.print_events(&mut position).await
                    } else {
                        std::future::pending().await
                    }
                };
                tokio::select! {
                    ended = events => return ended,
                    Some(()) = self.reread.recv() => Asked::BySignal,
                    _ = looks.tick() => Asked::ByChange,
                }
            };
            match asked {
                Asked::BySignal => self.reread_file().await,
                Asked::ByChange if self.looked_at.look() => self.reread_file().await,
                Asked::ByChange => {}
            }
        }
    }

    /// Takes over what the file says now. If it is broken, that is told, and all stays as it was.
    async fn reread_file(&mut self) {
        match node_file::read(&self.config, &self.front.place) {
            Ok(file) => {
                self.file = file.clone();
                self.backup.send_if_modified(|backup| {
                    let changed = *backup != file.backup;
                    backup.clone_from(&file.backup);
                    changed
                });
                // Closed means that the family has failed, and everything ends.
                self.wishes.send(Wish::Node(Box::new(file))).await.ok();
                self.declare().await;
            }
            Err(error) => {
                outcome::report(&error);
                output::warn("  what it said before stays in force");
            }
        }
    }

    /// Declares the services of the files that the node's file names.
    async fn declare(&self) {
        for path in &self.file.services {
            if let Err(error) = self.declare_one(path).await {
                outcome::report(&error);
                output::warn(format_args!(
                    "  what was declared before `{}` changed stays in force",
                    path.display()
                ));
            }
        }
    }

    async fn declare_one(&self, path: &Path) -> anyhow::Result<()> {
        let services = service_file::read(path, &self.front.place)?;
        let apply = Apply {
            services,
            dry_run: false,
        };
        let applied: Applied = self.front.client.post("/v1/services", &apply).await?;
        up::changes(&applied).for_each(|change| self.front.say(change));
        tell_notes(&applied.notes);
        Ok(())
    }
}

/// Why the file is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    BySignal,
    ByChange,
}
