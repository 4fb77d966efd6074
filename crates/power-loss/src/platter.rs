//! What the disk holds: as it is seen now, and what of it would survive.

use std::collections::BTreeMap;

use crate::Syncs;

/// What a disk writes as a whole or not at all.
const SECTOR_LEN: usize = 512;

/// The size of a piece of the shared memory, as SQLite asks for it.
const REGION_LEN: usize = 32 * 1024;

/// How many locks SQLite has on the shared memory (`SQLITE_SHM_NLOCK`).
const SHARED_LOCKS: usize = 8;

/// One file's number, for ever.
pub(crate) type FileId = usize;

/// One open file's number, for ever.
pub(crate) type HandleId = u64;

/// A call did not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoPower,
    NoRoom,
    NoSuchFile,
    Locked,
}

/// Whether files can grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Plenty,
    None,
}

/// How strongly a handle holds a file, in SQLite's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hold {
    None,
    Shared,
    Reserved,
    Exclusive,
}

#[derive(Debug)]
pub(crate) struct Platter {
    files: Vec<File>,
    names: BTreeMap<String, FileId>,
    names_durable: BTreeMap<String, FileId>,
    /// What was done to the names since the directory was last synced.
    renamed: Vec<NameChange>,
    next_handle: HandleId,
    steps: u64,
    syncs: u64,
    power_until: u64,
    dead: bool,
    room: Room,
    honesty: Syncs,
}

#[derive(Debug, Clone)]
enum NameChange {
    Made(String, FileId),
    Removed(String),
}

#[derive(Debug, Default)]
struct File {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// What was done since the last sync.
    pending: Vec<Change>,
    holds: BTreeMap<HandleId, Hold>,
    shared: Shared,
}

#[derive(Debug, Clone)]
enum Change {
    Written { at: usize, bytes: Vec<u8> },
    Cut { len: usize },
}

/// The memory that the connections to one file share; a power loss forgets it.
#[derive(Debug, Default)]
struct Shared {
    regions: Vec<Box<[u64]>>,
    /// Who uses it.
    users: Vec<HandleId>,
    locks: [SharedLock; SHARED_LOCKS],
}

#[derive(Debug, Default)]
struct SharedLock {
    shared: Vec<HandleId>,
    exclusive: Option<HandleId>,
}

