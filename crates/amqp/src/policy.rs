//! Policies: what operators say of all queues and exchanges whose names fit a pattern. Keys, checks and words are
//! RabbitMQ's.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::time::Duration;

use fancy_regex::{Regex, RegexBuilder};

use crate::code::{Code, Fault};
use crate::erlang;
use crate::field::{Table, Value};
use crate::limits::{PATTERN_MAX, PATTERN_SIZE_MAX, PATTERN_STEPS_MAX, POLICIES_MAX};
use crate::queue::Overflow;
use crate::text::ShortString;

/// What a policy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppliesTo {
    /// Queues and exchanges.
    All,
    /// Queues alone.
    Queues,
    /// Exchanges alone.
    Exchanges,
}

impl AppliesTo {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Queues => "queues",
            Self::Exchanges => "exchanges",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Result<Self, Fault> {
        match word {
            "all" => Ok(Self::All),
            "queues" => Ok(Self::Queues),
            "exchanges" => Ok(Self::Exchanges),
            _ => Err(invalid(format!(
                "apply-to '{word}' unrecognised; should be 'queues', 'exchanges' or 'all'"
            ))),
        }
    }
}

/// A policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Its name.
    pub name: ShortString,
    /// A regular expression that fits some part of the names that are meant, in Perl's syntax.
    pub pattern: String,
    /// What it is for.
    pub applies_to: AppliesTo,
    /// Of all that fit, the highest is in force, alone.
    pub priority: i64,
    /// What it says: whole numbers as [`Value::Long`], text as [`Value::String`].
    pub definition: Table,
}

impl Policy {
    /// Whether it asks for copies on other nodes. It is accepted, so that the same definitions work on a cluster of
    /// RabbitMQ; there is one copy here, and whoever sets it is to be told.
    pub fn asks_for_copies(&self) -> bool {
        let mut keys = self.definition.iter();
        keys.any(|(key, _)| key.as_bytes().starts_with(b"ha-"))
    }
}

/// What a policy says, as far as it means something here.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Saying {
    pub(crate) message_ttl: Option<Duration>,
    pub(crate) expires: Option<Duration>,
    pub(crate) length_max: Option<u64>,
    pub(crate) bytes_max: Option<u64>,
    pub(crate) overflow: Option<Overflow>,
    pub(crate) dead_letter_exchange: Option<ShortString>,
    pub(crate) dead_letter_key: Option<ShortString>,
    pub(crate) delivery_limit: Option<u32>,
    pub(crate) alternate: Option<ShortString>,
}

