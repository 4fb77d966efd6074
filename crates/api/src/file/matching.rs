//! The keys `http` and `redirect`: which requests belong to a service.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_model::rewrite::{Redirect, RedirectStatus, Target, TargetError};
use mainstay_model::route::{
    CONDITIONS_MAX, CookieName, FieldName, MATCHES_MAX, MatchError, MatchValue, MethodName, Wanted,
};
use mainstay_model::{HttpMatch, HttpMatches, PathPrefix};
use toml::de::DeValue;

use super::later::Explained;
use super::problem::Code;
use super::refusal::{At, Refused, quoted};
use super::suggest::closest;
use super::traffic::template_refused;
use super::units::{parse_host_pattern, parse_path};
use super::walk::{Entry, Section};
use super::{defaults, later};

/// What requests a service claims, each with its place.
pub(super) type Claims = Vec<(At, HttpMatch)>;

/// `http`: a table, or a list of such tables.
pub(super) fn http(entry: &Entry<'_, '_>, claims: &mut Claims) -> Option<HttpMatches> {
    let help = match entry.value() {
        DeValue::String(text) if text.starts_with('/') => {
            format!("write `http = {{ path = \"{text}\" }}`")
        }
        DeValue::String(text) => format!("write `http = {{ host = \"{text}\" }}`"),
        _ => {
            "write for instance `http = { host = \"orders.example.com\", path = \"/\" }`".to_owned()
        }
    };
    let matches = each(
        entry,
        &help,
        later::HTTP,
        |s| match_of(s),
        |one| one,
        claims,
    )?;
    HttpMatches::new(matches).ok()
}

/// `redirect`: a table, or a list of such tables.
pub(super) fn redirects(entry: &Entry<'_, '_>, claims: &mut Claims) -> Option<Vec<Redirect>> {
    const EXAMPLE: &str = "write for instance `redirect = { host = \"www.example.com\", to = \
                           \"https://example.com{path}{query}\" }`";
    let read = |s: &mut Section<'_, '_>| {
        let on = match_of(s);
        let to = s.required("to", EXAMPLE).and_then(|e| target(&e));
        let status = s.or("status", defaults::REDIRECT_STATUS, status);
        Some(Redirect {
            on: on?,
            to: to?,
            status: status?,
        })
    };
    each(entry, EXAMPLE, later::REDIRECT, read, |one| &one.on, claims)
}

/// Reads a table, or each of a list of tables, and notes what it claims.
fn each<'t, T>(
    entry: &Entry<'_, 't>,
    help: &str,
    explained: &[Explained],
    read: impl Fn(&mut Section<'_, 't>) -> Option<T>,
    on: impl Fn(&T) -> &HttpMatch,
    claims: &mut Claims,
) -> Option<Vec<T>> {
    let one = |entry: &Entry<'_, 't>, claims: &mut Claims| {
        let found = entry.section("a table", Some(help.to_owned()), explained, &read);
        let found = found.flatten()?;
        claims.push((entry.at(), on(&found).clone()));
        Some(found)
    };
    if !matches!(entry.value(), DeValue::Array(_)) {
        return one(entry, claims).map(|found| vec![found]);
    }
    let elements = entry.list("a table, or a list of tables", Some(help.to_owned()))?;
    if elements.is_empty() || elements.len() > MATCHES_MAX {
        let message = format!(
            "expected 1 to {MATCHES_MAX} tables, found {}",
            elements.len()
        );
        entry.refuse(Refused::new(Code::TooMuch, message).help(help));
        return None;
    }
    // All of them are looked at before the first refused one counts.
    let found: Vec<_> = elements
        .iter()
        .map(|element| one(element, claims))
        .collect();
    found.into_iter().collect()
}

/// The keys of a match.
fn match_of(s: &mut Section<'_, '_>) -> Option<HttpMatch> {
    let host = s.optional("host", |e| {
        e.text(
            "a host name",
            "`host = \"orders.example.com\"`",
            parse_host_pattern,
        )
    });
    let root = PathPrefix::parse(defaults::HTTP_PATH).expect("the default is a path");
    let path = s.or("path", root, |e| {
        e.text("a path", "`path = \"/\"`", parse_path)
    });
    let methods = s.or("methods", BTreeSet::new(), methods);
    let headers = s.or("headers", BTreeMap::new(), |e| headers(e));
    let cookies = s.or("cookies", BTreeMap::new(), |e| cookies(e));
    Some(HttpMatch {
        host: host?,
        path: path?,
        methods: methods?,
        headers: headers?,
        cookies: cookies?,
    })
}

