//! [`Store::save`] on a disk that loses power at every point, in every way that [`Disk`] allows.
//!
//! The check holds only with its control: on a disk that forgets one of the two syncs it must
//! fail, and that is a test, too.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;

use mainstay_store::{Disk, Store};
use serde::{Deserialize, Serialize};

/// A directory in memory: what it shows now, and what of it would survive.
#[derive(Clone, Default)]
struct Sim {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    names_durable: BTreeMap<String, usize>,
    /// What was done to the names since the directory was last synced.
    pending: Vec<NameChange>,
    steps: usize,
    fault: Option<Fault>,
}

#[derive(Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone)]
enum NameChange {
    Created(String, usize),
    Renamed {
        from: String,
        to: String,
        file: usize,
    },
}

#[derive(Clone, Copy)]
enum Fault {
    /// The power fails at this step: from then on nothing works.
    PowerAt(usize),
    /// This step alone is refused, as by a full disk.
    RefusedAt(usize),
}

impl Sim {
    fn step(&mut self) -> io::Result<()> {
        let step = self.steps;
        self.steps += 1;
        match self.fault {
            Some(Fault::PowerAt(at)) if step >= at => Err(io::Error::other("no power")),
            Some(Fault::RefusedAt(at)) if step == at => {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            Some(Fault::PowerAt(_) | Fault::RefusedAt(_)) | None => Ok(()),
        }
    }

    /// Every disk that may be found after the power comes back.
    fn survivors(&self) -> Vec<Sim> {
        let mut found = Vec::new();
        for kept in 0..1_u32 << self.pending.len() {
            let mut names = self.names_durable.clone();
            for (index, change) in self.pending.iter().enumerate() {
                if kept & (1 << index) == 0 {
                    continue;
                }
                match change {
                    NameChange::Created(name, file) => names.insert(name.clone(), *file),
                    NameChange::Renamed { from, to, file } => {
                        names.remove(from);
                        names.insert(to.clone(), *file)
                    }
                };
            }
            let mut disks = vec![Vec::new()];
            for file in &self.files {
                let variants = file.survivors();
                let longer = |disk: &Vec<Content>| {
                    let disk = disk.clone();
                    let with = move |content: &Content| {
                        disk.iter().cloned().chain([content.clone()]).collect()
                    };
                    variants.iter().map(with).collect::<Vec<Vec<Content>>>()
                };
                disks = disks.iter().flat_map(longer).collect();
            }
            found.extend(disks.into_iter().map(|files| Sim {
                files,
                names: names.clone(),
                names_durable: names.clone(),
                ..Sim::default()
            }));
        }
        found
    }
}

impl Content {
    /// What an unsynced file may hold afterwards: the old, the new, a part of the new, the new with
    /// a hole of zeros, the new over the old.
    fn survivors(&self) -> Vec<Content> {
        let half = self.now.len() / 2;
        let mut holed = self.now.clone();
        holed[half..].fill(0);
        let mut mixed = self.durable.clone();
        mixed.resize(self.now.len().max(mixed.len()), 0);
        mixed[..half].copy_from_slice(&self.now[..half]);
        let torn = self.now[..half].to_vec();
        let mut variants = vec![self.durable.clone()];
        for variant in [self.now.clone(), torn, holed, mixed] {
            if self.now != self.durable && !variants.contains(&variant) {
                variants.push(variant);
            }
        }
        let durable = |content: Vec<u8>| Content {
            now: content.clone(),
            durable: content,
        };
        variants.into_iter().map(durable).collect()
    }
}

/// What a disk forgets to do although it says that it did: as good as code that forgot to ask.
#[derive(Clone, Copy, PartialEq)]
enum Forgets {
    Nothing,
    Sync,
    SyncDir,
}

#[derive(Clone)]
struct SimDisk {
    sim: Rc<RefCell<Sim>>,
    forgets: Forgets,
}

impl SimDisk {
    fn new(sim: Sim, forgets: Forgets, fault: Option<Fault>) -> Self {
        let sim = Sim {
            fault,
            steps: 0,
            ..sim
        };
        Self {
            sim: Rc::new(RefCell::new(sim)),
            forgets,
        }
    }

    fn is_dead(&self) -> bool {
        let sim = self.sim.borrow();
        matches!(sim.fault, Some(Fault::PowerAt(at)) if sim.steps > at)
    }
}

impl Disk for SimDisk {
    type File = usize;

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let sim = self.sim.borrow();
        Ok(sim.names.get(name).map(|file| sim.files[*file].now.clone()))
    }

    fn create(&self, name: &str) -> io::Result<usize> {
        let mut sim = self.sim.borrow_mut();
        sim.step()?;
        if let Some(file) = sim.names.get(name).copied() {
            sim.files[file].now.clear();
            return Ok(file);
        }
        let file = sim.files.len();
        sim.files.push(Content::default());
        sim.names.insert(name.to_owned(), file);
        sim.pending.push(NameChange::Created(name.to_owned(), file));
        Ok(file)
    }

    fn write_at(&self, file: &usize, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut sim = self.sim.borrow_mut();
        assert_eq!(at, sim.files[*file].now.len() as u64, "at the end");
        let done = sim.step();
        let written = if done.is_ok() {
            bytes
        } else {
            &bytes[..bytes.len() / 3]
        };
        sim.files[*file].now.extend_from_slice(written);
        done
    }