impl Platter {
    pub(crate) fn new(honesty: Syncs) -> Self {
        Self {
            files: Vec::new(),
            names: BTreeMap::new(),
            names_durable: BTreeMap::new(),
            renamed: Vec::new(),
            next_handle: 0,
            steps: 0,
            syncs: 0,
            power_until: u64::MAX,
            dead: false,
            room: Room::Plenty,
            honesty,
        }
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.syncs
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    pub(crate) fn lose_power_at(&mut self, step: u64) {
        self.power_until = step;
    }

    pub(crate) fn set_room(&mut self, room: Room) {
        self.room = room;
    }

    /// What may be found after the power came back.
    pub(crate) fn survivor(&self, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let mut found = Self::new(self.honesty);
        for file in &self.files {
            let content = file.survivor(&mut chance);
            found.files.push(File {
                now: content.clone(),
                durable: content,
                ..File::default()
            });
        }
        let mut names = self.names_durable.clone();
        for change in &self.renamed {
            if chance.fate() == Fate::Absent {
                continue;
            }
            match change {
                NameChange::Made(name, file) => names.insert(name.clone(), *file),
                NameChange::Removed(name) => names.remove(name),
            };
        }
        found.names_durable.clone_from(&names);
        found.names = names;
        found
    }

    /// One call that changes something. `Err`: the power goes, and the change may yet be there.
    fn step(&mut self) -> Result<(), Refusal> {
        let step = self.steps;
        self.steps += 1;
        self.dead |= step >= self.power_until;
        self.alive()
    }

    fn alive(&self) -> Result<(), Refusal> {
        if self.dead {
            Err(Refusal::NoPower)
        } else {
            Ok(())
        }
    }

    pub(crate) fn open(&mut self, name: &str, make: Make) -> Result<(FileId, HandleId), Refusal> {
        self.alive()?;
        let file = match (self.names.get(name), make) {
            (Some(file), _) => *file,
            (None, Make::No) => return Err(Refusal::NoSuchFile),
            (None, Make::Yes | Make::Durably) => {
                let file = self.files.len();
                self.files.push(File::default());
                self.names.insert(name.to_owned(), file);
                self.renamed.push(NameChange::Made(name.to_owned(), file));
                self.step()?;
                if make == Make::Durably {
                    self.sync_names();
                }
                file
            }
        };
        Ok((file, self.handle()))
    }

    /// A file without a name, gone when it is closed.
    pub(crate) fn open_unnamed(&mut self) -> Result<(FileId, HandleId), Refusal> {
        self.alive()?;
        self.files.push(File::default());
        Ok((self.files.len() - 1, self.handle()))
    }

    fn handle(&mut self) -> HandleId {
        self.next_handle += 1;
        self.next_handle
    }

    pub(crate) fn close(&mut self, file: FileId, handle: HandleId) {
        self.files[file].holds.remove(&handle);
        self.unmap(file, handle);
    }

    pub(crate) fn exists(&self, name: &str) -> Result<bool, Refusal> {
        self.alive()?;
        Ok(self.names.contains_key(name))
    }

    pub(crate) fn remove(&mut self, name: &str, durably: Make) -> Result<(), Refusal> {
        if self.names.remove(name).is_none() {
            return Err(Refusal::NoSuchFile);
        }
        self.renamed.push(NameChange::Removed(name.to_owned()));
        self.step()?;
        if durably == Make::Durably {
            self.sync_names();
        }
        Ok(())
    }

    pub(crate) fn len(&self, file: FileId) -> Result<usize, Refusal> {
        self.alive()?;
        Ok(self.files[file].now.len())
    }

    /// Fills `bytes` from `at` on; what lies behind the end is zeros. Gives how many there were.
    pub(crate) fn read(&self, file: FileId, at: usize, bytes: &mut [u8]) -> Result<usize, Refusal> {
        self.alive()?;
        let content = &self.files[file].now;
        let found = content.get(at..).unwrap_or_default();
        let len = found.len().min(bytes.len());
        bytes[..len].copy_from_slice(&found[..len]);
        bytes[len..].fill(0);
        Ok(len)
    }

    pub(crate) fn write(&mut self, file: FileId, at: usize, bytes: &[u8]) -> Result<(), Refusal> {
        self.alive()?;
        if self.room == Room::None && at + bytes.len() > self.files[file].now.len() {
            return Err(Refusal::NoRoom);
        }
        let change = Change::Written {
            at,
            bytes: bytes.to_vec(),
        };
        self.files[file].change(change);
        self.step()
    }

    pub(crate) fn cut(&mut self, file: FileId, len: usize) -> Result<(), Refusal> {
        self.alive()?;
        self.files[file].change(Change::Cut { len });
        self.step()
    }

    /// Makes a file's content durable.
    pub(crate) fn sync(&mut self, file: FileId) -> Result<(), Refusal> {
        self.alive()?;
        self.step()?;
        self.syncs += 1;
        if self.honesty == Syncs::Hold {
            let file = &mut self.files[file];
            file.durable.clone_from(&file.now);
            file.pending.clear();
        }
        Ok(())
    }

    /// Makes the names durable.
    pub(crate) fn sync_names(&mut self) {
        self.syncs += 1;
        if self.honesty == Syncs::Hold {
            self.names_durable.clone_from(&self.names);
            self.renamed.clear();
        }
    }

    pub(crate) fn hold(
        &mut self,
        file: FileId,
        handle: HandleId,
        hold: Hold,
    ) -> Result<(), Refusal> {
        let holds = &mut self.files[file].holds;
        let others = holds.iter().filter(|(other, _)| **other != handle);
        let strongest = others.map(|(_, hold)| *hold).max().unwrap_or(Hold::None);
        let free = match hold {
            Hold::None => true,
            Hold::Shared => strongest < Hold::Exclusive,
            Hold::Reserved => strongest < Hold::Reserved,
            Hold::Exclusive => strongest == Hold::None,
        };
        if !free {
            return Err(Refusal::Locked);
        }
        holds.insert(handle, hold);
        Ok(())
    }

    pub(crate) fn is_reserved(&self, file: FileId) -> bool {
        self.files[file]
            .holds
            .values()
            .any(|hold| *hold >= Hold::Reserved)
    }

    /// The address of a region of the shared memory; `None`: it is not there, and is not to be made.
    pub(crate) fn map(
        &mut self,
        file: FileId,
        handle: HandleId,
        region: usize,
        make: Make,
    ) -> Option<*mut u64> {
        let shared = &mut self.files[file].shared;
        if !shared.users.contains(&handle) {
            shared.users.push(handle);
        }
        while shared.regions.len() <= region {
            if make == Make::No {
                return None;
            }
            let words = REGION_LEN / size_of::<u64>();
            shared.regions.push(vec![0; words].into_boxed_slice());
        }
        Some(shared.regions[region].as_mut_ptr())
    }

    pub(crate) fn unmap(&mut self, file: FileId, handle: HandleId) {
        let shared = &mut self.files[file].shared;
        shared.users.retain(|user| *user != handle);
        for lock in &mut shared.locks {
            lock.release(handle);
        }
        if shared.users.is_empty() {
            shared.regions.clear();
        }
    }

    /// Takes or gives back locks on the shared memory, all or none.
    pub(crate) fn lock_shared(
        &mut self,
        file: FileId,
        handle: HandleId,
        locks: std::ops::Range<usize>,
        want: Hold,
    ) -> Result<(), Refusal> {
        let locks = &mut self.files[file].shared.locks[locks];
        let others = |lock: &SharedLock| lock.shared.iter().any(|other| *other != handle);
        let theirs = |lock: &SharedLock| lock.exclusive.is_some_and(|owner| owner != handle);
        let taken = locks.iter().any(|lock| match want {
            Hold::None => false,
            Hold::Shared => theirs(lock),
            Hold::Reserved | Hold::Exclusive => theirs(lock) || others(lock),
        });
        if taken {
            return Err(Refusal::Locked);
        }
        for lock in locks {
            match want {
                Hold::None => lock.release(handle),
                Hold::Shared => lock.shared.push(handle),
                Hold::Reserved | Hold::Exclusive => lock.exclusive = Some(handle),
            }
        }
        Ok(())
    }
}

/// Whether a file is made, or a change of names is durable at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Make {
    No,
    Yes,
    Durably,
}

