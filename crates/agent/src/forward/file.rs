//! The files `forward.json` and `forward.changes`: the instances to which connections were led, so that the next agent
//! knows whose connections it finds, and what forwards, for people. The one has all as it was at some time, the other,
//! line by line, what has changed since: with thousands of services a change is a line of some hundred bytes.
//!
//! They outlive a kill of the agent, not a loss of power: that ends the connections, too, so nothing is synced.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mainstay_control::forward::{Place, PlacesChange};
use mainstay_model::forward::BackEndKind;
use serde::{Deserialize, Serialize};

/// The form of the file. A reader refuses a newer one. In form 1 there are no changes beside it.
const FORMAT: u32 = 2;

/// The changes may be as long as this, or half as long as the file, before the file is written anew while nothing else
/// is to be done: reading so many takes milliseconds.
const CHANGES_LEN_MAX: u64 = 256 * 1024;

/// So many times that, and it is done at once: changes come faster than there is a quiet moment.
const CHANGES_LEN_FACTOR: u64 = 8;

#[derive(Serialize, Deserialize)]
struct Stored<P> {
    format: u32,
    /// Which of the files of changes belongs to it.
    #[serde(default)]
    serial: u64,
    places: P,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    choice: Option<Choice>,
}

/// The first line of the changes.
#[derive(Serialize, Deserialize)]
struct Head {
    of: u64,
}

/// One change: first these are gone, and then those are there.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Change {
    gone: Vec<SocketAddr>,
    put: Vec<Place>,
}

/// What an agent forwards by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// By which back end.
    pub back_end: BackEndKind,
    /// In words: why by none of the better ones.
    pub refused: Vec<String>,
}

impl Choice {
    /// That of the agent that forwards with this state directory, or was killed while it did. `None`:
    /// there is none, or nothing can be read.
    pub fn read(state: &Path) -> Option<Self> {
        let file = fs::read(PlacesFile::in_state(state).path).ok()?;
        let stored: Stored<Vec<Place>> = serde_json::from_slice(&file).ok()?;
        stored.choice.filter(|_| stored.format <= FORMAT)
    }
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("cannot read it")]
    Read(#[source] io::Error),
    #[error("it is not what an agent wrote")]
    Content(#[source] serde_json::Error),
    #[error("it has format {0}, and this version knows no newer than {FORMAT}")]
    Newer(u32),
}

#[derive(Debug)]
pub(super) struct PlacesFile {
    path: PathBuf,
    changes_path: PathBuf,
    serial: u64,
    choice: Option<Choice>,
    /// `None`: the file is to be written anew before a change can be added.
    changes: Option<Changes>,
}

/// Where changes are added.
#[derive(Debug)]
struct Changes {
    file: File,
    len: u64,
    len_max: u64,
}

impl PlacesFile {
    pub(super) fn in_state(state: &Path) -> Self {
        Self {
            path: state.join("forward.json"),
            changes_path: state.join("forward.changes"),
            serial: 0,
            choice: None,
            changes: None,
        }
    }

    /// What was stored last; nothing if nothing was.
    pub(super) fn load(&mut self) -> Result<Vec<Place>, LoadError> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(LoadError::Read(error)),
        };
        let Format { format } = serde_json::from_slice(&text).map_err(LoadError::Content)?;
        if format > FORMAT {
            return Err(LoadError::Newer(format));
        }
        let stored: Stored<Vec<Place>> =
            serde_json::from_slice(&text).map_err(LoadError::Content)?;
        self.serial = stored.serial;
        let changes = match fs::read(&self.changes_path) {
            Ok(text) => read_changes(&text, stored.serial),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(LoadError::Read(error)),
        };
        Ok(changed(stored.places, changes))
    }

    /// Takes in a change, and that nothing is under way any more to some that left. `before`: all places before it.
    pub(super) fn change(
        &mut self,
        change: PlacesChange,
        left: &[SocketAddr],
        before: impl FnOnce() -> Vec<Place>,
    ) -> io::Result<()> {
        let change = match change {
            PlacesChange::Anew(places) => return self.write(&places),
            PlacesChange::Part { mut gone, put } => {
                gone.extend(left);
                Change { gone, put }
            }
        };
        if change.gone.is_empty() && change.put.is_empty() {
            return Ok(());
        }
        let Some(mut changes) = self.changes.take().filter(Changes::has_room) else {
            return self.write(&changed(before(), vec![change]));
        };
        let line = line(&change)?;
        changes.file.write_all(&line)?;
        changes.len += u64::try_from(line.len()).unwrap_or(u64::MAX);
        // Not after an error: what is behind half a line is not read.
        self.changes = Some(changes);
        Ok(())
    }

    /// In a quiet moment: writes the file anew if there are many changes.
    pub(super) fn tidy(&mut self, places: impl FnOnce() -> Vec<Place>) -> io::Result<()> {
        match &self.changes {
            Some(changes) if changes.len > changes.len_max => self.write(&places()),
            Some(_) | None => Ok(()),
        }
    }

    /// Writes down what forwards.
    pub(super) fn note(&mut self, choice: Choice, places: &[Place]) -> io::Result<()> {
        self.choice = Some(choice);
        self.write(places)
    }

    /// Nothing forwards any more.
    pub(super) fn forget_choice(&mut self, places: &[Place]) -> io::Result<()> {
        self.choice = None;
        self.write(places)
    }

    /// First the file, with a new number, then changes of that number, of which there are none yet: whoever reads in
    /// between finds changes of another file, and leaves them.
    fn write(&mut self, places: &[Place]) -> io::Result<()> {
        self.changes = None;
        self.serial += 1;
        let stored = Stored {
            format: FORMAT,
            serial: self.serial,
            places,
            choice: self.choice.clone(),
        };
        let text = serde_json::to_vec(&stored)?;
        replace(&self.path, &text)?;
        let head = line(&Head { of: self.serial })?;
        let file = replace(&self.changes_path, &head)?;
        let len_max = u64::try_from(text.len() / 2).unwrap_or(u64::MAX);
        self.changes = Some(Changes {
            file,
            len: 0,
            len_max: len_max.max(CHANGES_LEN_MAX),
        });
        Ok(())
    }
}

