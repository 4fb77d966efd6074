//! By rules of iptables, for hosts whose kernel has no nf_tables, and to compare with (ADR 35).
//!
//! Each change reads the two tables, and writes what differs in one `iptables-restore --noflush`, which
//! replaces each table at once. That takes some 20 ms with 100 services, and a second with 5,000: reading
//! and writing is of whole tables. `rules.rs` has the chains; a connection meets a rule for each service.
//!
//! What it cannot do: bytes are not counted, since that would take each packet past two rules for each
//! instance; and where clients stay is found by two hashes of 8 and 32 slots instead of one, so that a
//! client comes to another instance than by `nft`, and a service whose clients stay has 256 rules. Who asks
//! for a service address by ARP is answered as the kernel is set up, since iptables sees no ARP.
//! `-m recent` would remember clients, for a hundred of them, and forget them by time.

mod command;
mod mend;
mod reading;
mod rules;
mod state;
#[cfg(test)]
mod tests;
mod text;

use std::fmt::Write as _;
use std::net::SocketAddr;

pub use command::{CommandError, Variant};
pub use reading::read;

use mainstay_control::forward::Batch;
use mainstay_kernel::netlink::Socket;
use mainstay_kernel::netlink::nft::Generation;
use mainstay_model::forward::{BackEndKind, ForwardSettings, Ranges};

use crate::back_end::{BackEnd, Counted, ForwardError, Found, Meter};
use command::Programs;
use rules::{Ip, Protocol};
use state::{BatchError, InForce};
use text::Saved;

/// How often a change is tried that another program overtakes. Each try waits for the lock.
const TRIES: usize = 3;
/// How much that was wrong is told.
const WRONG_MAX: usize = 4;
const TABLES: [&str; 2] = ["nat", "filter"];

/// What the rules depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where service addresses lie.
    pub ranges: Ranges,
    /// Where this node itself listens within them.
    pub own: Vec<SocketAddr>,
    /// By which programs. `None`: those that the host calls `iptables`.
    pub variant: Option<Variant>,
}

