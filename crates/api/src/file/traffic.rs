//! The keys that say what the gateway does with a service's requests: `retry`, `sticky`,
//! `rewrite`, `forwarded`, `via`, `timeouts`, `queue`. `http` and `redirect` are in `matching`.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use mainstay_ids::duration;
use mainstay_model::Traffic;
use mainstay_model::rewrite::{
    CHANGES_MAX, FieldChanges, FieldTemplate, FieldTemplateError, PathRewrite, Rewrite, Variable,
    may_change,
};
use mainstay_model::route::{CookieName, FieldName};
use mainstay_model::traffic::{
    CONNECT_MAX, CanaryTraffic, Forwarded, QUEUE_LEN, QUEUE_TIME_MAX, Queue, Retry, STICKY_TTL_MAX,
    Sticky, TIME_MIN, Timeouts, Trace,
};
use toml::de::DeValue;

use super::later;
use super::matching::{Claims, cannot_be, field_name, one_of, redirects};
use super::problem::Code;
use super::refusal::{Refused, quoted};
use super::service::span;
use super::suggest::closest;
use super::units::{parse_host, parse_path};
use super::walk::{Entry, Section};

/// The longest `timeouts.answer` and `timeouts.request`: as long as a duration can be.
const LONGEST: Duration = Duration::from_hours(10 * 365 * 24);

/// What other keys say of it: `limits.requests` and `rollout.canary`.
pub(super) struct Elsewhere {
    pub(super) requests: Option<NonZeroU32>,
    pub(super) canary: Option<CanaryTraffic>,
}

/// The keys in the table of a service.
pub(super) fn traffic(
    s: &mut Section<'_, '_>,
    claims: &mut Claims,
    elsewhere: Option<Elsewhere>,
) -> Option<Traffic> {
    let default = Traffic::default();
    let retry = s.or("retry", default.retry, retry);
    let sticky = s.optional("sticky", sticky);
    let rewrite = s.or("rewrite", Rewrite::default(), rewrite);
    let redirects = s.or("redirect", Vec::new(), |e| redirects(e, claims));
    let forwarded = s.or("forwarded", default.trace.forwarded, |e| {
        let words = [
            ("x", Forwarded::X),
            ("rfc7239", Forwarded::Rfc7239),
            ("both", Forwarded::Both),
        ];
        one_of(e, &words)
    });
    let via = s.or("via", default.trace.via, Entry::switch);
    let timeouts = s.or("timeouts", Timeouts::default(), timeouts);
    let queue = s.or("queue", Queue::default(), queue);
    let Elsewhere { requests, canary } = elsewhere?;
    Some(Traffic {
        retry: retry?,
        sticky: sticky?,
        rewrite: rewrite?,
        redirects: redirects?,
        canary,
        trace: Trace {
            forwarded: forwarded?,
            via: via?,
        },
        timeouts: timeouts?,
        queue: queue?,
        requests,
    })
}

fn retry(entry: &Entry<'_, '_>) -> Option<Retry> {
    let help = "write for instance `retry = { hedge = false }`".to_owned();
    let read = |s: &mut Section<'_, '_>| {
        let default = Retry::default();
        let idempotency_key = s.or("idempotency_key", default.idempotency_key, Entry::switch);
        let hedge = s.or("hedge", default.hedge, Entry::switch);
        Some(Retry {
            idempotency_key: idempotency_key?,
            hedge: hedge?,
        })
    };
    entry
        .section("a table", Some(help), later::RETRY, read)
        .flatten()
}

fn sticky(entry: &Entry<'_, '_>) -> Option<Sticky> {
    const EXAMPLE: &str = "write `sticky = { cookie = \"NAME\" }`, `{ header = \"NAME\" }` or \
                           `{ source = true }`";
    let read = |s: &mut Section<'_, '_>| {
        let cookie = s.optional("cookie", |e| {
            e.text("a cookie's name", "`cookie = \"instance\"`", |text| {
                CookieName::parse(text).map_err(|error| cannot_be(error, text))
            })
        });
        let header = s.optional("header", |e| {
            e.text("a header's name", "`header = \"X-User\"`", field_name)
        });
        let source = s.optional("source", Entry::only_true);
        let ttl_entry = s.take("ttl");
        let second = Duration::from_secs(1);
        let ttl = match &ttl_entry {
            Some(e) => within(e, second..=STICKY_TTL_MAX).map(Some),
            None => Some(None),
        };
        let (cookie, header, source, ttl) = (cookie?, header?, source?, ttl?);
        let sticky = match (cookie, header, source) {
            (Some(name), None, None) => Sticky::Cookie { name, ttl },
            (None, Some(name), None) => Sticky::Header(name),
            (None, None, Some(())) => Sticky::Source,
            _ => {
                let message = "expected exactly one of `cookie`, `header` and `source`";
                let refused = Refused::new(Code::Conflict, message).help(EXAMPLE);
                s.walk().refuse(s.at(), refused);
                return None;
            }
        };
        if let (Some(ttl), Sticky::Header(_) | Sticky::Source) = (&ttl_entry, &sticky) {
            let refused = Refused::new(Code::Conflict, "`ttl` is for `cookie`: it is the cookie's");
            ttl.refuse(refused.help("take it out"));
            return None;
        }
        Some(sticky)
    };
    entry
        .section("a table", Some(EXAMPLE.to_owned()), later::STICKY, read)
        .flatten()
}

