//! By maps of nf_tables (ADR 28).
//!
//! Rules are constant; see `rules`. A change is a few elements, in one transaction: some 0.4 ms,
//! with any number of services. The rules have a generation, which tells for some microseconds
//! whether anybody changed anything. Only if so, and the kernel's notices do not say that it was about
//! tables of others, the table is read and compared.

mod arp;
mod elements;
mod reading;
mod rules;
#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::net::SocketAddr;

use mainstay_kernel::netlink::Socket;
use mainstay_kernel::netlink::nft::{
    Family, Generation, Listing, Name, NameError, Notices, Transaction, TransactionError,
};

use mainstay_control::forward::Batch;
use mainstay_model::forward::{Answering, BackEndKind, Counting, ForwardSettings, Ranges};

use crate::back_end::{BackEnd, Counted, ForwardError, Found, Meter};
use crate::router::Opened;
use elements::{InForce, Present};
pub use reading::read;
use rules::Ip;
pub(crate) use rules::SOURCE_SEED;

/// The table's name if none is given.
pub const TABLE: &str = "mainstay";

/// The priority of the chains that translate first packets: as `nft` names it, `dstnat`.
pub const TRANSLATION_PRIORITY: i32 = -101;

/// Families of which tables of ours may be, as `nft` writes them: `arp`, where nodes are kept from
/// answering for the range.
const FAMILIES: [(Family, &str); 2] = [(Family::Inet, "inet"), (Family::Arp, "arp")];

/// The same, for notices.
const WATCHED: [Family; 2] = [Family::Inet, Family::Arp];

/// How often a transaction is tried that another program overtakes. Each try costs it a transaction,
/// too.
const TRIES: usize = 8;

/// What the rules depend on. With other settings the table is made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The table, of family `inet`; everything in it is ours.
    pub table: Name,
    /// Where service addresses lie.
    pub ranges: Ranges,
    /// Whether bytes are counted.
    pub counting: Counting,
    /// Whether ARP is answered.
    pub answering: Answering,
    /// Where this node itself listens within the ranges.
    pub own: Vec<SocketAddr>,
    /// Where it was us who had the host forward, it forwards nothing but connections to service
    /// addresses, and what passes from one bridge to another.
    pub opened: Opened,
}