/// What a value must be.
#[derive(Clone, Copy)]
enum Check {
    /// A whole number, not negative.
    Count(&'static str),
    /// A whole number above zero.
    Positive(&'static str),
    /// Text.
    Text(&'static str),
    /// One of these words.
    Word(&'static str, &'static [&'static str]),
    /// `ha-mode`, one of whose words needs a number beside it.
    Copies,
    /// Anything: it means nothing here.
    Anything,
}

const CHECKED: &[(&str, Check)] = &[
    ("message-ttl", Check::Count("message TTL")),
    ("expires", Check::Positive("queue expiry")),
    ("max-length", Check::Count("maximum length")),
    ("max-length-bytes", Check::Count("maximum length in bytes")),
    (
        "overflow",
        Check::Word(
            "overflow",
            &["drop-head", "reject-publish", "reject-publish-dlx"],
        ),
    ),
    (
        "dead-letter-exchange",
        Check::Text("dead letter exchange name"),
    ),
    (
        "dead-letter-routing-key",
        Check::Text("dead letter routing key"),
    ),
    ("delivery-limit", Check::Count("delivery limit")),
    ("alternate-exchange", Check::Text("alternate exchange name")),
    (
        "queue-mode",
        Check::Word("queue-mode", &["default", "lazy"]),
    ),
    ("ha-mode", Check::Copies),
    ("ha-params", Check::Anything),
    (
        "ha-sync-mode",
        Check::Word("ha-sync-mode", &["automatic", "manual"]),
    ),
    ("ha-sync-batch-size", Check::Anything),
    (
        "ha-promote-on-shutdown",
        Check::Word("ha-promote-on-shutdown", &["always", "when-synced"]),
    ),
    (
        "ha-promote-on-failure",
        Check::Word("ha-promote-on-failure", &["always", "when-synced"]),
    ),
    ("queue-version", Check::Anything),
    ("queue-master-locator", Check::Anything),
    ("queue-leader-locator", Check::Anything),
    ("dead-letter-strategy", Check::Anything),
    ("max-in-memory-length", Check::Anything),
    ("max-in-memory-bytes", Check::Anything),
];

fn invalid(what: String) -> Fault {
    Fault::new(Code::PreconditionFailed, what)
}

/// A value as Erlang prints it.
fn term(value: &Value) -> String {
    match (value.integer(), value) {
        (Some(number), _) => number.to_string(),
        (None, Value::String(text)) => erlang::binary(text),
        (None, Value::Bool(flag)) => flag.to_string(),
        (None, other) => format!("{other:?}"),
    }
}

impl Check {
    fn check(self, value: &Value, all: &Table) -> Result<(), Fault> {
        let number = value.integer();
        let word = value.string();
        let wrong = |what: &str| Err(invalid(format!("{} is not a valid {what}", term(value))));
        match self {
            Self::Count(what) if number.is_none_or(|n| n < 0) => wrong(what),
            Self::Positive(what) if number.is_none_or(|n| n <= 0) => wrong(what),
            Self::Text(what)
                if word.is_none_or(|text| ShortString::new(text.clone()).is_none()) =>
            {
                wrong(what)
            }
            Self::Word(what, known)
                if !word.is_some_and(|word| known.iter().any(|one| word == one)) =>
            {
                wrong(&format!("{what} value"))
            }
            Self::Copies => match word.map(|word| &word[..]) {
                Some(b"all" | b"nodes") => Ok(()),
                Some(b"exactly") if all.get("ha-params").and_then(Value::integer).is_some() => {
                    Ok(())
                }
                Some(b"exactly") => Err(invalid(
                    "ha-mode=\"exactly\" takes an integer, none given".into(),
                )),
                Some(_) | None => wrong("ha-mode value"),
            },
            Self::Count(_)
            | Self::Positive(_)
            | Self::Text(_)
            | Self::Word(..)
            | Self::Anything => Ok(()),
        }
    }
}

impl Saying {
    fn read(definition: &Table) -> Result<Self, Fault> {
        if definition.is_empty() {
            return Err(invalid("no policy provided".into()));
        }
        let unknown =
            |(key, _): &&(ShortString, Value)| !CHECKED.iter().any(|(known, _)| key == known);
        let unknown: Vec<String> = definition
            .iter()
            .filter(unknown)
            .map(|(key, value)| format!("{{{},{}}}", erlang::binary(key.as_bytes()), term(value)))
            .collect();
        if !unknown.is_empty() {
            let all = unknown.join(",");
            return Err(invalid(format!(
                "[{all}] are not recognised policy settings"
            )));
        }
        for (key, check) in CHECKED {
            if let Some(value) = definition.get(key) {
                check.check(value, definition)?;
            }
        }
        let count = |key: &str| {
            definition
                .get(key)
                .and_then(Value::integer)
                .map(i64::unsigned_abs)
        };
        let text = |key: &str| {
            let text = definition.get(key).and_then(Value::string)?;
            Some(ShortString::new(text.clone())?.compact())
        };
        Ok(Self {
            message_ttl: count("message-ttl").map(Duration::from_millis),
            expires: count("expires").map(Duration::from_millis),
            length_max: count("max-length"),
            bytes_max: count("max-length-bytes"),
            overflow: definition.get("overflow").map(Overflow::of),
            dead_letter_exchange: text("dead-letter-exchange"),
            dead_letter_key: text("dead-letter-routing-key"),
            delivery_limit: count("delivery-limit").and_then(|n| u32::try_from(n).ok()),
            alternate: text("alternate-exchange"),
        })
    }
}

/// A policy that was checked.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) policy: Policy,
    pub(crate) saying: Saying,
    regex: Regex,
}

impl Checked {
    pub(crate) fn new(policy: Policy) -> Result<Self, Fault> {
        let saying = Saying::read(&policy.definition)?;
        let refuse = |why: String| {
            invalid(format!(
                "pattern should be regular expression but is invalid: {why}"
            ))
        };
        if policy.pattern.len() > PATTERN_MAX {
            return Err(refuse(format!("it has more than {PATTERN_MAX} bytes")));
        }
        let regex = RegexBuilder::new(&policy.pattern)
            .backtrack_limit(PATTERN_STEPS_MAX)
            .delegate_size_limit(PATTERN_SIZE_MAX)
            .build()
            .map_err(|why| refuse(why.to_string()))?;
        Ok(Self {
            policy,
            saying,
            regex,
        })
    }

    /// Whether it is for this name. One that would take too long to say fits not.
    fn fits(&self, name: &str) -> bool {
        self.regex.is_match(name).unwrap_or(false)
    }
}

/// All policies of a virtual host.
#[derive(Debug, Default)]
pub(crate) struct Policies(BTreeMap<ShortString, Checked>);

impl Policies {
    /// Adds one, or sets it anew.
    pub(crate) fn set(&mut self, checked: Checked) -> Result<(), Fault> {
        let name = checked.policy.name.clone();
        if self.0.len() >= POLICIES_MAX && !self.0.contains_key(&name) {
            let what =
                format!("policy '{name}' is not set: there are {POLICIES_MAX} policies already");
            return Err(invalid(what));
        }
        self.0.insert(name, checked);
        Ok(())
    }

    /// Whether it was there.
    pub(crate) fn clear(&mut self, name: &ShortString) -> bool {
        self.0.remove(name).is_some()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Policy> {
        self.0.values().map(|one| &one.policy)
    }

    pub(crate) fn of_queue(&self, name: &ShortString) -> Option<&Checked> {
        self.of(name, AppliesTo::Queues)
    }

    pub(crate) fn of_exchange(&self, name: &ShortString) -> Option<&Checked> {
        self.of(name, AppliesTo::Exchanges)
    }

    /// The one that is in force. RabbitMQ does not say which one it is of two with the same priority: here it is the
    /// first by name.
    fn of(&self, name: &ShortString, what: AppliesTo) -> Option<&Checked> {
        if self.0.is_empty() {
            return None;
        }
        let name = name.text();
        let all = self.0.values().rev();
        let for_it = all.filter(|one| [AppliesTo::All, what].contains(&one.policy.applies_to));
        let fitting = for_it.filter(|one| one.fits(&name));
        fitting.max_by_key(|one| one.policy.priority)
    }
}
