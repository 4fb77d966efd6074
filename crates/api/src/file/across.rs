//! What two services of one file may not both say, and what one may say of another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use mainstay_ids::ServiceName;
use mainstay_model::HttpMatch;
use mainstay_model::service::AddressSpec;

use super::problem::Code;
use super::refusal::{At, Refused};
use super::service::Draft;
use super::suggest::closest;
use super::walk::Walk;

/// Checks all services against each other.
pub(super) fn check(walk: &Walk<'_>, drafts: &[Draft]) {
    check_addresses(walk, drafts);
    check_routes(walk, drafts);
    check_addressed(walk, drafts);
    check_needs(walk, drafts);
}

/// `needs` names servers of this file, and nobody needs himself, by whatever way round.
fn check_needs(walk: &Walk<'_>, drafts: &[Draft]) {
    let scheduled = |draft: &Draft| {
        draft
            .spec
            .as_ref()
            .is_some_and(|spec| spec.schedule.is_some())
    };
    let declared: BTreeMap<&str, &Draft> = drafts
        .iter()
        .filter_map(|draft| Some((draft.name.as_ref()?.as_str(), draft)))
        .collect();
    for draft in drafts {
        for (needed, at) in &draft.needs {
            match declared.get(needed.as_str()) {
                None => walk.refuse_with(at, || {
                    let message = format!("this file has no service `{needed}`");
                    let refused = Refused::new(Code::UnknownService, message);
                    match closest(needed.as_str(), declared.keys().copied()) {
                        Some(meant) => refused.help(format!("did you mean `{meant}`?")),
                        None => refused.help("declare it in this file"),
                    }
                }),
                Some(found) if scheduled(found) => {
                    let message = format!("`{needed}` has a schedule and is never ready");
                    let refused = Refused::new(Code::Conflict, message);
                    walk.refuse(at, refused.help("need a server, or use `before`"));
                }
                Some(_) => {}
            }
        }
        if let Some(name) = &draft.name
            && let Some((way, at)) = way_back(name, draft, &declared)
        {
            let way: Vec<&str> = way.iter().map(ServiceName::as_str).collect();
            let message = format!("`{name}` needs itself: {name} > {}", way.join(" > "));
            let refused = Refused::new(Code::Conflict, message);
            walk.refuse(&at, refused.help("take one of these needs out"));
        }
    }
}

/// A way by `needs` from a service back to itself, with the place of its first step. Told of the
/// first service of a circle only.
fn way_back(
    name: &ServiceName,
    draft: &Draft,
    declared: &BTreeMap<&str, &Draft>,
) -> Option<(Vec<ServiceName>, At)> {
    for (first, at) in &draft.needs {
        let mut seen = BTreeSet::new();
        let mut ways = vec![vec![first.clone()]];
        while let Some(way) = ways.pop() {
            let last = way.last().expect("a way has a step");
            if last == name {
                let is_first = way.iter().all(|other| name <= other);
                return is_first.then(|| (way.clone(), at.clone()));
            }
            if !seen.insert(last.clone()) {
                continue;
            }
            let next = declared.get(last.as_str()).into_iter();
            for (needed, _) in next.flat_map(|draft| &draft.needs) {
                ways.push(way.iter().chain([needed]).cloned().collect());
            }
        }
    }
    None
}

fn check_addresses(walk: &Walk<'_>, drafts: &[Draft]) {
    let claims = drafts.iter().filter_map(|draft| match &draft.address {
        Some((at, Some(AddressSpec::Fixed(address)))) => Some((at, address)),
        Some((_, Some(AddressSpec::Auto) | None)) | None => None,
    });
    let what = |address: &SocketAddr| format!("the address {address}");
    refuse_second(walk, claims, what, "choose another one, or `auto`");
}

fn check_routes(walk: &Walk<'_>, drafts: &[Draft]) {
    let claims = drafts.iter().flat_map(|draft| &draft.claims);
    let claims = claims.map(|(at, http)| (at, http));
    let what = |http: &HttpMatch| {
        let host = http.host.as_ref();
        let host = host.map_or_else(|| "any host".to_owned(), ToString::to_string);
        match http.conditions() {
            0 => format!("the route of {host} with path {}", http.path),
            _ => format!("the route {http}"),
        }
    };
    let help = "give one of them another `host` or `path`";
    refuse_second(walk, claims, what, help);
}

/// Refuses each claim of what an earlier service claims.
fn refuse_second<'d, K: Ord + 'd>(
    walk: &Walk<'_>,
    claims: impl Iterator<Item = (&'d At, &'d K)>,
    what: impl Fn(&K) -> String,
    help: &str,
) {
    let mut firsts: BTreeMap<&K, &At> = BTreeMap::new();
    for (at, claim) in claims {
        let Some(first) = firsts.get(claim) else {
            firsts.insert(claim, at);
            continue;
        };
        let (key, line) = (&first.key, first.place.line);
        let message = format!("{} is already that of `{key}` (line {line})", what(claim));
        let refused = Refused::new(Code::Conflict, message);
        walk.refuse(at, refused.help(help).also(first));
    }
}

/// `{address:NAME}` wants a service of this file that has an address.
fn check_addressed(walk: &Walk<'_>, drafts: &[Draft]) {
    let declared: BTreeMap<&str, bool> = drafts
        .iter()
        .filter_map(|draft| Some((draft.name.as_ref()?.as_str(), draft.address.is_some())))
        .collect();
    for (name, at) in walk.addressed() {
        if declared.get(name.as_str()) != Some(&true) {
            walk.refuse_with(&at, || unaddressed(&name, &declared));
        }
    }
}

/// `declared` tells of each service of the file whether it has an address.
fn unaddressed(name: &ServiceName, declared: &BTreeMap<&str, bool>) -> Refused {
    if declared.contains_key(name.as_str()) {
        let message = format!("service `{name}` has no address");
        return Refused::new(Code::UnknownService, message)
            .help(format!("add `address = \"auto\"` to `[service.{name}]`"));
    }
    let message = format!("this file has no service `{name}`");
    let refused = Refused::new(Code::UnknownService, message);
    match closest(name.as_str(), declared.keys().copied()) {
        Some(meant) => refused.help(format!("did you mean `{{address:{meant}}}`?")),
        None => refused.help("declare it in this file, or write its address out"),
    }
}
