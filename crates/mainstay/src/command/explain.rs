//! `mainstay explain`: what a code means and what to do, from the pages of `docs/errors`, which are
//! part of the program.

use mainstay_api::wire::ProblemCode;

use crate::outcome::{Failure, Outcome};
use crate::output;

/// The pages with a row for each code of other places than the API.
const TABLES: [&str; 4] = [
    include_str!("../../../../docs/errors/service-file.md"),
    include_str!("../../../../docs/errors/gateway.md"),
    include_str!("../../../../docs/errors/instances.md"),
    include_str!("../../../../docs/errors/exit-codes.md"),
];

pub(crate) fn run(code: &str) -> anyhow::Result<Outcome> {
    let of_api = ProblemCode::ALL.iter().find(|known| known.as_str() == code);
    let rows: Vec<String> = TABLES.iter().filter_map(|page| row(page, code)).collect();
    if of_api.is_none() && rows.is_empty() {
        let message = format!("there is no code `{code}`");
        let remedy = "a code stands in a refusal, in `mainstay-reason`, or in `error[CODE]`";
        return Err(Failure::new(Outcome::WrongInput, message)
            .remedy(remedy)
            .into());
    }
    if let Some(known) = of_api {
        output::line(page(*known).trim_end())?;
    }
    for row in rows {
        output::line(row.trim_end())?;
    }
    Ok(Outcome::Holds)
}

/// The row of a code, each cell under its heading.
fn row(page: &str, code: &str) -> Option<String> {
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim_matches('|').split(" |");
        inner.map(|cell| cell.trim().to_owned()).collect()
    };
    let title = page.lines().next()?.trim_start_matches("# ");
    let head = page.lines().find(|line| line.starts_with("| "))?;
    let start = format!("| `{code}` |");
    let found = page.lines().find(|line| line.starts_with(&start))?;
    let mut parts = vec![format!("# `{code}`"), format!("{title}.")];
    for (heading, cell) in cells(head).iter().zip(cells(found)).skip(1) {
        if !cell.is_empty() {
            parts.extend([format!("## {heading}"), cell]);
        }
    }
    Some(parts.join("\n\n"))
}

