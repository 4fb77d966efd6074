//! What this process is told: the file `vip/settings.json`, written by whoever checked the user's file, read at the
//! start. A change of it is in force with the next start, which gives addresses away without a gap before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mainstay_kernel::durable;
use mainstay_model::VipSpec;
use serde::{Deserialize, Serialize};

/// The form of the file. A reader refuses a newer one.
const FORMAT: u32 = 1;

#[derive(Serialize)]
struct Stored<'a> {
    format: u32,
    vips: &'a [VipSpec],
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Deserialize)]
struct Loaded {
    vips: Vec<VipSpec>,
}

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no JSON of ours.
    #[error("`{}` is not what the supervisor wrote", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Another version wrote it.
    #[error("`{}` has format {format}, and this version knows no newer than {FORMAT}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its form.
        format: u32,
    },
}

/// Reads what was written last in this state directory.
pub fn load(state: &Path) -> Result<Vec<VipSpec>, SettingsError> {
    let path = path(state);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(source) => return Err(SettingsError::Read { path, source }),
    };
    let form = match serde_json::from_slice::<Format>(&text) {
        Ok(form) => form,
        Err(source) => return Err(SettingsError::Content { path, source }),
    };
    if form.format > FORMAT {
        let format = form.format;
        return Err(SettingsError::Newer { path, format });
    }
    match serde_json::from_slice::<Loaded>(&text) {
        Ok(loaded) => Ok(loaded.vips),
        Err(source) => Err(SettingsError::Content { path, source }),
    }
}

/// Replaces the file: after a crash, or a loss of power, the old or the new one is there, whole.
pub fn save(state: &Path, vips: &[VipSpec]) -> io::Result<()> {
    let path = path(state);
    fs::create_dir_all(path.parent().unwrap_or(state))?;
    let stored = Stored {
        format: FORMAT,
        vips,
    };
    durable::replace(&path, &serde_json::to_vec_pretty(&stored)?, 0o600)
}

fn path(state: &Path) -> PathBuf {
    state.join("vip").join("settings.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;

    #[test]
    fn what_is_of_no_use_is_told_with_its_name() {
        let state = TempDir::new("vip-settings");
        assert!(matches!(
            load(state.path()),
            Err(SettingsError::Read { .. })
        ));
        save(state.path(), &[]).unwrap();
        assert_eq!(load(state.path()).unwrap(), []);
        for (text, wanted) in [
            ("{", "is not what the supervisor wrote"),
            (r#"{"format":2}"#, "has format 2"),
        ] {
            fs::write(path(state.path()), text).unwrap();
            let error = load(state.path()).unwrap_err().to_string();
            assert!(
                error.contains("vip/settings.json") && error.contains(wanted),
                "{error}"
            );
        }
    }
}