impl Settings {
    /// By the programs that the host calls `iptables`.
    pub fn of(settings: &ForwardSettings) -> Self {
        Self {
            ranges: settings.ranges.clone(),
            own: settings.own.clone(),
            variant: None,
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Iptables {
    settings: Settings,
    /// For each version of IP that the ranges have.
    programs: Vec<(Ip, Programs)>,
    state: InForce,
    /// How the tables were found right, in the order of `programs`. `None`: to be looked at.
    seen: Vec<Option<Seen>>,
    /// Where the kernel says whether any rule of nf_tables has changed: reading them takes seconds with
    /// thousands of services. The old tables have nothing like it.
    nf_tables: Option<Socket>,
}

/// Tables that were right.
#[derive(Debug, Clone, Copy)]
struct Seen {
    digests: [u64; 2],
    generation: Option<Generation>,
}

/// Both tables of one version of IP.
struct Look {
    nat: Saved,
    filter: Saved,
    digests: [u64; 2],
}

impl Iptables {
    /// Makes the chains in this thread's network namespace, or takes over what an earlier process made:
    /// rules that are right stay as they are.
    pub fn start(settings: Settings) -> Result<Self, ForwardError> {
        let mut programs = Vec::new();
        for ip in [Ip::V4, Ip::V6] {
            let networks = settings.ranges.networks();
            if networks.iter().any(|one| Ip::of(one.address()) == ip) {
                let found = Programs::find(ip, settings.variant);
                programs.push((ip, found.map_err(|error| classed(error, "its programs"))?));
            }
        }
        let mut state = InForce::default();
        for (_, programs) in &programs {
            let look = look(programs)?;
            state.adopt(&look.nat, &look.filter);
        }
        let ranges = settings.ranges.clone();
        state
            .services
            .retain(|address, _| ranges.contain(address.ip()));
        let seen = programs.iter().map(|_| None).collect();
        let over_nf_tables = |(_, programs): &(Ip, Programs)| programs.variant() == Variant::Nft;
        // Without it each look reads all.
        let nf_tables = programs.iter().all(over_nf_tables).then(Socket::open);
        let mut this = Self {
            settings,
            programs,
            state,
            seen,
            nf_tables: nf_tables.and_then(Result::ok),
        };
        this.check()?;
        Ok(this)
    }

    /// The programs that were found, with their versions.
    pub fn programs(&self) -> Vec<String> {
        let programs = self.programs.iter();
        programs.map(|(_, programs)| programs.to_string()).collect()
    }

    /// Whether the rules are written for the old tables or for nf_tables.
    pub fn variant(&self) -> Variant {
        let first = self.programs.first();
        first.map_or(Variant::Legacy, |(_, programs)| programs.variant())
    }

    /// Writes what differs from a state, for each version of IP in which another state does.
    fn establish(&self, state: &InForce, other: &InForce) -> Result<(), CommandError> {
        let programs = self.programs.iter();
        programs
            .filter(|(ip, _)| state.differs(other, *ip))
            .try_for_each(|(ip, programs)| self.establish_one(*ip, programs, state))
    }

    fn establish_one(
        &self,
        ip: Ip,
        programs: &Programs,
        state: &InForce,
    ) -> Result<(), CommandError> {
        let mut tries = 1;
        loop {
            let look = Look::at(programs)?;
            let (text, _) = self.difference(ip, &look, state);
            if text.is_empty() {
                return Ok(());
            }
            match programs.restore(&text) {
                Ok(()) => return Ok(()),
                // What was read may not be there any more.
                Err(error @ CommandError::Failed { .. })
                    if tries < TRIES && !error.is_forbidden() && !error.is_missing() =>
                {
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What is to be written, and what was wrong.
    fn difference(&self, ip: Ip, look: &Look, state: &InForce) -> (String, Vec<String>) {
        let ranges = &self.settings.ranges;
        let wanted = [
            rules::nat(ip, ranges, state.services_of(ip)),
            rules::filter(ip, ranges, &self.settings.own, state.dead_of(ip)),
        ];
        let mut text = String::new();
        let mut wrong = Vec::new();
        for ((name, saved), wanted) in TABLES.into_iter().zip(look.tables()).zip(&wanted) {
            if let Some((part, mut said)) = mend::mend(name, saved, wanted) {
                text.push_str(&part);
                wrong.append(&mut said);
            }
        }
        (text, wrong)
    }

    fn forget_what_was_seen(&mut self) {
        self.seen.fill(None);
    }

    /// Repairs one version of IP, if it has to be. What was wrong.
    fn check_one(&mut self, index: usize) -> Result<Vec<String>, ForwardError> {
        let (ip, programs) = &self.programs[index];
        // Asked before, so that what is changed while it is read is seen the next time.
        let generation = self
            .nf_tables
            .as_ref()
            .and_then(|one| one.generation().ok());
        let before = self.seen[index];
        if before.is_some_and(|seen| seen.generation.is_some() && seen.generation == generation) {
            return Ok(Vec::new());
        }
        let found = look(programs)?;
        let seen = Seen {
            digests: found.digests,
            generation,
        };
        if before.is_some_and(|before| before.digests == found.digests) {
            self.seen[index] = Some(seen);
            return Ok(Vec::new());
        }
        let (text, wrong) = self.difference(*ip, &found, &self.state);
        if text.is_empty() {
            self.seen[index] = Some(seen);
            return Ok(wrong);
        }
        let mended = self.establish_one(*ip, programs, &self.state);
        mended.map_err(|error| classed(error, "its chains"))?;
        self.seen[index] = None;
        Ok(wrong)
    }

    fn refused(&self, error: BatchError) -> ForwardError {
        ForwardError::Refused {
            back_end: self.kind(),
            what: "the rules of a service".to_owned(),
            source: Box::new(error),
        }
    }

    fn check_places(&self, batch: &Batch) -> Result<(), BatchError> {
        let mut services = batch.services.iter().map(|(service, _)| *service);
        let elsewhere = services.find(|service| !self.settings.ranges.contain(service.ip()));
        elsewhere.map_or(Ok(()), |service| Err(BatchError::Elsewhere { service }))
    }
}

impl BackEnd for Iptables {
    fn kind(&self) -> BackEndKind {
        BackEndKind::Iptables
    }

    fn in_force(&self) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        let services = self.state.services.keys().copied().collect();
        (services, self.state.dead.iter().copied().collect())
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), ForwardError> {
        self.check_places(batch)
            .map_err(|error| self.refused(error))?;
        let next = self
            .state
            .with(batch)
            .map_err(|error| self.refused(error))?;
        if next == self.state {
            return Ok(());
        }
        self.forget_what_was_seen();
        if let Err(error) = self.establish(&next, &self.state) {
            // A table or a version of IP may be changed already. What cannot be undone now is undone by
            // the next look.
            let undone = self.establish(&self.state, &next);
            if let Err(undo) = undone {
                tracing::warn!(
                    error = &undo as &dyn std::error::Error,
                    "rules wait to be undone"
                );
            }
            return Err(classed(error, "the rules of services"));
        }
        self.state = next;
        Ok(())
    }

    fn check(&mut self) -> Result<Found, ForwardError> {
        let mut wrong = Vec::new();
        for index in 0..self.programs.len() {
            wrong.append(&mut self.check_one(index)?);
        }
        if wrong.is_empty() {
            return Ok(Found::InForce);
        }
        let more = wrong.len().saturating_sub(WRONG_MAX);
        wrong.truncate(WRONG_MAX);
        let mut said = wrong.join(", ");
        if more > 0 {
            write!(said, " and {more} more").ok();
        }
        Ok(Found::Repaired(said))
    }

    fn meter(&self) -> Result<Box<dyn Meter>, ForwardError> {
        Ok(Box::new(Counters(self.programs.clone())))
    }

    fn remove(&mut self) -> Result<(), ForwardError> {
        for (_, programs) in &self.programs {
            let look = look(programs)?;
            let tables = TABLES.into_iter().zip(look.tables());
            let text: String = tables
                .filter_map(|(name, saved)| mend::erase(name, saved))
                .collect();
            if !text.is_empty() {
                let erased = programs.restore(&text);
                erased.map_err(|error| classed(error, "its chains"))?;
            }
        }
        self.state = InForce::default();
        self.forget_what_was_seen();
        Ok(())
    }
}

/// The counters of the rules that lead to the chains of services.
#[derive(Debug)]
struct Counters(Vec<(Ip, Programs)>);

impl Meter for Counters {
    fn connections(&mut self) -> Result<Vec<(SocketAddr, u64)>, ForwardError> {
        let mut counted = std::collections::BTreeMap::new();
        for (_, programs) in &self.0 {
            let look = look(programs)?;
            for protocol in Protocol::BOTH {
                for (address, _, packets) in state::services(&look.nat, protocol) {
                    *counted.entry(address).or_insert(0) += packets;
                }
            }
        }
        Ok(counted.into_iter().collect())
    }

    /// Not counted: see the [module](self).
    fn traffic(&mut self) -> Result<Option<Vec<(SocketAddr, Counted)>>, ForwardError> {
        Ok(None)
    }
}

impl Look {
    fn at(programs: &Programs) -> Result<Self, CommandError> {
        let [nat, filter] = TABLES.map(|table| programs.save(table));
        let (nat, filter) = (nat?, filter?);
        Ok(Self {
            digests: [text::digest(&nat), text::digest(&filter)],
            nat: Saved::read(&nat),
            filter: Saved::read(&filter),
        })
    }

    fn tables(&self) -> [&Saved; 2] {
        [&self.nat, &self.filter]
    }
}

fn look(programs: &Programs) -> Result<Look, ForwardError> {
    Look::at(programs).map_err(|error| classed(error, "what it has in force"))
}

fn classed(error: CommandError, what: &str) -> ForwardError {
    let back_end = BackEndKind::Iptables;
    if error.is_overtaken() {
        return ForwardError::Overtaken(TRIES);
    }
    if error.is_forbidden() {
        let source = Box::new(error);
        return ForwardError::Forbidden { back_end, source };
    }
    if error.is_missing() {
        let source = Box::new(error);
        return ForwardError::Missing { back_end, source };
    }
    ForwardError::Refused {
        back_end,
        what: what.to_owned(),
        source: Box::new(error),
    }
}
