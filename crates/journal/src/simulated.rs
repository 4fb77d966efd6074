//! A disk for tests that does all that [`Disk`] allows a real one to do: it loses power, refuses
//! steps, tears writes, and, where a test plants that, lies.
//!
//! After [`SimulatedDisk::crash`] each write that was not synced is present, absent or torn between
//! sectors of 512 bytes, and each name that was not synced may be missing; which is drawn from the
//! seed. After a failed sync everything that it should have made durable reads well, is passed over by
//! later syncs, and may be gone after the crash: so Linux behaves.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::disk::Disk;

/// What a disk writes in one piece.
const SECTOR: u64 = 512;

/// What goes wrong, at which step. A step is one call that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The power fails at this step: from then on nothing works.
    PowerAt(usize),
    /// From this step on, for so many steps, whatever needs room is refused; a write may be half done.
    FullFrom(usize, usize),
    /// The first sync at or behind this step fails with an input/output error.
    SyncAt(usize),
}

/// What the disk says that it did and did not: as good as code that forgot to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// [`Disk::sync`] does nothing.
    Sync,
    /// [`Disk::sync_dir`] does nothing.
    SyncDir,
}

/// A directory in memory: what it shows now, and what of it would survive.
#[derive(Debug)]
pub struct SimulatedDisk {
    // The trait works through shared references, as a directory of the machine does.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rng: fastrand::Rng,
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    names_durable: BTreeMap<String, usize>,
    /// What was done to the names since the directory was last synced.
    name_changes: Vec<NameChange>,
    steps: usize,
    faults: Vec<Fault>,
    lie: Option<Lie>,
    power: Power,
    /// How many bytes all files may take together.
    capacity: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    Gone,
}

#[derive(Debug, Default)]
struct Content {
    now: Vec<u8>,
    /// What is surely on the disk, without the changes below.
    base: Vec<u8>,
    changes: Vec<(Change, Fate)>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { at: u64, bytes: Vec<u8> },
    SetLen(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The next sync makes it durable.
    Dirty,
    /// It is durable.
    Synced,
    /// A sync failed with it: no later one takes it up.
    Abandoned,
}

#[derive(Debug, Clone)]
enum NameChange {
    Created(String, usize),
    Renamed {
        from: String,
        to: String,
        file: usize,
    },
    Removed(String),
}

impl SimulatedDisk {
    /// An empty disk; `seed` decides what survives.
    pub fn new(seed: u64) -> Self {
        Self::of(State {
            rng: fastrand::Rng::with_seed(seed),
            files: Vec::new(),
            names: BTreeMap::new(),
            names_durable: BTreeMap::new(),
            name_changes: Vec::new(),
            steps: 0,
            faults: Vec::new(),
            lie: None,
            power: Power::On,
            capacity: u64::MAX,
        })
    }

