//! The options of `Connection` (RFC 9110, 7.6.1).

use crate::{Fields, Known, Persistence, Refused, Version, token};

/// What all lines of `Connection` in one head say together.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options {
    seen: u8,
    count: u8,
}

/// Real ones name three at most (`keep-alive, Upgrade, HTTP2-Settings`). The bound is for the
/// work of comparing every field of a head with every option.
const OPTIONS_MAX: u8 = 16;

const CLOSE: u8 = 1;
const KEEP_ALIVE: u8 = 2;
const UPGRADE: u8 = 4;
/// The name of a field.
const FIELD: u8 = 8;

impl Options {
    pub(crate) fn note(&mut self, value: &[u8]) -> Result<(), Refused> {
        for option in token::elements(value) {
            // Checked before it is counted: of an answer more lines are looked at after a refusal.
            if self.count == OPTIONS_MAX {
                return Err(Refused::ConnectionTooLong);
            }
            self.count += 1;
            self.seen |= match option {
                _ if option.eq_ignore_ascii_case(b"close") => CLOSE,
                _ if option.eq_ignore_ascii_case(b"keep-alive") => KEEP_ALIVE,
                _ if option.eq_ignore_ascii_case(b"upgrade") => UPGRADE | FIELD,
                _ if token::is_token(option) => FIELD,
                _ => return Err(Refused::Connection),
            };
        }
        Ok(())
    }

    pub(crate) fn asks_for_upgrade(self) -> bool {
        self.seen & UPGRADE != 0
    }

    /// RFC 9112, 9.3.
    pub(crate) fn persistence(self, version: Version) -> Persistence {
        let close = self.seen & CLOSE != 0;
        let keep_alive = self.seen & KEEP_ALIVE != 0;
        match version {
            Version::Http11 if !close => Persistence::KeepAlive,
            Version::Http10 if keep_alive && !close => Persistence::KeepAlive,
            Version::Http10 | Version::Http11 => Persistence::Close,
        }
    }

    /// Whether the field with this name must not be passed on.
    pub(crate) fn name(self, fields: &Fields, name: &[u8]) -> bool {
        self.seen & FIELD != 0
            && Known::of(name).may_be_named_by_connection()
            && fields
                .all(Known::Connection)
                .flat_map(token::elements)
                .any(|option| option.eq_ignore_ascii_case(name))
    }
}
