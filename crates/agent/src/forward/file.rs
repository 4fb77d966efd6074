//! The file `forward.json`: the instances to which connections were led, so that the next agent knows
//! whose connections it finds, and what forwards, for people.
//!
//! It outlives a kill of the agent, not a loss of power: that ends the connections, too, so nothing is
//! synced.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mainstay_control::forward::Place;
use mainstay_model::forward::BackEndKind;
use serde::{Deserialize, Serialize};

/// The form of the file. A reader refuses a newer one.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    places: Vec<Place>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    choice: Option<Choice>,
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
        let stored: Stored = serde_json::from_slice(&file).ok()?;
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
    /// As it is there.
    stored: Vec<Place>,
    choice: Option<Choice>,
}

impl PlacesFile {
    pub(super) fn in_state(state: &Path) -> Self {
        let path = state.join("forward.json");
        Self {
            path,
            stored: Vec::new(),
            choice: None,
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
        let stored: Stored = serde_json::from_slice(&text).map_err(LoadError::Content)?;
        self.stored.clone_from(&stored.places);
        Ok(stored.places)
    }

    /// Replaces what is there, if it differs.
    pub(super) fn store(&mut self, places: Vec<Place>) -> io::Result<()> {
        if places == self.stored {
            return Ok(());
        }
        self.write(&places)?;
        self.stored = places;
        Ok(())
    }

    /// Writes down what forwards.
    pub(super) fn note(&mut self, choice: Choice) -> io::Result<()> {
        self.choice = Some(choice);
        self.write(&self.stored)
    }

    /// Nothing forwards any more.
    pub(super) fn forget_choice(&mut self) -> io::Result<()> {
        self.choice = None;
        self.write(&self.stored)
    }

    fn write(&self, places: &[Place]) -> io::Result<()> {
        let stored = Stored {
            format: FORMAT,
            places: places.to_vec(),
            choice: self.choice.clone(),
        };
        let beside = self.path.with_extension("json.tmp");
        fs::write(&beside, serde_json::to_vec(&stored)?)?;
        fs::rename(&beside, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_ids::{Attempt, InstanceId, ServiceName};
    use mainstay_testkit::TempDir;

    #[test]
    fn what_was_stored_is_found_and_what_is_newer_is_refused() {
        let dir = TempDir::new("forward-file");
        let mut file = PlacesFile::in_state(dir.path());
        assert_eq!(file.load().unwrap(), []);
        let service = ServiceName::parse("orders").unwrap();
        let place = Place {
            instance: InstanceId { service, number: 3 },
            attempt: Attempt(2),
            address: "10.0.0.1:80".parse().unwrap(),
            through: "10.96.0.1:8080".parse().unwrap(),
        };
        file.store(vec![place.clone()]).unwrap();
        let mut next = PlacesFile::in_state(dir.path());
        assert_eq!(next.load().unwrap(), std::slice::from_ref(&place));
        assert_eq!(Choice::read(dir.path()), None);
        let choice = Choice {
            back_end: BackEndKind::Userspace,
            refused: vec!["the range is taken".to_owned()],
        };
        next.note(choice.clone()).unwrap();
        assert_eq!(Choice::read(dir.path()), Some(choice));
        assert_eq!(file.load().unwrap(), [place]);
        next.forget_choice().unwrap();
        assert_eq!(Choice::read(dir.path()), None);
        fs::write(&next.path, r#"{"format":2,"places":{}}"#).unwrap();
        assert!(matches!(next.load(), Err(LoadError::Newer(2))));
        fs::write(&next.path, "{").unwrap();
        assert!(matches!(next.load(), Err(LoadError::Content(_))));
    }
}
