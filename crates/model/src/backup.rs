//! How a node's backups stand.

use alloc::string::String;

/// How they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The last one is young enough, or the first one is not late yet.
    Fine,
    /// The last attempt failed.
    Failed,
    /// The last one is older than twice the time between two.
    Late,
}

impl Standing {
    /// Whether somebody must act.
    pub fn is_alarm(self) -> bool {
        match self {
            Self::Fine => false,
            Self::Failed | Self::Late => true,
        }
    }
}

/// What a supervisor tells when that has changed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BackupNews {
    /// How they stand now.
    pub standing: Standing,
    /// The last one, its age, and what is in the way of the next, in a sentence.
    pub said: String,
}