impl Changes {
    fn has_room(&self) -> bool {
        self.len < self.len_max.saturating_mul(CHANGES_LEN_FACTOR)
    }
}

/// Its handle, at its end.
fn replace(path: &Path, content: &[u8]) -> io::Result<File> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let mut file = File::create(&beside)?;
    file.write_all(content)?;
    fs::rename(&beside, path)?;
    Ok(file)
}

/// Its checksum, and what it says.
fn line(says: &impl Serialize) -> io::Result<Vec<u8>> {
    let text = serde_json::to_string(says)?;
    let sum = crc32c::crc32c(text.as_bytes());
    Ok(format!("{sum:08x} {text}\n").into_bytes())
}

/// All changes up to the first that is not whole, if they belong to this file.
fn read_changes(text: &[u8], serial: u64) -> Vec<Change> {
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    let head: Option<Head> = lines.next().and_then(read_line);
    if head.is_none_or(|head| head.of != serial) {
        return Vec::new();
    }
    lines.map_while(read_line).collect()
}

fn read_line<T: for<'a> Deserialize<'a>>(line: &[u8]) -> Option<T> {
    let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let (sum, text) = line.split_once(' ')?;
    let sum = u32::from_str_radix(sum, 16).ok()?;
    let is_whole = sum == crc32c::crc32c(text.as_bytes());
    serde_json::from_str(text).ok().filter(|_| is_whole)
}

