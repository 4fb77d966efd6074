//! What blocks: the back end, the routes of the ranges, sockets and flows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Instant;

use mainstay_control::forward::{Course, Place, Turn};
use mainstay_forward::{
    BackEnd, Batch, Claim, Dead, Draining, ForwardError, Found, Severed, Started, Underway,
    UnderwayError, Whereabouts,
};
use mainstay_ids::{ConsumerId, InstanceId};
use mainstay_model::forward::{BackEndKind, ForwardSettings, Ranges};
use mainstay_model::{Ack, InFlight, Routing};

use super::file::PlacesFile;
use super::repairs::Repairs;
use super::seams::{Changes, CleanUp, Deaths, ForwardSeams, Repair};

/// What the works are to do.
pub(super) enum Input {
    /// Newer routes.
    Routes(Routing),
    /// Look whether all is as it should be.
    Tick,
}

/// Whether there is something to tell the control centre.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    None,
    Some,
}

pub(super) struct Works {
    ranges: Ranges,
    back_end: Box<dyn BackEnd>,
    /// `None`: the back end has sockets of its own, and needs no routes.
    claim: Option<Claim>,
    /// `None`: there is no way to ask for sockets.
    underway: Option<Underway>,
    file: PlacesFile,
    course: Course,
    /// Routes that could not be brought about yet.
    pending: Option<Routing>,
    in_flight: BTreeMap<InstanceId, u64>,
    repairs: Repairs,
    /// The trouble that was told last.
    told: Option<String>,
    seams: ForwardSeams,
}

impl Works {
    /// Takes over what an earlier agent left, or begins with nothing.
    pub(super) fn start(
        settings: &ForwardSettings,
        state: &Path,
        source: IpAddr,
        seams: ForwardSeams,
    ) -> Result<Self, String> {
        // First of all: rules for addresses that something else has would cut it off.
        let claim = match settings.back_end {
            Some(BackEndKind::Userspace) => None,
            None | Some(BackEndKind::Nft | BackEndKind::Iptables) => {
                let claim = Claim::plan(&settings.ranges, Some(source));
                Some(claim.map_err(|error| crate::chain(&error))?)
            }
        };
        let started = mainstay_forward::start(settings).map_err(|refused| {
            let reasons = refused.iter().map(|error| crate::chain(error));
            reasons.collect::<Vec<_>>().join("; ")
        })?;
        let Started { back_end, refused } = started;
        for error in &refused {
            tracing::warn!(error = %crate::chain(error), "a better back end cannot be had");
        }
        let claim = match back_end.kind() {
            BackEndKind::Nft | BackEndKind::Iptables => claim,
            BackEndKind::Userspace => None,
        };
        if let Some(claim) = &claim {
            claim.hold().map_err(|error| crate::chain(&error))?;
        }
        let mut file = PlacesFile::in_state(state);
        let places = file.load().unwrap_or_else(|error| {
            tracing::error!(error = %crate::chain(&error), "forward.json is of no use; connections to instances that left before are not waited for");
            Vec::new()
        });
        let (services, dead) = back_end.in_force();
        tracing::info!(
            back_end = %back_end.kind(),
            ranges = ?settings.ranges.networks().iter().map(ToString::to_string).collect::<Vec<_>>(),
            services = services.len(),
            "connections to service addresses are forwarded"
        );
        Ok(Self {
            ranges: settings.ranges.clone(),
            back_end,
            claim,
            underway: Underway::open().ok(),
            file,
            course: Course::left_behind(services, dead, places),
            pending: None,
            in_flight: BTreeMap::new(),
            repairs: Repairs::default(),
            told: None,
            seams,
        })
    }

    /// Does what is to be done.
    pub(super) fn turn(&mut self, input: Input) -> News {
        let mut news = News::None;
        match input {
            Input::Routes(routing) => self.pending = Some(routing),
            Input::Tick => self.look(),
        }
        if let Some(routing) = self.pending.take() {
            match self.follow(&routing) {
                Ok(()) => {
                    self.told = None;
                    news = News::Some;
                }
                Err(trouble) => {
                    self.tell(trouble);
                    self.pending = Some(routing);
                }
            }
        }
        if self.count() {
            news = News::Some;
        }
        news
    }

    fn follow(&mut self, routing: &Routing) -> Result<(), String> {
        let ranges = &self.ranges;
        let is_forwarded = |address: SocketAddr| ranges.contain(address.ip());
        let (mut turn, next) = self.course.follow(routing, is_forwarded);
        self.leave_out(&mut turn);
        if !turn.batch.is_empty() {
            let applied = self.bring_about(&turn.batch, routing);
            applied.map_err(|error| crate::chain(&error))?;
        }
        if let Err(error) = self.attend(&turn) {
            self.tell(crate::chain(&error));
        }
        // Before it is acknowledged: who comes after us must know whose connections these are. Tried
        // again, the rules are as they are to be already.
        let stored = self.file.store(next.places());
        stored.map_err(|error| format!("cannot write forward.json: {error}"))?;
        self.course = next;
        Ok(())
    }

    /// What a test seam says.
    fn leave_out(&self, turn: &mut Turn) {
        if self.seams.deaths == Deaths::Untold {
            turn.batch.dead.clear();
            turn.severed.clear();
        }
        if self.seams.clean_up == CleanUp::Off {
            turn.severed.clear();
            turn.released.clear();
            turn.opened.clear();
        }
    }

