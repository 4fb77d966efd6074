//! What a user may in a virtual host, as three patterns.

use std::cell::RefCell;
use std::collections::HashMap;

use mainstay_amqp::{Right, Rights};
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::limits::{PATTERN_LEN_MAX, RIGHTS_CACHED_MAX};

/// A compiled pattern may take so many bytes.
const PATTERN_SIZE_MAX: usize = 256 * 1024;

/// Patterns, as they were written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Permission {
    pub(crate) configure: String,
    pub(crate) write: String,
    pub(crate) read: String,
}

/// A pattern that cannot be one.
#[derive(Debug, thiserror::Error)]
#[error("the permission `{pattern}` is no regular expression: {why}")]
pub struct PatternError {
    pattern: String,
    why: String,
}

impl Permission {
    /// Everything.
    pub(crate) fn all() -> Self {
        let all = || ".*".to_owned();
        Self {
            configure: all(),
            write: all(),
            read: all(),
        }
    }

    pub(crate) fn compile(&self) -> Result<Compiled, PatternError> {
        Ok(Compiled {
            configure: Pattern::compile(&self.configure)?,
            write: Pattern::compile(&self.write)?,
            read: Pattern::compile(&self.read)?,
            known: RefCell::default(),
        })
    }
}

#[derive(Debug, Clone)]
enum Pattern {
    All,
    Nothing,
    Regex(Regex),
}

impl Pattern {
    /// As RabbitMQ reads it: a name matches where a part of it does, and an empty pattern matches nothing.
    fn compile(pattern: &str) -> Result<Self, PatternError> {
        let wrong = |why: String| PatternError {
            pattern: pattern.chars().take(PATTERN_LEN_MAX).collect(),
            why,
        };
        match pattern {
            ".*" | "^.*$" | "^.*" | ".*$" => Ok(Self::All),
            "" | "^$" => Ok(Self::Nothing),
            _ if pattern.len() > PATTERN_LEN_MAX => {
                Err(wrong(format!("it has more than {PATTERN_LEN_MAX} bytes")))
            }
            _ => {
                let compiled = RegexBuilder::new(pattern)
                    .size_limit(PATTERN_SIZE_MAX)
                    .build();
                compiled
                    .map(Self::Regex)
                    .map_err(|why| wrong(why.to_string()))
            }
        }
    }

    fn allows(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Nothing => false,
            Self::Regex(regex) => regex.is_match(name),
        }
    }
}

/// Patterns that answer, and remember what they answered.
#[derive(Debug)]
pub(crate) struct Compiled {
    configure: Pattern,
    write: Pattern,
    read: Pattern,
    known: RefCell<HashMap<(u8, String), bool>>,
}

impl Compiled {
    /// Of somebody who may nothing.
    pub(crate) fn nothing() -> Self {
        Self {
            configure: Pattern::Nothing,
            write: Pattern::Nothing,
            read: Pattern::Nothing,
            known: RefCell::default(),
        }
    }

    /// The same for another connection: it shares the patterns, and remembers answers of its own.
    pub(crate) fn twin(&self) -> Self {
        Self {
            configure: self.configure.clone(),
            write: self.write.clone(),
            read: self.read.clone(),
            known: RefCell::default(),
        }
    }
}

impl Rights for Compiled {
    fn allows(&self, right: Right, name: &str) -> bool {
        let (pattern, number) = match right {
            Right::Configure => (&self.configure, 0),
            Right::Write => (&self.write, 1),
            Right::Read => (&self.read, 2),
        };
        if !matches!(pattern, Pattern::Regex(_)) {
            return pattern.allows(name);
        }
        let mut known = self.known.borrow_mut();
        let asked = (number, name.to_owned());
        if let Some(answer) = known.get(&asked) {
            return *answer;
        }
        if known.len() >= RIGHTS_CACHED_MAX {
            known.clear();
        }
        let answer = pattern.allows(name);
        known.insert(asked, answer);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(pattern: &str, name: &str) -> bool {
        let permission = Permission {
            configure: String::new(),
            write: pattern.to_owned(),
            read: String::new(),
        };
        let rights = permission.compile().expect("a pattern");
        assert!(!rights.allows(Right::Configure, name) && !rights.allows(Right::Read, name));
        let first = rights.allows(Right::Write, name);
        assert_eq!(
            rights.allows(Right::Write, name),
            first,
            "the second answer is remembered"
        );
        first
    }

    #[test]
    fn a_pattern_is_read_as_rabbitmq_reads_it() {
        assert!(may(".*", "anything"));
        assert!(!may("", "anything"));
        assert!(may("^shop\\.", "shop.orders"));
        assert!(!may("^shop\\.", "my.shop.orders"));
        assert!(may("orders", "shop.orders.in"), "a part is enough");
        assert!(may("^(amq\\.gen.*|amq\\.default)$", "amq.default"));
    }

    #[test]
    fn a_pattern_that_costs_too_much_is_refused() {
        let permission = |write: &str| Permission {
            write: write.to_owned(),
            ..Permission::all()
        };
        assert!(permission("a{1000}{1000}").compile().is_err());
        assert!(
            permission(&"a".repeat(PATTERN_LEN_MAX + 1))
                .compile()
                .is_err()
        );
        assert!(permission("(").compile().is_err());
    }
}