fn methods(entry: &Entry<'_, '_>) -> Option<BTreeSet<MethodName>> {
    let example = "`methods = [\"GET\", \"HEAD\"]`";
    let elements = entry.list(
        "a list of methods",
        Some(format!("write for instance {example}")),
    )?;
    if elements.is_empty() || elements.len() > CONDITIONS_MAX {
        let message = format!(
            "expected 1 to {CONDITIONS_MAX} methods, found {}",
            elements.len()
        );
        entry.refuse(Refused::new(Code::TooMuch, message).help("without `methods`, any matches"));
        return None;
    }
    let read: Vec<_> = elements
        .iter()
        .map(|element| {
            element.text("a method", example, |text| {
                MethodName::parse(text).map_err(|error| {
                    let refused = cannot_be(error, text);
                    match MethodName::parse(&text.to_ascii_uppercase()) {
                        Ok(meant) => refused.help(format!("did you mean `{meant}`?")),
                        Err(_) => refused,
                    }
                })
            })
        })
        .collect();
    read.into_iter().collect()
}

/// What headers must say.
pub(super) fn headers(entry: &Entry<'_, '_>) -> Option<Wanted<FieldName>> {
    wanted(
        entry,
        "`headers = { X-Version = \"2\" }`",
        |name| match name.to_ascii_lowercase().as_str() {
            "host" => Err(Refused::value("a host is matched by `host`")),
            "cookie" => Err(Refused::value("cookies are matched by `cookies`")),
            _ => FieldName::parse(name).map_err(|error| cannot_be(error, name)),
        },
    )
}

/// What cookies must say.
pub(super) fn cookies(entry: &Entry<'_, '_>) -> Option<Wanted<CookieName>> {
    wanted(entry, "`cookies = { version = \"2\" }`", |name| {
        CookieName::parse(name).map_err(|error| cannot_be(error, name))
    })
}

fn wanted<N: Ord>(
    entry: &Entry<'_, '_>,
    example: &str,
    name_of: impl Fn(&str) -> Result<N, Refused>,
) -> Option<Wanted<N>> {
    let entries = entry.entries("a table of names with values", example)?;
    if entries.len() > CONDITIONS_MAX {
        let found = entries.len();
        let message = format!("expected up to {CONDITIONS_MAX} names, found {found}");
        entry.refuse(Refused::new(Code::TooMuch, message));
        return None;
    }
    let mut all = Some(BTreeMap::new());
    for (typed, entry) in entries {
        let name = name_of(typed).map_err(|refused| entry.walk().refuse(&entry.at_key(), refused));
        let value = match entry.value() {
            DeValue::Boolean(true) => Some(None),
            _ => entry
                .text("a text, or `true` for any value", example, |text| {
                    MatchValue::parse(text).map_err(|error| cannot_be(error, text))
                })
                .map(Some),
        };
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

/// A value and why it cannot be.
pub(super) fn cannot_be(error: MatchError, typed: &str) -> Refused {
    Refused::value(format!("{error}; found {}", quoted(typed)))
}

fn target(entry: &Entry<'_, '_>) -> Option<Target> {
    let example = "`to = \"https://example.com{path}{query}\"`";
    entry.text_with_places("where to, as in `/new{rest}`", example, |text| {
        Target::parse(text).map_err(|error| match error {
            TargetError::Template(error) => template_refused(&error, text, &[]),
            TargetError::Start => {
                let refused = Refused::value(format!("{error}; found {}", quoted(text)));
                refused.help(
                    "otherwise a client's text could say which server is meant: write for \
                     instance `/new{rest}` or `https://{host}{path}{query}`",
                )
            }
            TargetError::Blank => Refused::value(format!("{error}; found {}", quoted(text))),
        })
    })
}

fn status(entry: &Entry<'_, '_>) -> Option<RedirectStatus> {
    let code = entry.integer(301..=308)?;
    let status = u16::try_from(code).ok().map(RedirectStatus::try_from);
    let Some(Ok(status)) = status else {
        let message = format!("a redirect's status is 301, 302, 307 or 308; found `{code}`");
        let help = "301 and 308 are for ever, 302 and 307 for now; 307 and 308 keep the method";
        entry.refuse(Refused::value(message).help(help));
        return None;
    };
    Some(status)
}

/// The name of a header, or what was meant by it.
pub(super) fn field_name(text: &str) -> Result<FieldName, Refused> {
    FieldName::parse(text).map_err(|error| cannot_be(error, text))
}

/// One of a few words.
pub(super) fn one_of<T: Copy>(entry: &Entry<'_, '_>, words: &[(&'static str, T)]) -> Option<T> {
    let shown: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
    let expected = shown.join(" or ");
    let example = format!("`{} = \"{}\"`", entry.name(), words[0].0);
    entry.text(&expected, &example, |text| {
        if let Some((_, meant)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*meant);
        }
        let refused = Refused::value(format!("expected {expected}, found {}", quoted(text)));
        Err(match closest(text, words.iter().map(|(word, _)| *word)) {
            Some(meant) => refused.help(format!("did you mean `{meant}`?")),
            None => refused,
        })
    })
}