    fn bring_about(&mut self, batch: &Batch, routing: &Routing) -> Result<(), ForwardError> {
        match self.seams.changes {
            Changes::Atomic => self.back_end.apply(batch),
            Changes::Anew => {
                let (gone, _) = self.back_end.in_force();
                self.back_end.apply(&Batch {
                    gone,
                    ..Batch::default()
                })?;
                let ranges = &self.ranges;
                let (all, _) = Course::default().follow(routing, |at| ranges.contain(at.ip()));
                self.back_end.apply(&Batch {
                    services: all.batch.services,
                    ..batch.clone()
                })
            }
        }
    }

    /// What rules cannot do for those who are under way, once they are in force.
    fn attend(&self, turn: &Turn) -> Result<(), UnderwayError> {
        let (Some(underway), Some(_)) = (&self.underway, &self.claim) else {
            return Ok(());
        };
        let dead: Vec<Dead> = turn.severed.iter().map(dead).collect();
        let released: Vec<SocketAddr> = turn.released.iter().map(|place| place.address).collect();
        let severed = if dead.is_empty() {
            Ok(Severed::default())
        } else {
            underway.sever(&dead)
        };
        underway.release(&released)?;
        underway.admit(&turn.opened)?;
        let Severed { reset, led_anew } = severed?;
        if reset + led_anew > 0 {
            tracing::info!(
                reset,
                led_anew,
                "programs of this machine wait for a dead instance no longer"
            );
        }
        Ok(())
    }

    /// Counts what is under way to those that left. Whether that changed.
    fn count(&mut self) -> bool {
        let before = std::mem::take(&mut self.in_flight);
        let leaving: Vec<Place> = self.course.leaving().cloned().collect();
        let draining: Vec<Draining> = leaving.iter().map(draining).collect();
        let counts = match &self.underway {
            Some(underway) => underway.in_flight(&draining).map_err(Some),
            None => Err(None),
        };
        let counts = counts.unwrap_or_else(|error| {
            if let Some(error) = error {
                self.tell(crate::chain(&error));
            }
            // Not known is not none: the drain then takes its time.
            vec![1; leaving.len()]
        });
        for (place, count) in leaving.into_iter().zip(counts) {
            if count == 0 {
                self.course.has_left(place.address);
            } else {
                *self.in_flight.entry(place.instance).or_default() += count;
            }
        }
        before != self.in_flight
    }

    fn look(&mut self) {
        let began = Instant::now();
        if self.seams.repair == Repair::Off || !self.repairs.is_due(began) {
            return;
        }
        match self.back_end.check() {
            Ok(Found::InForce) => {}
            Ok(Found::Repaired(what)) => {
                self.repairs.note(what);
                if let Err(error) = self.let_through() {
                    self.tell(crate::chain(&error));
                }
            }
            Err(error) => self.tell(crate::chain(&error)),
        }
        let now = Instant::now();
        self.repairs.rest(now, now - began);
        if let Some(told) = self.repairs.tell(now) {
            tracing::warn!(what = %told.what, times = told.times, "somebody changed our rules; they are as they were");
        }
        if let Some(Err(error)) = self.claim.as_ref().map(Claim::hold) {
            self.tell(crate::chain(&error));
        }
    }

    /// While rules were missing datagrams to services were led nowhere, which is remembered for as
    /// long as their senders go on.
    fn let_through(&self) -> Result<(), UnderwayError> {
        match (&self.underway, &self.claim) {
            (Some(underway), Some(_)) => underway.admit(&self.back_end.in_force().0),
            (None, _) | (_, None) => Ok(()),
        }
    }

    /// Where the instances are to which connections lead; `None`: rules of the host do not matter.
    pub(super) fn instances(&self) -> Option<Vec<IpAddr>> {
        self.claim.as_ref()?;
        let places = self.course.places().into_iter();
        let instances: BTreeSet<IpAddr> = places.map(|place| place.address.ip()).collect();
        Some(instances.into_iter().collect())
    }

    /// Each trouble once, until all is well again.
    fn tell(&mut self, trouble: String) {
        if self.told.as_ref() != Some(&trouble) {
            tracing::error!(%trouble, "forwarding; trying again");
            self.told = Some(trouble);
        }
    }

    /// Routes that could not be brought about, and why.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.pending.as_ref()?;
        self.told.as_deref()
    }

    /// What is in force.
    pub(super) fn ack(&self, consumer: ConsumerId) -> Ack {
        let in_flight = self.in_flight.iter();
        let pending = self.pending.iter().flat_map(|routing| &routing.services);
        let pending = pending.filter_map(|routes| routes.address);
        Ack {
            consumer,
            generation: self.course.generation(),
            in_flight: in_flight
                .map(|(instance, requests)| InFlight {
                    instance: instance.clone(),
                    requests: *requests,
                })
                .collect(),
            unbound: pending
                .filter(|address| self.ranges.contain(address.ip()))
                .collect(),
        }
    }

    /// At the end: when there is nothing that anybody could be led to, everything is taken away.
    /// Whether it was.
    pub(super) fn wind_up(mut self) -> bool {
        if self.course.serves() {
            tracing::info!("connections go on being forwarded by the rules as they are");
            return false;
        }
        if let Err(error) = self.back_end.remove() {
            tracing::warn!(error = %crate::chain(&error), "rules of forwarding are left");
            return false;
        }
        if let Some(Err(error)) = self.claim.as_ref().map(Claim::give_up) {
            tracing::warn!(error = %crate::chain(&error), "a route of service addresses is left");
        }
        true
    }
}

fn dead(place: &Place) -> Dead {
    Dead {
        instance: place.address,
        services: vec![place.through],
    }
}

fn draining(place: &Place) -> Draining {
    Draining {
        instance: place.address,
        whereabouts: Whereabouts::Here,
    }
}