impl Settings {
    /// With the usual name of the table.
    pub fn of(settings: &ForwardSettings) -> Result<Self, NameError> {
        Ok(Self {
            table: Name::new(TABLE)?,
            ranges: settings.ranges.clone(),
            counting: settings.counting,
            answering: settings.answering,
            own: settings.own.clone(),
            opened: Opened::default(),
        })
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Nft {
    settings: Settings,
    socket: Socket,
    /// `None`: they cannot be had, and each change of others has the table read.
    notices: Option<Notices>,
    /// How often it was.
    readings: u64,
    state: InForce,
    /// As the kernel had it after our last change.
    left: Left,
}

/// What we left in the kernel.
#[derive(Debug)]
struct Left {
    generation: Generation,
    listing: Listing,
    /// Of the table of ARP; `None`: there is none.
    arp: Option<Listing>,
}

impl Nft {
    /// Makes the table in this thread's network namespace, or takes over what an earlier process made:
    /// maps stay as they are, rules are written anew in the same instant.
    pub fn start(settings: Settings) -> Result<Self, ForwardError> {
        let socket = Socket::open().map_err(missing)?;
        // Before our own changes, so that they are the first that is heard.
        let notices = Notices::open(settings.table.clone(), &WATCHED).ok();
        let arp = make_arp(&settings, &socket)?;
        let (state, left) = take_over(&settings, &socket, arp)?;
        Ok(Self {
            settings,
            socket,
            notices,
            readings: 0,
            state,
            left,
        })
    }

    /// How often the whole table was read since the start, since somebody may have changed it.
    pub fn readings(&self) -> u64 {
        self.readings
    }

    /// Whether nobody changed what is ours, up to what the kernel has now. If so, that is what we left.
    fn is_spared(&mut self) -> Result<bool, ForwardError> {
        // Asked first: what is told of it has come already, or nearly so, and then it is read.
        let now = generation(&self.socket)?;
        if let Some(notices) = &mut self.notices {
            notices.hear();
        }
        let spared = now == self.left.generation
            || self
                .notices
                .as_ref()
                .is_some_and(|notices| notices.spare(self.left.generation, now));
        if spared {
            self.left.generation = now;
        }
        Ok(spared)
    }

    fn transaction(&self) -> Transaction {
        Transaction::new(Family::Inet, self.settings.table.clone())
    }

    /// Writes all chains anew, in one transaction; maps stay.
    fn rewrite_chains(&mut self) -> Result<(), ForwardError> {
        for _ in 0..TRIES {
            let generation = self.left.generation;
            let mut tx = self.transaction();
            tx.only_at(generation);
            for name in rules::chain_names(&self.settings) {
                tx.flush_chain(&name);
            }
            rules::write_chains(&mut tx, &self.settings);
            match tx.commit(&self.socket) {
                Ok(()) => {
                    let arp = self.left.arp.take();
                    self.left = look(&self.settings, &self.socket, generation, arp)?;
                    return Ok(());
                }
                Err(TransactionError::Overtaken) => {
                    if !self.is_spared()? {
                        self.repair()?;
                    }
                }
                Err(error) => return Err(classed(error, "its chains")),
            }
        }
        Err(ForwardError::Overtaken(TRIES))
    }

    /// Makes the table as it should be, if it is not.
    fn repair(&mut self) -> Result<Found, ForwardError> {
        self.readings += 1;
        let arp = list(&self.settings, &self.socket, Family::Arp)?;
        let silent = arp == self.left.arp;
        if !silent {
            self.left.arp = make_arp(&self.settings, &self.socket)?;
        }
        for _ in 0..TRIES {
            let generation = generation(&self.socket)?;
            let listing = list(&self.settings, &self.socket, Family::Inet)?;
            let mut tx = self.transaction();
            tx.only_at(generation);
            let found = match &listing {
                None => "the table was deleted",
                Some(listing) if *listing != self.left.listing => {
                    tx.delete_table();
                    "chains or rules were changed"
                }
                Some(_) => {
                    let present =
                        Present::read(&self.settings.table, &self.socket).map_err(refused)?;
                    if present.mend(&self.state, &mut tx) == 0 {
                        self.left.generation = generation;
                        return Ok(if silent {
                            Found::InForce
                        } else {
                            Found::Repaired("the table of ARP was changed".to_owned())
                        });
                    }
                    "elements were changed"
                }
            };
            if found != "elements were changed" {
                make(&self.settings, &self.state, &mut tx);
            }
            match tx.commit(&self.socket) {
                Ok(()) => {
                    let arp = self.left.arp.take();
                    self.left = look(&self.settings, &self.socket, generation, arp)?;
                    return Ok(Found::Repaired(found.to_owned()));
                }
                Err(TransactionError::Overtaken) => {}
                Err(error) => return Err(classed(error, "the whole table")),
            }
        }
        Err(ForwardError::Overtaken(TRIES))
    }
}

impl BackEnd for Nft {
    fn kind(&self) -> BackEndKind {
        BackEndKind::Nft
    }

    fn in_force(&self) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        self.state.addresses()
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), ForwardError> {
        let next = self.state.with(batch);
        let mut mended = false;
        for _ in 0..TRIES {
            let mut tx = self.transaction();
            tx.only_at(self.left.generation);
            self.state.write_change(&next, &mut tx);
            if tx.is_empty() {
                self.state = next.applied(core::mem::take(&mut self.state));
                return Ok(());
            }
            match tx.commit(&self.socket) {
                Ok(()) => {
                    self.left.generation = self.left.generation.next();
                    self.state = next.applied(core::mem::take(&mut self.state));
                    return Ok(());
                }
                Err(TransactionError::Overtaken) => {
                    if !self.is_spared()? {
                        self.repair()?;
                    }
                }
                // What we take for granted is not there: nothing tells but a look.
                Err(error) if !mended && is_surprise(&error) => {
                    mended = true;
                    self.repair()?;
                }
                Err(error) => return Err(classed(error, &next.names())),
            }
        }
        Err(ForwardError::Overtaken(TRIES))
    }

    fn check(&mut self) -> Result<Found, ForwardError> {
        if self.is_spared()? {
            return Ok(Found::InForce);
        }
        self.repair()
    }

    fn limit(&mut self, opened: Opened) -> Result<bool, ForwardError> {
        if opened == self.settings.opened {
            return Ok(true);
        }
        let before = std::mem::replace(&mut self.settings.opened, opened);
        // The whole table is compared with this, and so repaired, should the change be lost.
        let changed = self.rewrite_chains();
        if changed.is_err() {
            self.settings.opened = before;
        }
        changed.map(|()| true)
    }

    fn meter(&self) -> Result<Box<dyn Meter>, ForwardError> {
        Ok(Box::new(Counters {
            table: self.settings.table.clone(),
            counting: self.settings.counting,
            socket: Socket::open().map_err(missing)?,
        }))
    }

    fn remove(&mut self) -> Result<(), ForwardError> {
        for (family, _) in FAMILIES {
            delete(family, &self.settings.table, &self.socket)?;
        }
        self.state = InForce::default();
        Ok(())
    }
}

/// The counters of the table's elements.
#[derive(Debug)]
struct Counters {
    table: Name,
    counting: Counting,
    socket: Socket,
}

impl Meter for Counters {
    fn connections(&mut self) -> Result<Vec<(SocketAddr, u64)>, ForwardError> {
        elements::connections(&self.table, &self.socket).map_err(refused)
    }