impl SharedLock {
    fn release(&mut self, handle: HandleId) {
        self.shared.retain(|other| *other != handle);
        if self.exclusive == Some(handle) {
            self.exclusive = None;
        }
    }
}

impl File {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.now, |_| true);
        self.pending.push(change);
    }

    fn survivor(&self, chance: &mut Chance) -> Vec<u8> {
        let mut content = self.durable.clone();
        for change in &self.pending {
            match chance.fate() {
                Fate::Absent => {}
                Fate::Present => change.apply(&mut content, |_| true),
                Fate::Torn => change.apply(&mut content, |_| chance.toss()),
            }
        }
        content
    }
}

impl Change {
    /// Applies it to `content`; of a write only the sectors that `survives` says.
    fn apply(&self, content: &mut Vec<u8>, mut survives: impl FnMut(usize) -> bool) {
        match self {
            Self::Cut { len } => content.resize(*len, 0),
            Self::Written { at, bytes } => {
                let mut done = 0;
                while done < bytes.len() {
                    let from = at + done;
                    let sector_end = (from / SECTOR_LEN + 1) * SECTOR_LEN;
                    let len = (sector_end - from).min(bytes.len() - done);
                    if survives(from / SECTOR_LEN) {
                        if content.len() < from + len {
                            content.resize(from + len, 0);
                        }
                        content[from..from + len].copy_from_slice(&bytes[done..done + len]);
                    }
                    done += len;
                }
            }
        }
    }
}