fn rewrite(entry: &Entry<'_, '_>) -> Option<Rewrite> {
    let help = "write for instance `rewrite = { path = { strip = \"/shop\" } }`".to_owned();
    let read = |s: &mut Section<'_, '_>| {
        let host = s.optional("host", |e| {
            e.text("a host name", "`host = \"shop.internal\"`", parse_host)
        });
        let path = s.optional("path", path_rewrite);
        let request = s.or("request", FieldChanges::default(), changes);
        let response = s.or("response", FieldChanges::default(), changes);
        Some(Rewrite {
            host: host?,
            path: path?,
            request: request?,
            response: response?,
        })
    };
    entry
        .section("a table", Some(help), later::REWRITE, read)
        .flatten()
}

fn path_rewrite(entry: &Entry<'_, '_>) -> Option<PathRewrite> {
    const EXAMPLE: &str =
        "write `path = { strip = \"/shop\" }` or `path = { replace = [\"/old\", \"/new\"] }`";
    let path = |e: &Entry<'_, '_>| e.text("a path", "`\"/shop\"`", parse_path);
    let read = |s: &mut Section<'_, '_>| {
        let strip = s.optional("strip", path);
        let replace = s.optional("replace", |e| {
            let both = e.list("a list of two paths", Some(EXAMPLE.to_owned()))?;
            let [from, to] = both.as_slice() else {
                let message = format!("expected two paths, found {}", both.len());
                e.refuse(Refused::value(message).help(EXAMPLE));
                return None;
            };
            let (from, to) = (path(from), path(to));
            Some((from?, to?))
        });
        match (strip?, replace?) {
            (Some(from), None) => Some(PathRewrite::Strip(from)),
            (None, Some((from, to))) => Some(PathRewrite::Replace(from, to)),
            (Some(_), Some(_)) | (None, None) => {
                let message = "expected exactly one of `strip` and `replace`";
                let refused = Refused::new(Code::Conflict, message).help(EXAMPLE);
                s.walk().refuse(s.at(), refused);
                None
            }
        }
    };
    entry
        .section("a table", Some(EXAMPLE.to_owned()), later::NONE, read)
        .flatten()
}

/// `request` and `response`.
fn changes(entry: &Entry<'_, '_>) -> Option<FieldChanges> {
    let help = format!(
        "write for instance `{} = {{ set = {{ X-Shop = \"1\" }}, remove = [\"Server\"] }}`",
        entry.name()
    );
    let read = |s: &mut Section<'_, '_>| {
        let remove = s.or("remove", BTreeSet::new(), removed);
        let set = s.or("set", BTreeMap::new(), written);
        let add = s.or("add", BTreeMap::new(), written);
        let changes = FieldChanges {
            remove: remove?,
            set: set?,
            add: add?,
        };
        if changes.len() > CHANGES_MAX {
            let found = changes.len();
            let message = format!("expected up to {CHANGES_MAX} headers, found {found}");
            s.walk()
                .refuse(s.at(), Refused::new(Code::TooMuch, message));
            return None;
        }
        Some(changes)
    };
    entry
        .section("a table", Some(help), later::CHANGES, read)
        .flatten()
}

fn removed(entry: &Entry<'_, '_>) -> Option<BTreeSet<FieldName>> {
    let example = "`remove = [\"Server\"]`";
    let help = format!("write for instance {example}");
    let elements = entry.list("a list of headers' names", Some(help))?;
    let read: Vec<_> = elements
        .iter()
        .map(|element| element.text("a header's name", example, changeable))
        .collect();
    read.into_iter().collect()
}

fn written(entry: &Entry<'_, '_>) -> Option<BTreeMap<FieldName, FieldTemplate>> {
    let example = format!("`{} = {{ X-Client = \"{{client}}\" }}`", entry.name());
    let entries = entry.entries("a table of headers' names with values", &example)?;
    let mut all = Some(BTreeMap::new());
    for (typed, entry) in entries {
        let name = changeable(typed).map_err(|refused| {
            entry.walk().refuse(&entry.at_key(), refused);
        });
        let value = entry.text_with_places("a text", &example, |text| {
            let only_for_redirects = [Variable::Rest];
            let template = FieldTemplate::parse(text);
            let template = template.map_err(|e| template_refused(&e, text, &only_for_redirects))?;
            if template
                .variables()
                .any(|v| only_for_redirects.contains(&v))
            {
                let refused = Refused::new(Code::Template, "`{rest}` is for redirects");
                return Err(refused.help("write `{path}` for the whole path"));
            }
            Ok(template)
        });
        match (name.ok(), value, &mut all) {
            (Some(name), Some(value), Some(all)) => {
                if all.insert(name, value).is_some() {
                    let message = format!("{} stands twice in its table", quoted(typed));
                    let refused = Refused::new(Code::DuplicateKey, message);
                    entry.walk().refuse(
                        &entry.at_key(),
                        refused.help("names of headers are the same in any case of letters"),
                    );
                }
            }
            _ => all = None,
        }
    }
    all
}

