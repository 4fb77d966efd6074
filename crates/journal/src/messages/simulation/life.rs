//! What who keeps messages does, at random.

use std::sync::Arc;

use bytes::Bytes;

use super::oracle::{Oracle, State};
use crate::error::OpenError;
use crate::messages::planted::{Bug, Planted};
use crate::messages::{
    AppendError, Change, Level, MessageLimits, MessageLog, Place, Tidied, examine,
};
use crate::simulated::SimulatedDisk;

/// Small, so that a short life begins many segments.
pub(super) const SHORT: u64 = 1024;

/// For a log that fills its disk: see `room` for how many segments there may be of which length.
pub(super) const LONG: u64 = 4096;

/// How many segments a log takes beyond twice what is needed: two that are left alone, the newest, one in
/// transition, three spares; and a long one with its spare, each as two.
const SEGMENTS_BEYOND: u64 = 7 + 4;

type Log = MessageLog<SimulatedDisk>;

/// Whether the disk still works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Alive,
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Did {
    It,
    /// The disk refused: this was not done.
    Nothing,
    /// The log believes nothing any more.
    Poisoned,
}

pub(super) struct Life {
    pub(super) rng: fastrand::Rng,
    oracle: Oracle,
    limits: MessageLimits,
    bug: Option<Bug>,
    /// Why something was refused last.
    refusal: String,
    /// Where somebody reads, and what is to be there.
    reading: Option<(Place<SimulatedDisk>, Bytes)>,
}

