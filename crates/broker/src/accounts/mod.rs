//! Users, virtual hosts, and which user may what where.

mod password;
mod rights;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::password::PasswordError;
pub(crate) use self::password::{PasswordHash, RABBIT_SHA256};
pub use self::rights::PatternError;
pub(crate) use self::rights::{Compiled, Permission};

/// The user that RabbitMQ has at the beginning, too; from this machine alone.
pub(crate) const GUEST: &str = "guest";
/// And its password.
const GUEST_PASSWORD: &str = "guest";
/// The virtual host of the beginning.
pub(crate) const DEFAULT_VHOST: &str = "/";

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    /// `None`: nobody comes in with a password.
    pub(crate) password: Option<PasswordHash>,
    /// For people and for RabbitMQ's management; they give no right here.
    pub(crate) tags: Vec<String>,
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Accounts {
    pub(crate) users: BTreeMap<String, User>,
    /// Each with its number, by which its queues are kept on disk.
    pub(crate) vhosts: BTreeMap<String, u16>,
    /// By virtual host and user.
    pub(crate) permissions: BTreeMap<(String, String), Permission>,
}

impl Accounts {
    /// What a broker has that was never started before.
    pub(crate) fn first() -> Result<Self, PasswordError> {
        let guest = User {
            password: Some(PasswordHash::of(GUEST_PASSWORD.as_bytes())?),
            tags: vec!["administrator".to_owned()],
        };
        let at = (DEFAULT_VHOST.to_owned(), GUEST.to_owned());
        Ok(Self {
            users: BTreeMap::from([(GUEST.to_owned(), guest)]),
            vhosts: BTreeMap::from([(DEFAULT_VHOST.to_owned(), 0)]),
            permissions: BTreeMap::from([(at, Permission::all())]),
        })
    }

    /// What this user may there; `None`: not even come in.
    pub(crate) fn permission(&self, vhost: &str, user: &str) -> Option<&Permission> {
        self.permissions.get(&(vhost.to_owned(), user.to_owned()))
    }

    /// A number that no virtual host has. One that had it is gone with all its records.
    pub(crate) fn free_number(&self) -> Option<u16> {
        (0..u16::MAX).find(|number| self.vhosts.values().all(|used| used != number))
    }
}
