//! What the gateway is told while it runs: the file `gateway/settings.json`, written by whoever
//! checked the user's file, read at the start and again when asked to.
//!
//! A file, and not a watch of the control centre: limits must hold, and change, while the control
//! centre is away, and on a machine that has none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_kernel::durable;
use mainstay_model::gateway::GatewaySettings;
use mainstay_model::limits::SpecError;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// The form of the file. A reader refuses a newer one.
const FORMAT: u32 = 1;

#[derive(Serialize)]
struct Stored<'a> {
    format: u32,
    settings: &'a GatewaySettings,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Deserialize)]
struct Loaded {
    settings: GatewaySettings,
}

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It cannot be read.
    #[error("cannot read it")]
    Read(#[source] io::Error),
    /// It is no JSON of ours.
    #[error("it is not what the supervisor wrote")]
    Content(#[source] serde_json::Error),
    /// Another version wrote it.
    #[error("it has format {0}, and this version knows no newer than {FORMAT}")]
    Newer(u32),
    /// A limit cannot be kept.
    #[error("it asks for what cannot be")]
    Limit(#[source] SpecError),
}

/// The file.
#[derive(Debug, Clone)]
pub struct SettingsFile {
    path: PathBuf,
}

impl SettingsFile {
    /// The one in this state directory.
    pub fn in_state(state: &Path) -> Self {
        let path = state.join("gateway").join("settings.json");
        Self { path }
    }

    /// What was written last; `None` if nothing was.
    pub fn load(&self) -> Result<Option<GatewaySettings>, SettingsError> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SettingsError::Read(error)),
        };
        let Format { format } = serde_json::from_slice(&text).map_err(SettingsError::Content)?;
        if format > FORMAT {
            return Err(SettingsError::Newer(format));
        }
        let Loaded { settings } = serde_json::from_slice(&text).map_err(SettingsError::Content)?;
        settings.limits.check().map_err(SettingsError::Limit)?;
        Ok(Some(settings))
    }

    /// Replaces the file: after a crash, or a loss of power, the old or the new one is there, whole.
    /// It may hold a password, so nobody else may read it.
    pub fn save(&self, settings: &GatewaySettings) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory)?;
        let stored = Stored {
            format: FORMAT,
            settings,
        };
        durable::replace(&self.path, &serde_json::to_vec_pretty(&stored)?, 0o600)
    }
}

/// The settings in force, for everybody in this process.
#[derive(Debug)]
pub struct Settings {
    file: SettingsFile,
    current: watch::Sender<Arc<GatewaySettings>>,
}

impl Settings {
    /// Those of the file. If there is none, or it is of no use, the defaults, which is told: a
    /// gateway must let clients in.
    pub fn open(state: &Path) -> Self {
        let file = SettingsFile::in_state(state);
        let settings = match file.load() {
            Ok(settings) => settings.unwrap_or_default(),
            Err(error) => {
                let (error, path) = (&error as &dyn std::error::Error, file.path.display());
                tracing::error!(error, %path, "the settings are not used; the defaults are in force");
                GatewaySettings::default()
            }
        };
        let (current, _) = watch::channel(Arc::new(settings));
        Self { file, current }
    }

    /// Reads the file again. What cannot be used is told, and the old settings stay in force.
    pub fn reload(&self) {
        match self.file.load() {
            Ok(settings) => {
                let settings = Arc::new(settings.unwrap_or_default());
                let changed = self.current.send_if_modified(|current| {
                    let changed = *current != settings;
                    *current = settings;
                    changed
                });
                if changed {
                    tracing::info!("changed settings are in force");
                }
            }
            Err(error) => {
                let (error, path) = (&error as &dyn std::error::Error, self.file.path.display());
                tracing::error!(error, %path, "the changed settings are not used; the old ones stay");
            }
        }
    }

    /// The settings in force, and each change of them.
    pub fn follow(&self) -> watch::Receiver<Arc<GatewaySettings>> {
        self.current.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_model::gateway::{AccessLog, StatsAuth};
    use mainstay_testkit::TempDir;
    use std::os::unix::fs::PermissionsExt;

    fn quiet() -> GatewaySettings {
        GatewaySettings {
            access_log: AccessLog::Off,
            stats_auth: Some(StatsAuth {
                user: "admin".into(),
                password: "correct horse".into(),
            }),
            ..GatewaySettings::default()
        }
    }

    #[test]
    fn what_was_saved_is_in_force_after_a_reload_and_nobody_else_may_read_it() {
        let dir = TempDir::new("settings");
        let settings = Settings::open(dir.path());
        let mut follower = settings.follow();
        assert_eq!(**follower.borrow_and_update(), GatewaySettings::default());
        let file = SettingsFile::in_state(dir.path());
        // What a crash left in the middle of a write.
        fs::create_dir_all(dir.join("gateway")).unwrap();
        fs::write(dir.join("gateway/settings.json.tmp"), "{").unwrap();
        file.save(&quiet()).unwrap();
        settings.reload();
        assert!(follower.has_changed().unwrap());
        assert_eq!(**follower.borrow_and_update(), quiet());
        let mode = fs::metadata(&file.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        settings.reload();
        assert!(!follower.has_changed().unwrap(), "nothing changed");
        assert_eq!(**Settings::open(dir.path()).follow().borrow(), quiet());
    }

    #[test]
    fn what_cannot_be_used_leaves_the_old_settings_in_force() {
        let dir = TempDir::new("settings");
        let file = SettingsFile::in_state(dir.path());
        file.save(&quiet()).unwrap();
        let settings = Settings::open(dir.path());
        for text in [
            "{",
            r#"{"format":2,"settings":{}}"#,
            r#"{"format":1,"settings":{"limits":{"connections":0}}}"#,
            r#"{"format":1,"settings":{"limits":{"conections":1}}}"#,
        ] {
            fs::write(&file.path, text).unwrap();
            settings.reload();
            assert_eq!(**settings.follow().borrow(), quiet(), "{text}");
            let begun = Settings::open(dir.path());
            assert_eq!(**begun.follow().borrow(), GatewaySettings::default());
        }
    }
}