/// What happens to a change that was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Absent,
    Present,
    Torn,
}

enum Chance {
    Never,
    Always,
    Drawn(fastrand::Rng),
}

impl Chance {
    fn new(seed: u64) -> Self {
        match seed {
            0 => Self::Never,
            1 => Self::Always,
            seed => Self::Drawn(fastrand::Rng::with_seed(seed)),
        }
    }

    fn fate(&mut self) -> Fate {
        match self {
            Self::Never => Fate::Absent,
            Self::Always => Fate::Present,
            Self::Drawn(random) => match random.u8(0..3) {
                0 => Fate::Absent,
                1 => Fate::Present,
                _ => Fate::Torn,
            },
        }
    }

    fn toss(&mut self) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::Drawn(random) => random.bool(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(platter: &Platter) -> Vec<u8> {
        let file = platter.names["a"];
        platter.files[file].now.clone()
    }

    fn one_file() -> (Platter, FileId) {
        let mut platter = Platter::new(Syncs::Hold);
        let (file, _) = platter.open("a", Make::Durably).expect("opens");
        platter.write(file, 0, &[1; 2048]).expect("writes");
        platter.sync(file).expect("syncs");
        (platter, file)
    }

    #[test]
    fn what_was_not_synced_is_there_or_not_or_torn_and_what_was_is_there() {
        let (mut platter, file) = one_file();
        platter.write(file, 0, &[2; 2048]).expect("writes");
        assert_eq!(written(&platter.survivor(0)), [1; 2048]);
        assert_eq!(written(&platter.survivor(1)), [2; 2048]);
        let mut torn = 0;
        for seed in 2..40 {
            let found = written(&platter.survivor(seed));
            assert_eq!(found.len(), 2048);
            for sector in found.chunks(SECTOR_LEN) {
                assert!(sector == [1; SECTOR_LEN] || sector == [2; SECTOR_LEN]);
            }
            torn += u32::from(found.contains(&1) && found.contains(&2));
        }
        assert!(torn > 3, "{torn} were torn");
        platter.sync(file).expect("syncs");
        assert_eq!(written(&platter.survivor(0)), [2; 2048]);
    }

    #[test]
    fn a_name_that_was_not_synced_may_be_missing_and_a_removed_one_may_be_back() {
        let (mut platter, _) = one_file();
        platter.open("b", Make::Yes).expect("opens");
        platter.remove("a", Make::No).expect("removes");
        let names = |seed| {
            let found = platter.survivor(seed);
            found.names.keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(names(0), ["a"]);
        assert_eq!(names(1), ["b"]);
    }

    #[test]
    fn after_the_power_is_gone_nothing_works_and_the_last_write_may_be_there() {
        let (mut platter, file) = one_file();
        platter.lose_power_at(platter.steps());
        let refused = platter.write(file, 0, &[2; 2048]);
        assert_eq!(refused, Err(Refusal::NoPower));
        assert_eq!(platter.read(file, 0, &mut [0]), Err(Refusal::NoPower));
        assert_eq!(platter.sync(file), Err(Refusal::NoPower));
        assert_eq!(written(&platter.survivor(1)), [2; 2048]);
        assert_eq!(written(&platter.survivor(0)), [1; 2048]);
    }

    #[test]
    fn a_sync_that_lies_keeps_nothing() {
        let mut platter = Platter::new(Syncs::Lie);
        let (file, _) = platter.open("a", Make::Durably).expect("opens");
        platter.write(file, 0, &[1; 10]).expect("writes");
        platter.sync(file).expect("says so");
        assert!(platter.survivor(0).names.is_empty());
    }
}
