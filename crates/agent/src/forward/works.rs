//! What blocks: the back end, the routes of the ranges, sockets and flows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use mainstay_control::forward::{Course, Place, Turn};
use mainstay_forward::host::Version;
use mainstay_forward::router::{self, Change, Opened, Restored};
use mainstay_forward::{
    BackEnd, Batch, Claim, Dead, Draining, ForwardError, Found, Meter, Severed, Underway,
    UnderwayError, Whereabouts,
};
use mainstay_ids::{ConsumerId, InstanceId};
use mainstay_kernel::netlink::conntrack::Fill;
use mainstay_model::forward::{BackEndKind, ForwardSettings, Opening, Ranges};
use mainstay_model::happening::cut;
use mainstay_model::{Ack, Happening, InFlight, Routing};

use super::file::{Choice, PlacesFile};
use super::fill::FillAlarm;
use super::metrics::Told;
use super::repairs::Repairs;
use super::seams::{Changes, CleanUp, Deaths, ForwardSeams, Repair};
use crate::happenings::{self, Diary};

#[cfg(test)]
mod tests;

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
    pending: Option<Arc<Routing>>,
    in_flight: BTreeMap<InstanceId, u64>,
    /// Where nothing is under way any more, which the file does not know yet.
    left: Vec<SocketAddr>,
    /// The routing state before the one in force, until there is time to take it apart.
    past: Option<Arc<Routing>>,
    /// What counts beside the back end.
    meter: Box<dyn Meter>,
    opening: Opening,
    /// Where settings of the kernel are written down that we change.
    router: PathBuf,
    repairs: Repairs,
    fill: FillAlarm,
    diary: Diary,
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
        diary: Diary,
    ) -> Result<Self, String> {
        let router = router::file(state);
        let opened = opened(settings.opening, &router);
        let (Started { back_end, refused }, claim) = obtain(settings, source, opened)?;
        for error in &refused {
            tracing::warn!(%error, "a better back end cannot be had");
        }
        let claim = match back_end.kind() {
            BackEndKind::Nft | BackEndKind::Iptables => claim,
            BackEndKind::Userspace => None,
        };
        // An earlier agent had a back end that kept others from being forwarded.
        match back_end.kind() {
            BackEndKind::Nft => {}
            BackEndKind::Iptables | BackEndKind::Userspace => close(&router),
        }
        if let Some(claim) = &claim {
            claim.hold().map_err(|error| crate::chain(&error))?;
        }
        let mut file = PlacesFile::in_state(state);
        let choice = Choice {
            back_end: back_end.kind(),
            refused,
        };
        tell_choice(Choice::read(state), &choice, &diary);
        let places = file.load().unwrap_or_else(|error| {
            tracing::error!(error = %crate::chain(&error), "forward.json is of no use; connections to instances that left before are not waited for");
            Vec::new()
        });
        let meter = back_end.meter().map_err(|error| crate::chain(&error))?;
        // For people who ask; those who cannot be told do not forward less.
        if let Err(error) = file.note(choice, &places) {
            tracing::warn!(%error, "cannot write forward.json");
        }
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
            left: Vec::new(),
            past: None,
            meter,
            opening: settings.opening,
            router,
            repairs: Repairs::default(),
            fill: FillAlarm::resume(&happenings::own(state)),
            diary,
            told: None,
            seams,
        })
    }

    /// Does what is to be done.
    pub(super) fn turn(&mut self, input: Input) -> News {
        let mut news = News::None;
        match input {
            Input::Routes(routing) => self.pending = Some(Arc::new(routing)),
            Input::Tick => {
                let before = self.repairs.total();
                self.look();
                self.tidy();
                if self.repairs.total() != before {
                    news = News::Some;
                }
            }
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

    fn follow(&mut self, routing: &Arc<Routing>) -> Result<(), String> {
        let ranges = &self.ranges;
        let is_forwarded = |address: SocketAddr| ranges.contain(address.ip());
        let (mut turn, step) = self.course.follow(routing, is_forwarded);
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
        let (course, change) = (&self.course, step.places());
        let stored = self.file.change(change, &self.left, || course.places());
        stored.map_err(|error| format!("cannot write forward.json: {error}"))?;
        self.left.clear();
        self.past = self.course.routing().cloned();
        self.course.advance(step);
        Ok(())
    }

    /// What can wait for a moment in which nobody waits.
    fn tidy(&mut self) {
        // Thousands of services are taken apart for as long as a change may take.
        self.past = None;
        let course = &self.course;
        if let Err(error) = self.file.tidy(|| course.places()) {
            self.tell(format!("cannot write forward.json: {error}"));
        }
        // Nothing is tracked where sockets of our own carry connections.
        if self.claim.is_some()
            && self.fill.is_due(Instant::now())
            && let Ok(fill) = Fill::read()
            && let Some(news) = self.fill.judge(fill)
        {
            self.diary.note(news);
        }
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

    fn bring_about(&mut self, batch: &Batch, routing: &Arc<Routing>) -> Result<(), ForwardError> {
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
        if leaving.is_empty() {
            return !before.is_empty();
        }
        let counts = self.under_way(&leaving).unwrap_or_else(|error| {
            self.tell(error);
            // Not known is not none: the drain then takes its time.
            vec![1; leaving.len()]
        });
        for (place, count) in leaving.into_iter().zip(counts) {
            if count == 0 {
                self.course.has_left(place.address);
                self.left.push(place.address);
            } else {
                *self.in_flight.entry(place.instance).or_default() += count;
            }
        }
        before != self.in_flight
    }

    /// In the same order. A back end that carries bytes itself knows what is its own, datagrams
    /// included; what others have at the instance is not ours to wait for.
    fn under_way(&mut self, leaving: &[Place]) -> Result<Vec<u64>, String> {
        let own = self.meter.in_flight();
        if let Some(own) = own.map_err(|error| crate::chain(&error))? {
            let own: BTreeMap<SocketAddr, u64> = own.into_iter().collect();
            let of = |place: &Place| own.get(&place.address).copied().unwrap_or(0);
            return Ok(leaving.iter().map(of).collect());
        }
        let Some(underway) = &self.underway else {
            return Ok(vec![1; leaving.len()]);
        };
        let draining: Vec<Draining> = leaving.iter().map(draining).collect();
        let counts = underway.in_flight(&draining);
        counts.map_err(|error| crate::chain(&error))
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
            self.diary.note(Happening::RulesRepaired {
                found: cut(&told.what),
                times: told.times,
            });
        }
        if let Some(Err(error)) = self.claim.as_ref().map(Claim::hold) {
            self.tell(crate::chain(&error));
        }
    }

    /// Has the host forward these versions of IP, and nothing but connections to service addresses, if
    /// that is allowed. One that somebody has switched off again is left alone.
    pub(super) fn open(&mut self, versions: &[Version]) {
        match self.opening {
            Opening::WhenNeeded => {}
            Opening::Never => return,
        }
        let before = match router::opened(&self.router) {
            Ok(before) => before,
            Err(error) => return self.tell(crate::chain(&error)),
        };
        let is_new = |version: &&Version| !before.has(**version);
        let versions: Vec<Version> = versions.iter().filter(is_new).copied().collect();
        if versions.is_empty() {
            return;
        }
        // First the limit, then what is limited.
        match self.back_end.limit(before.with(&versions)) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return self.tell(crate::chain(&error)),
        }
        match router::open(&self.router, &versions) {
            Ok(changes) => {
                for Change { setting, .. } in changes {
                    tracing::warn!(%setting, "switched on, since instances are on other hosts: this host forwards connections to service addresses, and nothing else; `mainstay purge` takes it back, `ip_forward = false` in `[forward]` forbids it");
                }
            }
            Err(error) => {
                self.tell(crate::chain(&error));
                // What was switched on before the error is written down, and stays limited.
                let now = router::opened(&self.router).unwrap_or(before);
                if let Err(error) = self.back_end.limit(now) {
                    self.tell(crate::chain(&error));
                }
            }
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
        let instances: BTreeSet<IpAddr> = self.course.addresses().map(|at| at.ip()).collect();
        Some(instances.into_iter().collect())
    }

    /// What counts beside it, for whoever shows it.
    pub(super) fn meter(&self) -> Result<Box<dyn Meter>, ForwardError> {
        self.back_end.meter()
    }

    /// What is to be known of it for metrics.
    pub(super) fn describe(&self) -> Told {
        Told {
            back_end: Some(self.back_end.kind()),
            services: self.course.names().clone(),
            places: self.course.places(),
            in_flight: self.in_flight.clone(),
            repairs: self.repairs.total(),
            hindrances: Vec::new(),
        }
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
        // Without rules whatever comes would be passed on.
        close(&self.router);
        if let Err(error) = self.back_end.remove() {
            tracing::warn!(error = %crate::chain(&error), "rules of forwarding are left");
            return false;
        }
        if let Some(Err(error)) = self.claim.as_ref().map(Claim::give_up) {
            tracing::warn!(error = %crate::chain(&error), "a route of service addresses is left");
        }
        if let Err(error) = self.file.forget_choice(&self.course.places()) {
            tracing::warn!(%error, "cannot write forward.json");
        }
        true
    }
}

/// Tells by what is forwarded, if that is another back end than before, or not the best.
fn tell_choice(before: Option<Choice>, now: &Choice, diary: &Diary) {
    let before = before.map(|before| before.back_end);
    if before == Some(now.back_end) || (before.is_none() && now.refused.is_empty()) {
        return;
    }
    diary.note(Happening::ForwardedBy {
        back_end: now.back_end,
        before,
        refused: now.refused.iter().map(|why| cut(why)).collect(),
    });
}

/// What forwards, and why nothing better.
struct Started {
    back_end: Box<dyn BackEnd>,
    refused: Vec<String>,
}

/// A back end, and the routes that it needs. Where none is asked for, the best that the host can have:
/// sockets of our own need no routes, and serve what addresses the host has.
fn obtain(
    settings: &ForwardSettings,
    source: IpAddr,
    opened: Opened,
) -> Result<(Started, Option<Claim>), String> {
    let start = |settings: &ForwardSettings| {
        let started = mainstay_forward::start(settings, opened).map_err(|refused| {
            let reasons = refused.iter().map(|error| crate::chain(error));
            reasons.collect::<Vec<_>>().join("; ")
        })?;
        let refused = started.refused.iter().map(|error| crate::chain(error));
        Ok::<_, String>(Started {
            back_end: started.back_end,
            refused: refused.collect(),
        })
    };
    if settings.back_end == Some(BackEndKind::Userspace) {
        return Ok((start(settings)?, None));
    }
    // First of all: rules for addresses that something else has would cut it off.
    let claim = match Claim::plan(&settings.ranges, Some(source)) {
        Ok(claim) => claim,
        Err(error) if settings.back_end.is_none() => {
            let mut started = start(&ForwardSettings {
                back_end: Some(BackEndKind::Userspace),
                ..settings.clone()
            })?;
            started.refused.push(crate::chain(&error));
            return Ok((started, None));
        }
        Err(error) => return Err(crate::chain(&error)),
    };
    Ok((start(settings)?, Some(claim)))
}

/// For which versions of IP an earlier agent had the host forward. If that is not allowed any more it is
/// undone.
fn opened(opening: Opening, router: &Path) -> Opened {
    match opening {
        Opening::WhenNeeded => {}
        Opening::Never => close(router),
    }
    router::opened(router).unwrap_or_else(|error| {
        tracing::error!(error = %crate::chain(&error), "whether this host forwards because of us is not known");
        Opened::default()
    })
}

/// Makes settings of the kernel what they were before we changed them.
fn close(router: &Path) {
    match router::restore(router) {
        Ok(restored) => {
            for one in restored {
                match one {
                    Restored::Restored(Change {
                        setting, before, ..
                    }) => tracing::info!(%setting, %before, "as it was before forwarding"),
                    Restored::Changed(Change { setting, .. }) => {
                        tracing::info!(%setting, "somebody else has changed it; it stays");
                    }
                }
            }
        }
        Err(error) => {
            tracing::error!(error = %crate::chain(&error), "what forwarding changed in the kernel is left; `mainstay purge` removes it");
        }
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