    fn traffic(&mut self) -> Result<Option<Vec<(SocketAddr, Counted)>>, ForwardError> {
        match self.counting {
            Counting::Off => Ok(None),
            Counting::On => {
                let counted = elements::traffic(&self.table, &self.socket);
                counted.map(Some).map_err(refused)
            }
        }
    }
}

fn delete(family: Family, table: &Name, socket: &Socket) -> Result<(), ForwardError> {
    let mut tx = Transaction::new(family, table.clone());
    // It may be gone: made and deleted in one transaction it never was.
    tx.add_table();
    tx.delete_table();
    let done = tx.commit(socket);
    done.map_err(|error| classed(error, what(family)))
}

fn what(family: Family) -> &'static str {
    match family {
        Family::Arp => "the table of ARP",
        Family::Inet | Family::Ipv4 | Family::Ipv6 => "the whole table",
    }
}

/// The families of which this thread's network namespace has a table of this name, as an earlier
/// process may have left it.
pub fn left(table: &Name) -> Result<Vec<&'static str>, ForwardError> {
    let socket = Socket::open().map_err(missing)?;
    let mut found = Vec::new();
    for (family, word) in FAMILIES {
        if socket.list_table(family, table).map_err(missing)?.is_some() {
            found.push(word);
        }
    }
    Ok(found)
}

/// Deletes all that [`left`] finds. Of which families it was.
pub fn clear(table: &Name) -> Result<Vec<&'static str>, ForwardError> {
    let socket = Socket::open().map_err(missing)?;
    let found = left(table)?;
    for (family, word) in FAMILIES {
        if found.contains(&word) {
            delete(family, table, &socket)?;
        }
    }
    Ok(found)
}

/// The table of ARP as it should be, whatever was there.
fn make_arp(settings: &Settings, socket: &Socket) -> Result<Option<Listing>, ForwardError> {
    let what = "the table of ARP";
    if list(settings, socket, Family::Arp)?.is_some() {
        let mut tx = Transaction::new(Family::Arp, settings.table.clone());
        tx.delete_table();
        tx.commit(socket).map_err(|error| classed(error, what))?;
    }
    let Some(tx) = arp::make(settings) else {
        return Ok(None);
    };
    tx.commit(socket).map_err(|error| classed(error, what))?;
    list(settings, socket, Family::Arp)
}

/// Everything, into a table that is not there.
fn make(settings: &Settings, state: &InForce, tx: &mut Transaction) {
    tx.add_table();
    rules::write(tx, settings);
    InForce::default().write_change(&state.as_change(), tx);
}