/// Places are one for each address.
fn changed(places: Vec<Place>, changes: Vec<Change>) -> Vec<Place> {
    if changes.is_empty() {
        return places;
    }
    let places = places.into_iter();
    let mut all: BTreeMap<SocketAddr, Place> = places.map(|place| (place.address, place)).collect();
    for change in changes {
        for address in &change.gone {
            all.remove(address);
        }
        let put = change.put.into_iter();
        all.extend(put.map(|place| (place.address, place)));
    }
    all.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_ids::{Attempt, InstanceId, ServiceName};
    use mainstay_testkit::TempDir;

    fn place(number: u64) -> Place {
        let service = ServiceName::parse("orders").unwrap();
        let [.., high, low] = number.to_be_bytes();
        Place {
            instance: InstanceId { service, number },
            attempt: Attempt(2),
            address: SocketAddr::from(([10, 0, high, low], 80)),
            through: "10.96.0.1:8080".parse().unwrap(),
        }
    }

    fn part(gone: &[u64], put: &[u64]) -> PlacesChange {
        PlacesChange::Part {
            gone: gone.iter().map(|number| place(*number).address).collect(),
            put: put.iter().map(|number| place(*number)).collect(),
        }
    }

    fn numbers(places: &[Place]) -> Vec<u64> {
        places.iter().map(|place| place.instance.number).collect()
    }

    fn loaded(state: &Path) -> Vec<u64> {
        numbers(&PlacesFile::in_state(state).load().unwrap())
    }

    fn unasked() -> Vec<Place> {
        panic!("the file is not written anew")
    }

    fn choice() -> Choice {
        Choice {
            back_end: BackEndKind::Userspace,
            refused: vec!["the range is taken".to_owned()],
        }
    }

    #[test]
    fn what_was_stored_is_found_and_what_is_newer_is_refused() {
        let dir = TempDir::new("forward-file");
        let mut file = PlacesFile::in_state(dir.path());
        assert_eq!(file.load().unwrap(), []);
        let all = PlacesChange::Anew(vec![place(3)]);
        file.change(all, &[], unasked).unwrap();
        let mut next = PlacesFile::in_state(dir.path());
        assert_eq!(next.load().unwrap(), [place(3)]);
        assert_eq!(Choice::read(dir.path()), None);
        next.note(choice(), &[place(3)]).unwrap();
        assert_eq!(Choice::read(dir.path()), Some(choice()));
        assert_eq!(file.load().unwrap(), [place(3)]);
        next.forget_choice(&[place(3)]).unwrap();
        assert_eq!(Choice::read(dir.path()), None);
        fs::write(&next.path, r#"{"format":3,"places":{}}"#).unwrap();
        assert!(matches!(next.load(), Err(LoadError::Newer(3))));
        fs::write(&next.path, "{").unwrap();
        assert!(matches!(next.load(), Err(LoadError::Content(_))));
    }

    #[test]
    fn the_form_without_changes_is_read() {
        let dir = TempDir::new("forward-file-1");
        let places = serde_json::to_string(&[place(7)]).unwrap();
        let text = format!(r#"{{"format":1,"places":{places}}}"#);
        fs::write(dir.join("forward.json"), text).unwrap();
        assert_eq!(loaded(dir.path()), [7]);
    }

    #[test]
    fn a_change_is_added_and_costs_no_more_however_many_places_there_are() {
        let dir = TempDir::new("forward-changes");
        let mut file = PlacesFile::in_state(dir.path());
        let all: Vec<Place> = (1..=15_000).map(place).collect();
        file.note(choice(), &all).unwrap();
        let whole = fs::metadata(&file.path).unwrap().modified().unwrap();
        file.change(part(&[1], &[20_001]), &[], unasked).unwrap();
        let left = [place(2).address];
        file.change(part(&[], &[20_002]), &left, unasked).unwrap();
        // Nothing changed, and nothing is written.
        file.change(part(&[], &[]), &[], unasked).unwrap();
        let added = fs::metadata(&file.changes_path).unwrap().len();
        assert!(added < 600, "{added} bytes");
        assert_eq!(fs::metadata(&file.path).unwrap().modified().unwrap(), whole);
        let expected: Vec<u64> = (3..=15_000).chain([20_001, 20_002]).collect();
        assert_eq!(loaded(dir.path()), expected);
        assert_eq!(Choice::read(dir.path()), Some(choice()));
        file.tidy(unasked).unwrap();
    }

    #[test]
    fn many_changes_become_the_file_in_a_quiet_moment() {
        let dir = TempDir::new("forward-tidy");
        let mut file = PlacesFile::in_state(dir.path());
        file.note(choice(), &[]).unwrap();
        let mut number = 0;
        while fs::metadata(&file.changes_path).unwrap().len() <= CHANGES_LEN_MAX + 100 {
            number += 1;
            let gone = [number - 1];
            file.change(part(&gone, &[number]), &[], unasked).unwrap();
        }
        assert_eq!(loaded(dir.path()), [number]);
        file.tidy(|| vec![place(number)]).unwrap();
        assert!(fs::metadata(&file.changes_path).unwrap().len() < 100);
        assert_eq!(loaded(dir.path()), [number]);
        // Without a quiet moment it is done at last, all the same.
        let mut written = 0;
        for more in 0..20_000 {
            let before = [number + more];
            let put = [number + more + 1];
            let all = || {
                written += 1;
                before.iter().map(|number| place(*number)).collect()
            };
            file.change(part(&before, &put), &[], all).unwrap();
        }
        assert!(written > 0);
        assert_eq!(loaded(dir.path()), [number + 20_000]);
    }

    #[test]
    fn wherever_the_agent_was_killed_the_places_are_those_before_or_after_a_change() {
        let dir = TempDir::new("forward-cut");
        let mut file = PlacesFile::in_state(dir.path());
        file.note(choice(), &[place(1)]).unwrap();
        for number in 1..4 {
            file.change(part(&[number], &[number + 1]), &[], unasked)
                .unwrap();
        }
        let whole = fs::read(&file.changes_path).unwrap();
        let ends: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] == b'\n').collect();
        for cut in 0..=whole.len() {
            fs::write(&file.changes_path, &whole[..cut]).unwrap();
            let lines = ends.iter().filter(|end| **end < cut).count();
            let expected = u64::try_from(lines.max(1)).unwrap();
            assert_eq!(loaded(dir.path()), [expected], "cut at {cut}");
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&file.changes_path, &flipped).unwrap();
            let found = loaded(dir.path());
            assert!(found.len() == 1 && found[0] <= 4, "flipped at {at}");
        }
        // Killed after the file was written anew, and before its changes were.
        fs::write(&file.changes_path, &whole).unwrap();
        let before = fs::read(&file.changes_path).unwrap();
        file.note(choice(), &[place(9)]).unwrap();
        fs::write(&file.changes_path, before).unwrap();
        assert_eq!(loaded(dir.path()), [9]);
    }

    #[test]
    fn after_a_change_that_could_not_be_added_the_file_is_written_anew() {
        let dir = TempDir::new("forward-full");
        let mut file = PlacesFile::in_state(dir.path());
        file.note(choice(), &[place(1)]).unwrap();
        file.changes.as_mut().unwrap().file = File::open(&file.changes_path).unwrap();
        file.change(part(&[1], &[2]), &[], unasked).unwrap_err();
        // It is tried again.
        file.change(part(&[1], &[2]), &[], || vec![place(1)])
            .unwrap();
        assert_eq!(loaded(dir.path()), [2]);
        file.change(part(&[2], &[3]), &[], unasked).unwrap();
        assert_eq!(loaded(dir.path()), [3]);
    }
}