    fn of(state: State) -> Self {
        Self {
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets things go wrong, and none of those planned before; steps count from the disk's beginning.
    pub fn plan(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults = faults.into_iter().collect();
    }

    /// Goes on after a loss of power as if only the process had ended there: all that was written
    /// is to be seen, and what was not synced may still be lost.
    pub fn process_ended(&self) {
        let mut state = self.state();
        state.power = Power::On;
        state.faults.clear();
    }

    /// Lets the disk lie.
    pub fn lie(&self, lie: Option<Lie>) {
        self.state().lie = lie;
    }

    /// Lets all files together take so many bytes; what would need more is refused.
    pub fn hold_at_most(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// What all files take.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// How many steps there were.
    pub fn steps(&self) -> usize {
        self.state().steps
    }

    /// Whether the planned loss of power has come.
    pub fn is_dead(&self) -> bool {
        self.state().power == Power::Gone
    }

    /// Puts `bytes` in the place of a file, durably: damage, or a file that a test prepared.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state();
        let file = state.files.len();
        state.files.push(Content::durable(bytes.to_vec()));
        state.names.insert(name.to_owned(), file);
        state.names_durable.insert(name.to_owned(), file);
    }

    /// The disk that is found when the power comes back.
    #[must_use]
    pub fn crash(&self) -> Self {
        let mut state = self.state();
        let State {
            rng,
            files,
            names_durable,
            name_changes,
            lie,
            capacity,
            ..
        } = &mut *state;
        let mut names = names_durable.clone();
        for change in name_changes {
            if rng.bool() {
                apply_name(&mut names, change);
            }
        }
        let files = files
            .iter()
            .map(|file| Content::durable(file.survivor(rng)));
        let files = files.collect();
        Self::of(State {
            rng: rng.fork(),
            files,
            names_durable: names.clone(),
            names,
            name_changes: Vec::new(),
            steps: 0,
            faults: Vec::new(),
            lie: *lie,
            power: Power::On,
            capacity: *capacity,
        })
    }
}

fn apply_name(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    match change {
        NameChange::Created(name, file) => {
            names.insert(name.clone(), *file);
        }
        NameChange::Renamed { from, to, file } => {
            names.remove(from);
            names.insert(to.clone(), *file);
        }
        NameChange::Removed(name) => {
            names.remove(name);
        }
    }
}

/// What a step asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    Room,
    Sync,
    Else,
}

impl State {
    fn step(&mut self, asks: Asks) -> io::Result<()> {
        let step = self.steps;
        self.steps += 1;
        if self.power == Power::Gone {
            return Err(io::Error::other("no power"));
        }
        for index in 0..self.faults.len() {
            match self.faults[index] {
                Fault::PowerAt(at) if step >= at => {
                    self.power = Power::Gone;
                    return Err(io::Error::other("no power"));
                }
                Fault::FullFrom(at, steps)
                    if asks == Asks::Room && (at..at.saturating_add(steps)).contains(&step) =>
                {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Fault::SyncAt(at) if asks == Asks::Sync && step >= at => {
                    self.faults.remove(index);
                    return Err(io::Error::from_raw_os_error(EIO));
                }
                Fault::PowerAt(_) | Fault::FullFrom(..) | Fault::SyncAt(_) => {}
            }
        }
        Ok(())
    }

    fn used(&self) -> u64 {
        let files = self.names.values().map(|file| &self.files[*file]);
        files.map(|file| file.now.len() as u64).sum()
    }

    /// Whether a file may become so long.
    fn room(&self, file: usize, len: u64) -> io::Result<()> {
        let more = len.saturating_sub(self.files[file].now.len() as u64);
        if more > 0 && self.used() + more > self.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn change_name(&mut self, change: NameChange) {
        apply_name(&mut self.names, &change);
        self.name_changes.push(change);
    }
}

const EIO: i32 = rustix::io::Errno::IO.raw_os_error();

impl Content {
    fn durable(bytes: Vec<u8>) -> Self {
        Self {
            now: bytes.clone(),
            base: bytes,
            changes: Vec::new(),
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.changes.push((change, Fate::Dirty));
    }

    fn sync(&mut self) {
        for (_, fate) in &mut self.changes {
            if *fate == Fate::Dirty {
                *fate = Fate::Synced;
            }
        }
        let abandoned = |(_, fate): &(Change, Fate)| *fate == Fate::Abandoned;
        if !self.changes.iter().any(abandoned) {
            self.changes.clear();
            self.base.clone_from(&self.now);
        }
    }

    fn abandon(&mut self) {
        for (_, fate) in &mut self.changes {
            if *fate == Fate::Dirty {
                *fate = Fate::Abandoned;
            }
        }
    }

    fn survivor(&self, rng: &mut fastrand::Rng) -> Vec<u8> {
        let mut bytes = self.base.clone();
        for (change, fate) in &self.changes {
            match (fate, rng.u8(0..3)) {
                (Fate::Synced, _) | (Fate::Dirty | Fate::Abandoned, 0) => change.apply(&mut bytes),
                (Fate::Dirty | Fate::Abandoned, 1) => {}
                (Fate::Dirty | Fate::Abandoned, _) => change.tear(&mut bytes, rng),
            }
        }
        bytes
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => write(to, *at, bytes),
            Self::SetLen(len) => to.resize(index(*len), 0),
        }
    }

    /// Applies the parts of a write in some of its sectors.
    fn tear(&self, to: &mut Vec<u8>, rng: &mut fastrand::Rng) {
        let Self::Write { at, bytes } = self else {
            return; // a length is not torn
        };
        let (mut at, mut rest) = (*at, &bytes[..]);
        while !rest.is_empty() {
            let in_sector = index(SECTOR - at % SECTOR).min(rest.len());
            let (sector, behind) = rest.split_at(in_sector);
            if rng.bool() {
                write(to, at, sector);
            }
            at += in_sector as u64;
            rest = behind;
        }
    }
}

fn write(to: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let from = index(at);
    let end = from + bytes.len();
    if to.len() < end {
        to.resize(end, 0);
    }
    to[from..end].copy_from_slice(bytes);
}

fn index(at: u64) -> usize {
    usize::try_from(at).expect("simulated files are small")
}

impl Disk for SimulatedDisk {
    type File = usize;

    fn path(&self) -> &Path {
        Path::new("/simulated")
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let state = self.state();
        let file = state.names.get(name);
        Ok(file.map(|file| state.files[*file].now.clone()))
    }

    fn create(&self, name: &str) -> io::Result<usize> {
        let mut state = self.state();
        state.step(Asks::Room)?;
        if let Some(file) = state.names.get(name).copied() {
            state.files[file].change(Change::SetLen(0));
            return Ok(file);
        }
        let file = state.files.len();
        state.files.push(Content::default());
        state.change_name(NameChange::Created(name.to_owned(), file));
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<Option<usize>> {
        Ok(self.state().names.get(name).copied())
    }

    fn len(&self, file: &usize) -> io::Result<u64> {
        Ok(self.state().files[*file].now.len() as u64)
    }

    fn read_at(&self, file: &usize, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let state = self.state();
        let from = usize::try_from(at).unwrap_or(usize::MAX);
        let there = state.files[*file].now.get(from..).unwrap_or(&[]);
        let len = there.len().min(into.len());
        into[..len].copy_from_slice(&there[..len]);
        Ok(len)
    }

    fn read_cached_at(&self, file: &usize, at: u64, into: &mut [u8]) -> io::Result<Option<usize>> {
        // All of it is in memory.
        self.read_at(file, at, into).map(Some)
    }

    fn write_at(&self, file: &usize, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let done = state.step(Asks::Room);
        let done = done.and_then(|()| state.room(*file, at + bytes.len() as u64));
        let len = if done.is_ok() {
            bytes.len()
        } else {
            // Of what does not fit only what is written over may be written.
            let there = state.files[*file].now.len().saturating_sub(index(at));
            let fits = state.capacity == u64::MAX || there > bytes.len();
            let most = if fits { bytes.len() } else { there };
            state.rng.usize(..=most)
        };
        let bytes = bytes[..len].to_vec();
        state.files[*file].change(Change::Write { at, bytes });
        done
    }

    fn set_len(&self, file: &usize, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.step(Asks::Else)?;
        state.files[*file].change(Change::SetLen(len));
        Ok(())
    }

    fn reserve(&self, file: &usize, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.step(Asks::Room)?;
        state.room(*file, len)?;
        if index(len) > state.files[*file].now.len() {
            state.files[*file].change(Change::SetLen(len));
        }
        Ok(())
    }

    fn sync(&self, file: &usize) -> io::Result<()> {
        let mut state = self.state();
        let done = state.step(Asks::Sync);
        match (&done, state.lie) {
            (Ok(()), Some(Lie::Sync)) => {}
            (Ok(()), Some(Lie::SyncDir) | None) => state.files[*file].sync(),
            (Err(_), _) => state.files[*file].abandon(),
        }
        done
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.step(Asks::Else)?;
        let file = state.names.get(from).copied();
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        let (from, to) = (from.to_owned(), to.to_owned());
        state.change_name(NameChange::Renamed { from, to, file });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.step(Asks::Else)?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_name(NameChange::Removed(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        state.step(Asks::Sync)?;
        if state.lie != Some(Lie::SyncDir) {
            state.names_durable = state.names.clone();
            state.name_changes.clear();
        }
        Ok(())
    }
}
