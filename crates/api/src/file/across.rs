//! What two services of one file may not both say, and what one may say of another.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mainstay_ids::ServiceName;
use mainstay_model::service::AddressSpec;
use mainstay_model::{HostName, HttpMatch};

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
    let claims = drafts.iter().filter_map(|draft| {
        let (at, http) = draft.http.as_ref()?;
        Some((at, http.as_ref()?))
    });
    let what = |http: &HttpMatch| {
        let host = http.host.as_ref().map_or("any host", HostName::as_str);
        format!("the route of {host} with path {}", http.path)
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