impl Life {
    pub(super) fn new(seed: u64, segment_len: u64, bug: Option<Bug>) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            oracle: Oracle::new(segment_len),
            limits: MessageLimits {
                segment_len,
                bytes_max: u64::MAX,
            },
            bug,
            refusal: String::new(),
            reading: None,
        }
    }

    /// Opens the log and compares it with what is known. `None`: the disk is dead.
    fn open(&mut self, disk: &Arc<SimulatedDisk>) -> Result<Option<Log>, String> {
        self.reading = None;
        // A fault that is planned may meet an opening; the next one gets on.
        for _ in 0..20 {
            match MessageLog::open(disk.clone(), self.limits) {
                Ok((mut log, found)) => {
                    log.planted = Planted(self.bug);
                    self.oracle.judge(State::found(&found, &log.places())?)?;
                    return Ok(Some(log));
                }
                Err(_) if disk.is_dead() => return Ok(None),
                Err(OpenError::Disk { .. }) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Err("does not open".to_owned())
    }

    /// Opens it, and looks at all.
    pub(super) fn look(&mut self, disk: &Arc<SimulatedDisk>) -> Result<Outcome, String> {
        let Some(log) = self.open(disk)? else {
            return Ok(Outcome::Dead);
        };
        let examined = examine(&**disk).map_err(|error| error.to_string())?;
        if !examined.damage.is_empty() {
            return Err(format!(
                "damage in a log that opened: {:?}",
                examined.damage
            ));
        }
        let live: u64 = examined.segments.iter().map(|segment| segment.live).sum();
        if live != log.room().live || examined.messages != self.oracle.now.messages.len() as u64 {
            return Err(format!("{live} bytes are needed, not {}", log.room().live));
        }
        Ok(Outcome::Alive)
    }

    /// Appends, syncs and tidies, until the disk is dead or enough is done.
    pub(super) fn live(&mut self, disk: &Arc<SimulatedDisk>) -> Result<Outcome, String> {
        let Some(mut log) = self.open(disk)? else {
            return Ok(Outcome::Dead);
        };
        for _ in 0..self.rng.usize(10..40) {
            let batch = self.oracle.batch(&mut self.rng);
            let mut did = self.append(&mut log, &batch)?;
            self.read(&log)?;
            if self.rng.bool() && did != Did::Poisoned {
                did = self.sync(&mut log);
            }
            if self.rng.u8(0..4) > 0 && did != Did::Poisoned {
                let budget = self.rng.u64(200..4000);
                did = tidy(&mut log, budget)?.0;
            }
            if self.rng.u8(0..10) == 0 && did != Did::Poisoned {
                did = self.copy(&mut log)?;
            }
            if disk.is_dead() {
                return Ok(Outcome::Dead);
            }
            if did == Did::Poisoned {
                let any = [Change::Remove { key: Bytes::new() }];
                if log.append(&any).is_ok() || log.sync().is_ok() || log.tidy(1).is_ok() {
                    return Err("what was not made durable is gone on with".to_owned());
                }
                drop(log);
                log = match self.open(disk)? {
                    Some(log) => log,
                    None => return Ok(Outcome::Dead),
                };
            }
        }
        Ok(Outcome::Alive)
    }

    /// Appends until the disk is full, and consumes until there is room; twice.
    pub(super) fn fill_and_drain(&mut self, disk: &Arc<SimulatedDisk>) -> Result<(), String> {
        let Some(mut log) = self.open(disk)? else {
            return Ok(());
        };
        for _ in 0..2 {
            let mut refused = 0;
            for _ in 0..2000 {
                let batch = [self.oracle.message(&mut self.rng)];
                match self.append(&mut log, &batch)? {
                    Did::It => {}
                    Did::Nothing | Did::Poisoned if disk.is_dead() => return Ok(()),
                    Did::Nothing => refused += 1,
                    Did::Poisoned => return Err("poisoned".to_owned()),
                }
                self.settle(&mut log, 2000)?;
                if refused > 5 {
                    break;
                }
            }
            if disk.is_dead() {
                return Ok(());
            }
            if refused == 0 {
                return Err("the disk is not full".to_owned());
            }
            let keep = self.rng.usize(0..4);
            while self.oracle.now.messages.len() > keep {
                let batch = self.oracle.forgetting(&mut self.rng);
                let did = self.append(&mut log, &batch)?;
                if disk.is_dead() {
                    return Ok(());
                }
                if did != Did::It {
                    let why = format!("{}; {log:?}", self.refusal);
                    return Err(format!(
                        "what is forgotten is refused by a full disk: {why}"
                    ));
                }
                let budget = self.rng.u64(1..500);
                if self.rng.bool() {
                    self.settle(&mut log, budget)?;
                }
            }
            self.settle(&mut log, u64::MAX)?;
            if disk.is_dead() {
                return Ok(());
            }
            let room = log.room();
            if room.level != Level::Plenty || room.on_disk != disk.used() {
                return Err(format!(
                    "there is no room again: {room:?} of {}",
                    disk.used()
                ));
            }
            let beyond = SEGMENTS_BEYOND * self.limits.segment_len;
            if room.on_disk > 2 * room.live + beyond {
                return Err(format!("{room:?} is too much"));
            }
        }
        Ok(())
    }

    /// Syncs, and tidies: to the end with a budget without end.
    fn settle(&mut self, log: &mut Log, budget: u64) -> Result<(), String> {
        self.sync(log);
        for _ in 0..1000 {
            let (_, tidied) = tidy(log, budget)?;
            if tidied == Tidied::Idle || budget < u64::MAX {
                return Ok(());
            }
        }
        Err("tidying does not come to an end".to_owned())
    }

    fn append(&mut self, log: &mut Log, batch: &[Change]) -> Result<Did, String> {
        match log.append(batch) {
            Ok(_unsynced) => {
                self.oracle.appended(batch);
                Ok(Did::It)
            }
            Err(error @ AppendError::Full { .. }) => {
                self.refusal = format!("{error}: {:?}", std::error::Error::source(&error));
                Ok(Did::Nothing)
            }
            Err(AppendError::Disk { .. }) => {
                self.oracle.was_refused(batch);
                Ok(Did::Nothing)
            }
            Err(AppendError::Sync(_)) => Ok(Did::Poisoned),
            Err(error) => Err(error.to_string()),
        }
    }

    fn sync(&mut self, log: &mut Log) -> Did {
        if log.sync().is_err() {
            return Did::Poisoned;
        }
        self.oracle.synced();
        Did::It
    }

    /// Reads a message, or goes on reading one that may be forgotten by now.
    fn read(&mut self, log: &Log) -> Result<(), String> {
        if let Some((place, body)) = &self.reading {
            let read = place.read().map_err(|error| error.to_string())?;
            if read != body {
                return Err("another body is read".to_owned());
            }
            if self.rng.u8(0..4) > 0 {
                return Ok(());
            }
            self.reading = None;
        }
        if let Some(message) = self.oracle.any_message(&mut self.rng) {
            let place = log.places().find(message);
            let place = place.ok_or(format!("{message:?} has no place"))?;
            let body = self.oracle.now.messages[&message].1.clone();
            self.reading = Some((place, body));
        }
        Ok(())
    }

    /// Copies the log, goes on with it, and opens the copy.
    fn copy(&mut self, log: &mut Log) -> Result<Did, String> {
        let Ok(snapshot) = log.snapshot() else {
            return Ok(Did::Poisoned);
        };
        self.oracle.synced();
        let then = self.oracle.now.clone();
        let mut did = Did::It;
        for _ in 0..6 {
            let batch = self.oracle.batch(&mut self.rng);
            if did != Did::Poisoned {
                did = self.append(log, &batch)?;
            }
            if did != Did::Poisoned {
                did = tidy(log, 2000)?.0;
            }
        }
        let target = Arc::new(SimulatedDisk::new(1));
        let copied = snapshot.copy_to(&*target);
        copied.map_err(|error| error.to_string())?;
        let target = Arc::new(target.crash());
        let (copy, found) =
            MessageLog::open(target, self.limits).map_err(|error| error.to_string())?;
        if State::found(&found, &copy.places())? != then {
            return Err("the copy is another log".to_owned());
        }
        Ok(did)
    }
}

fn tidy(log: &mut Log, budget: u64) -> Result<(Did, Tidied), String> {
    match log.tidy(budget) {
        Ok(tidied) => Ok((Did::It, tidied)),
        Err(AppendError::Disk { .. } | AppendError::Full { .. }) => {
            Ok((Did::Nothing, Tidied::Idle))
        }
        Err(AppendError::Sync(_)) => Ok((Did::Poisoned, Tidied::Idle)),
        Err(error) => Err(error.to_string()),
    }
}