/// The name of a header that may be changed by hand.
fn changeable(typed: &str) -> Result<FieldName, Refused> {
    let name = field_name(typed)?;
    if may_change(&name) {
        return Ok(name);
    }
    let message = format!("{} is written by the gateway itself", quoted(typed));
    Err(Refused::value(message).help(match name.as_str() {
        "host" => "write `rewrite = { host = \"NAME\" }`",
        "via" => "write `via = false` to leave it out",
        "forwarded" | "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto" => {
            "choose with `forwarded` which of them there are; what a client says in them is never \
             believed at the entry"
        }
        "x-request-id" => {
            "the client's own is kept if it is one; write it elsewhere as `{request_id}`"
        }
        _ => {
            "it says where a message ends, or concerns one connection only: changed by hand, two \
              programs could read two different messages"
        }
    }))
}

/// Why a text with places is refused; `but` are the variables that are not known there.
pub(super) fn template_refused(
    error: &FieldTemplateError,
    typed: &str,
    but: &[Variable],
) -> Refused {
    let refused = Refused::new(Code::Template, format!("{error}; found {}", quoted(typed)));
    match error {
        FieldTemplateError::Unknown { found } => {
            let known = Variable::ALL.iter().filter(|(_, v)| !but.contains(v));
            let words: Vec<&str> = known.map(|(word, _)| *word).collect();
            if let Some(word) = closest(found.trim(), words.iter().copied()) {
                return refused.help(format!("did you mean `{{{word}}}`?"));
            }
            let words: Vec<_> = words.iter().map(|word| format!("{{{word}}}")).collect();
            refused.help(format!("known here: {}", words.join(", ")))
        }
        FieldTemplateError::Open
        | FieldTemplateError::Close
        | FieldTemplateError::Character
        | FieldTemplateError::TooLong => refused,
    }
}

/// A duration within bounds.
fn within(entry: &Entry<'_, '_>, bounds: RangeInclusive<Duration>) -> Option<Duration> {
    let time = span(entry, *bounds.start())?;
    if time > *bounds.end() {
        let most = duration::display(*bounds.end());
        let message = format!(
            "`{}` is at most {most}; found `{}`",
            entry.name(),
            duration::display(time)
        );
        entry.refuse(Refused::value(message));
        return None;
    }
    Some(time)
}

fn timeouts(entry: &Entry<'_, '_>) -> Option<Timeouts> {
    let help = "write for instance `timeouts = { answer = \"60s\" }`".to_owned();
    let read = |s: &mut Section<'_, '_>| {
        let connect = s.optional("connect", |e| within(e, TIME_MIN..=CONNECT_MAX));
        let answer = s.optional("answer", |e| within(e, TIME_MIN..=LONGEST));
        let request = s.optional("request", |e| within(e, TIME_MIN..=LONGEST));
        Some(Timeouts {
            connect: connect?,
            answer: answer?,
            request: request?,
        })
    };
    entry
        .section("a table", Some(help), later::TIMEOUTS, read)
        .flatten()
}

fn queue(entry: &Entry<'_, '_>) -> Option<Queue> {
    let help = match entry.value() {
        DeValue::Integer(number) => format!("write `queue = {{ len = {number} }}`"),
        _ => "write for instance `queue = { len = 100, time = \"1s\" }`".to_owned(),
    };
    let read = |s: &mut Section<'_, '_>| {
        let len = s.optional("len", |e| e.integer(QUEUE_LEN));
        let time = s.optional("time", |e| within(e, TIME_MIN..=QUEUE_TIME_MAX));
        Some(Queue {
            len: len?,
            time: time?,
        })
    };
    entry
        .section("a table", Some(help), later::NONE, read)
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::super::defaults;
    use super::*;

    #[test]
    fn the_defaults_that_the_schema_prints_are_those_that_hold() {
        let retry = Retry::default();
        assert_eq!(retry.hedge, defaults::RETRY_HEDGE);
        assert_eq!(retry.idempotency_key, defaults::RETRY_IDEMPOTENCY_KEY);
        assert_eq!(Trace::default().via, defaults::VIA);
        assert_eq!(Trace::default().forwarded, defaults::FORWARDED);
    }
}