fn take_over(
    settings: &Settings,
    socket: &Socket,
    arp: Option<Listing>,
) -> Result<(InForce, Left), ForwardError> {
    // Whether what is there can be taken over is seen by trying.
    let mut adoptable = true;
    for _ in 0..TRIES {
        let generation = generation(socket)?;
        let listing = list(settings, socket, Family::Inet)?;
        let mut tx = Transaction::new(Family::Inet, settings.table.clone());
        tx.only_at(generation);
        let present = match &listing {
            Some(listing) if adoptable => adopt(settings, socket, listing, &mut tx),
            Some(_) | None => None,
        };
        let state = present.unwrap_or_else(|| {
            if listing.is_some() {
                tx.delete_table();
            }
            make(settings, &InForce::default(), &mut tx);
            InForce::default()
        });
        match tx.commit(socket) {
            Ok(()) => return Ok((state, look(settings, socket, generation, arp)?)),
            Err(TransactionError::Overtaken) => {}
            Err(error) if adoptable && listing.is_some() && is_surprise(&error) => {
                adoptable = false;
            }
            Err(error) => return Err(classed(error, "the whole table")),
        }
    }
    Err(ForwardError::Overtaken(TRIES))
}

/// Keeps the elements of an earlier process and writes chains and rules anew. `None`: the table is of
/// another form.
fn adopt(
    settings: &Settings,
    socket: &Socket,
    listing: &Listing,
    tx: &mut Transaction,
) -> Option<InForce> {
    let names = rules::chain_names(settings);
    let same_chains = listing.chains.len() == names.len()
        && names.iter().all(|name| {
            listing
                .chains
                .iter()
                .any(|(found, _)| found == name.as_str())
        });
    if listing.dormant || !same_chains {
        return None;
    }
    let present = Present::read(&settings.table, socket).ok()?;
    let state = present.understood()?;
    for name in &names {
        tx.flush_chain(name);
    }
    rules::write_chains(tx, settings);
    present.mend(&state, tx);
    Some(state)
}

/// After a transaction at this generation.
fn look(
    settings: &Settings,
    socket: &Socket,
    before: Generation,
    arp: Option<Listing>,
) -> Result<Left, ForwardError> {
    let listing = list(settings, socket, Family::Inet)?.unwrap_or_default();
    Ok(Left {
        // Should somebody have changed rules between, the next check sees a later one.
        generation: before.next(),
        listing,
        arp,
    })
}

fn generation(socket: &Socket) -> Result<Generation, ForwardError> {
    socket.generation().map_err(missing)
}

fn list(
    settings: &Settings,
    socket: &Socket,
    family: Family,
) -> Result<Option<Listing>, ForwardError> {
    let listed = socket.list_table(family, &settings.table);
    listed.map_err(missing)
}

/// Whether the kernel's tables differ from what was expected.
fn is_surprise(error: &TransactionError) -> bool {
    match error {
        TransactionError::Refused { source, .. } => {
            !matches!(source.raw_os_error(), Some(code) if code == NOT_PERMITTED)
        }
        TransactionError::Overtaken
        | TransactionError::Socket(_)
        | TransactionError::Unanswered { .. } => false,
    }
}

/// `EPERM`.
const NOT_PERMITTED: i32 = 1;

fn classed(error: TransactionError, what: &str) -> ForwardError {
    let back_end = BackEndKind::Nft;
    let forbidden = match &error {
        TransactionError::Refused { source, .. } | TransactionError::Socket(source) => {
            source.kind() == io::ErrorKind::PermissionDenied
        }
        TransactionError::Overtaken | TransactionError::Unanswered { .. } => false,
    };
    let source = Box::new(error);
    if forbidden {
        ForwardError::Forbidden { back_end, source }
    } else {
        let what = what.to_owned();
        ForwardError::Refused {
            back_end,
            what,
            source,
        }
    }
}

fn missing(source: io::Error) -> ForwardError {
    let back_end = BackEndKind::Nft;
    let forbidden = source.kind() == io::ErrorKind::PermissionDenied;
    let source = source.into();
    if forbidden {
        ForwardError::Forbidden { back_end, source }
    } else {
        ForwardError::Missing { back_end, source }
    }
}

fn refused(source: io::Error) -> ForwardError {
    ForwardError::Refused {
        back_end: BackEndKind::Nft,
        what: "what it has in force".to_owned(),
        source: source.into(),
    }
}

/// Where an address is found.
fn ip(address: SocketAddr) -> Ip {
    Ip::of(address.ip())
}