#[rustfmt::skip]
fn page(code: ProblemCode) -> &'static str {
    match code {
        ProblemCode::PathUnknown => include_str!("../../../../docs/errors/path-unknown.md"),
        ProblemCode::MethodNotAllowed => include_str!("../../../../docs/errors/method-not-allowed.md"),
        ProblemCode::NameInvalid => include_str!("../../../../docs/errors/name-invalid.md"),
        ProblemCode::QueryInvalid => include_str!("../../../../docs/errors/query-invalid.md"),
        ProblemCode::BodyNotJson => include_str!("../../../../docs/errors/body-not-json.md"),
        ProblemCode::FieldInvalid => include_str!("../../../../docs/errors/field-invalid.md"),
        ProblemCode::BodyTooLarge => include_str!("../../../../docs/errors/body-too-large.md"),
        ProblemCode::BodyLate => include_str!("../../../../docs/errors/body-late.md"),
        ProblemCode::BodyBroken => include_str!("../../../../docs/errors/body-broken.md"),
        ProblemCode::HostMissing => include_str!("../../../../docs/errors/host-missing.md"),
        ProblemCode::HostRefused => include_str!("../../../../docs/errors/host-refused.md"),
        ProblemCode::OriginRefused => include_str!("../../../../docs/errors/origin-refused.md"),
        ProblemCode::TokenMissing => include_str!("../../../../docs/errors/token-missing.md"),
        ProblemCode::TokenWrong => include_str!("../../../../docs/errors/token-wrong.md"),
        ProblemCode::AccountRefused => include_str!("../../../../docs/errors/account-refused.md"),
        ProblemCode::SocketOnly => include_str!("../../../../docs/errors/socket-only.md"),
        ProblemCode::TooManyWatches => include_str!("../../../../docs/errors/too-many-watches.md"),
        ProblemCode::ConsumerNameInvalid => include_str!("../../../../docs/errors/consumer-name-invalid.md"),
        ProblemCode::TooManyConsumers => include_str!("../../../../docs/errors/too-many-consumers.md"),
        ProblemCode::NodeUnknown => include_str!("../../../../docs/errors/node-unknown.md"),
        ProblemCode::ServiceUnknown => include_str!("../../../../docs/errors/service-unknown.md"),
        ProblemCode::InstanceUnknown => include_str!("../../../../docs/errors/instance-unknown.md"),
        ProblemCode::InstanceUnrouted => include_str!("../../../../docs/errors/instance-unrouted.md"),
        ProblemCode::InstanceLeaving => include_str!("../../../../docs/errors/instance-leaving.md"),
        ProblemCode::InstanceLast => include_str!("../../../../docs/errors/instance-last.md"),
        ProblemCode::ServiceDeclaredTwice => include_str!("../../../../docs/errors/service-declared-twice.md"),
        ProblemCode::ServiceRemoving => include_str!("../../../../docs/errors/service-removing.md"),
        ProblemCode::SpecInvalid => include_str!("../../../../docs/errors/spec-invalid.md"),
        ProblemCode::TooManyInstances => include_str!("../../../../docs/errors/too-many-instances.md"),
        ProblemCode::AddressTaken => include_str!("../../../../docs/errors/address-taken.md"),
        ProblemCode::AddressOutside => include_str!("../../../../docs/errors/address-outside.md"),
        ProblemCode::RouteTaken => include_str!("../../../../docs/errors/route-taken.md"),
        ProblemCode::NoAddressFree => include_str!("../../../../docs/errors/no-address-free.md"),
        ProblemCode::AddressedUnknown => include_str!("../../../../docs/errors/addressed-unknown.md"),
        ProblemCode::AddressedWithoutAddress => include_str!("../../../../docs/errors/addressed-without-address.md"),
        ProblemCode::NeedsUnknown => include_str!("../../../../docs/errors/needs-unknown.md"),
        ProblemCode::NeedsScheduled => include_str!("../../../../docs/errors/needs-scheduled.md"),
        ProblemCode::NeedsItself => include_str!("../../../../docs/errors/needs-itself.md"),
        ProblemCode::ServiceScheduled => include_str!("../../../../docs/errors/service-scheduled.md"),
        ProblemCode::NothingToPause => include_str!("../../../../docs/errors/nothing-to-pause.md"),
        ProblemCode::NothingToResume => include_str!("../../../../docs/errors/nothing-to-resume.md"),
        ProblemCode::NothingToPromote => include_str!("../../../../docs/errors/nothing-to-promote.md"),
        ProblemCode::CanariesNotReady => include_str!("../../../../docs/errors/canaries-not-ready.md"),
        ProblemCode::NoRoom => include_str!("../../../../docs/errors/no-room.md"),
        ProblemCode::NoEarlierVersion => include_str!("../../../../docs/errors/no-earlier-version.md"),
        ProblemCode::VersionUnknown => include_str!("../../../../docs/errors/version-unknown.md"),
        ProblemCode::VersionCurrent => include_str!("../../../../docs/errors/version-current.md"),
        ProblemCode::SecretUnknown => include_str!("../../../../docs/errors/secret-unknown.md"),
        ProblemCode::SecretMissing => include_str!("../../../../docs/errors/secret-missing.md"),
        ProblemCode::SecretInvalid => include_str!("../../../../docs/errors/secret-invalid.md"),
        ProblemCode::SecretInUse => include_str!("../../../../docs/errors/secret-in-use.md"),
        ProblemCode::TooManySecrets => include_str!("../../../../docs/errors/too-many-secrets.md"),
        ProblemCode::SecretLocked => include_str!("../../../../docs/errors/secret-locked.md"),
        ProblemCode::StoppingAll => include_str!("../../../../docs/errors/stopping-all.md"),
        ProblemCode::StorageFull => include_str!("../../../../docs/errors/storage-full.md"),
        ProblemCode::StorageReadOnly => include_str!("../../../../docs/errors/storage-read-only.md"),
        ProblemCode::StorageFailed => include_str!("../../../../docs/errors/storage-failed.md"),
        ProblemCode::StorageSlow => include_str!("../../../../docs/errors/storage-slow.md"),
        ProblemCode::CentreStopping => include_str!("../../../../docs/errors/centre-stopping.md"),
        ProblemCode::InternalFault => include_str!("../../../../docs/errors/internal-fault.md"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_the_page_of_its_name_with_its_cause_and_status() {
        for code in ProblemCode::ALL {
            let page = page(*code);
            assert!(page.starts_with(&format!("# `{code}`\n")), "{code}");
            assert!(page.contains(code.cause()), "{code}");
            let status = format!("HTTP status {}.", code.status());
            assert!(page.contains(&status), "{code}");
            let example = page.split("```json\n").nth(1).expect("has an example");
            let answer = example.lines().next().expect("a line");
            let problem: mainstay_api::wire::Problem =
                serde_json::from_str(answer).expect("is a refusal");
            assert_eq!(problem.code, *code);
            assert_eq!(problem.remedy, code.remedy(), "{code}");
        }
    }

    #[test]
    fn a_code_of_another_place_is_explained_by_its_row() {
        let explained = row(TABLES[1], "crash-looping").expect("is a reason");
        assert!(
            explained.contains("## Cause\n\nEvery instance ended"),
            "{explained}"
        );
        assert!(explained.contains("## What to do"), "{explained}");
        assert_eq!(row(TABLES[1], "unknown_key"), None);
    }
}