    fn sync(&self, file: &usize) -> io::Result<()> {
        let mut sim = self.sim.borrow_mut();
        sim.step()?;
        if self.forgets != Forgets::Sync {
            let file = &mut sim.files[*file];
            file.durable.clone_from(&file.now);
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut sim = self.sim.borrow_mut();
        sim.step()?;
        let file = sim
            .names
            .remove(from)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        sim.names.insert(to.to_owned(), file);
        let (from, to) = (from.to_owned(), to.to_owned());
        sim.pending.push(NameChange::Renamed { from, to, file });
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut sim = self.sim.borrow_mut();
        sim.step()?;
        if self.forgets != Forgets::SyncDir {
            sim.names_durable = sim.names.clone();
            sim.pending.clear();
        }
        Ok(())
    }

    fn path(&self) -> &Path {
        Path::new("/simulated")
    }

    fn list(&self) -> io::Result<Vec<String>> {
        unused()
    }

    fn open(&self, _: &str) -> io::Result<Option<usize>> {
        unused()
    }

    fn len(&self, _: &usize) -> io::Result<u64> {
        unused()
    }

    fn read_at(&self, _: &usize, _: u64, _: &mut [u8]) -> io::Result<usize> {
        unused()
    }

    fn set_len(&self, _: &usize, _: u64) -> io::Result<()> {
        unused()
    }

    fn reserve(&self, _: &usize, _: u64) -> io::Result<()> {
        unused()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        unused()
    }
}

/// What a journal asks of a disk and a document does not: a save that began to would fail here.
fn unused<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct State {
    number: u64,
    padding: String,
}

impl State {
    fn new(number: u64) -> Self {
        // Of another length each time, as real states are.
        let len = usize::try_from(number * 37 % 200).expect("small");
        Self {
            number,
            padding: "x".repeat(len),
        }
    }
}

fn open(disk: SimDisk) -> Result<(Store<SimDisk>, u64), String> {
    let (store, state) = Store::open_on::<State>(disk).map_err(|error| error.to_string())?;
    Ok((store, state.map_or(0, |state| state.number)))
}

/// Saves `states` one after the other on `start` with the power failing at every step, and looks at
/// every disk that may be found then. Gives these disks, or what was wrong with one of them.
fn check(start: &Sim, states: &[u64], forgets: Forgets) -> Result<Vec<Sim>, String> {
    let mut found = Vec::new();
    for step in 0.. {
        let disk = SimDisk::new(start.clone(), forgets, Some(Fault::PowerAt(step)));
        let (mut store, mut saved) = open(disk.clone())?;
        let mut attempted = saved;
        for number in states {
            attempted = *number;
            if store.save(&State::new(*number)).is_err() {
                break;
            }
            saved = *number;
        }
        for survivor in disk.sim.borrow().survivors() {
            let (_, seen) = open(SimDisk::new(survivor.clone(), forgets, None))
                .map_err(|error| format!("power lost at step {step}: {error}"))?;
            if seen != saved && seen != attempted {
                return Err(format!(
                    "power lost at step {step}: state {saved} was saved, {attempted} was being \
                     saved, and {seen} is there"
                ));
            }
            found.push(survivor);
        }
        if !disk.is_dead() {
            return Ok(found);
        }
    }
    Ok(found)
}

#[test]
fn after_a_power_loss_at_any_step_the_old_or_the_new_state_is_there_and_after_ok_the_new() {
    let found = check(&Sim::default(), &[1, 2, 3], Forgets::Nothing).expect("holds");
    assert!(
        found.len() > 50,
        "only {} disks were looked at",
        found.len()
    );
    // And again on each of them, with whatever the first loss left lying about.
    for survivor in &found {
        check(survivor, &[4, 5], Forgets::Nothing).expect("holds after an earlier loss");
    }
}

#[test]
fn a_missing_sync_before_the_rename_is_found() {
    let wrong = check(&Sim::default(), &[1, 2, 3], Forgets::Sync).err();
    let wrong = wrong.expect("the check must fail without the sync");
    println!("without the sync of the file: {wrong}");
    assert!(wrong.contains("damaged"), "{wrong}");
}

#[test]
fn a_missing_sync_of_the_directory_is_found() {
    let wrong = check(&Sim::default(), &[1, 2, 3], Forgets::SyncDir).err();
    let wrong = wrong.expect("the check must fail without the sync");
    println!("without the sync of the directory: {wrong}");
    assert!(wrong.contains("state 1 was saved"), "{wrong}");
}

#[test]
fn when_the_disk_refuses_any_step_the_state_stays_whole_and_a_later_save_works() {
    for step in 0..5 {
        let disk = SimDisk::new(Sim::default(), Forgets::Nothing, None);
        let (mut store, _) = open(disk.clone()).expect("opens");
        store.save(&State::new(1)).expect("saves");
        {
            let mut sim = disk.sim.borrow_mut();
            sim.fault = Some(Fault::RefusedAt(sim.steps + step));
        }
        let error = store.save(&State::new(2)).expect_err("is refused");
        assert!(
            error.to_string().contains("/simulated/state.json"),
            "{error}"
        );
        for survivor in disk.sim.borrow().survivors() {
            let (_, seen) = open(SimDisk::new(survivor, Forgets::Nothing, None)).expect("whole");
            // Only the last step fails behind the rename.
            assert!(seen == 1 || (step == 4 && seen == 2), "step {step}: {seen}");
        }
        store.save(&State::new(3)).expect("saves again");
        for survivor in disk.sim.borrow().survivors() {
            let opened = open(SimDisk::new(survivor, Forgets::Nothing, None));
            assert_eq!(opened.map(|(_, seen)| seen), Ok(3), "step {step}");
        }
    }
}
