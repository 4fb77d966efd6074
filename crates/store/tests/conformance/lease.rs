//! Leases.

use std::time::Duration;

use mainstay_store::{
    Event, Illegal, KeyRange, LEASE_MAX, LEASE_MIN, LeaseId, Notice, Operation, Outcome, Revision,
    Store, StoreError, Test, Txn,
};

use crate::place::{Place, change, committed, get, key, make, next, put};

const TTL: Duration = Duration::from_secs(10);
const ALMOST: Duration = Duration::from_secs(9);
const SECOND: Duration = Duration::from_secs(1);

fn leased(name: &str, lease: LeaseId) -> Txn {
    let operation = Operation::Put {
        key: key(name),
        value: b"held".to_vec(),
        lease: Some(lease),
    };
    Txn::default().with(Test::Absent, operation)
}

/// Waits until the keys below `/held/` are gone, which must be by the revision after `last`.
async fn gone(store: &dyn Store, last: Revision, names: &[&str]) {
    let mut watch = store.watch(&KeyRange::prefix("/held/"), last.next());
    let notice = next(&mut watch).await;
    let Notice::Events(revision, events) = notice else {
        panic!("{notice:?}");
    };
    assert_eq!(revision, last.next(), "all in one transaction");
    let mut keys: Vec<String> = events
        .iter()
        .map(|event| match event {
            Event::Deleted(key) => key.to_string(),
            Event::Put(_) => panic!("{event:?}"),
        })
        .collect();
    keys.sort();
    assert_eq!(keys, names);
    for name in names {
        assert_eq!(get(store, name).await, None);
    }
}

async fn over(store: &dyn Store, lease: LeaseId) {
    for refused in [
        store.keep_alive(lease).await.map(|_| ()),
        store.revoke(lease).await,
        store.txn(leased("/late", lease)).await.map(|_| ()),
    ] {
        let error = refused.expect_err("is over");
        assert!(
            matches!(error, StoreError::NoSuchLease { lease: seen } if seen == lease),
            "{error:?}"
        );
    }
}

pub(crate) async fn a_lease_that_is_not_kept_alive_ends_with_its_keys<P: Place>(place: &mut P) {
    let store = place.open().await;
    for ttl in [LEASE_MIN / 2, LEASE_MAX + SECOND] {
        let refused = store.grant(ttl).await.expect_err("too short or too long");
        assert!(
            matches!(&refused, StoreError::Illegal(Illegal::LeaseTtl { ttl: seen }) if *seen == ttl)
        );
    }
    let lease = store.grant(TTL).await.expect("is granted");
    committed(&*store, leased("/held/a", lease)).await;
    committed(&*store, leased("/held/b", lease)).await;
    let last = make(&*store, "/kept", "x").await;
    assert_eq!(
        get(&*store, "/held/a").await.expect("is there").lease,
        Some(lease)
    );
    place.pass(ALMOST);
    assert!(get(&*store, "/held/a").await.is_some());
    place.pass(SECOND);
    gone(&*store, last, &["/held/a", "/held/b"]).await;
    assert!(get(&*store, "/kept").await.is_some());
    over(&*store, lease).await;
    let next = store.grant(TTL).await.expect("is granted");
    assert!(next > lease, "a number is given once");
}

pub(crate) async fn a_lease_that_is_kept_alive_lasts<P: Place>(place: &mut P) {
    let store = place.open().await;
    let lease = store.grant(TTL).await.expect("is granted");
    let last = committed(&*store, leased("/held/a", lease)).await;
    for _ in 0..5 {
        place.pass(ALMOST);
        assert_eq!(store.keep_alive(lease).await.expect("lasts"), TTL);
    }
    let found = store.range(&KeyRange::prefix("/held/"), 1).await;
    let found = found.expect("reads");
    assert_eq!(
        (found.pairs.len(), found.revision),
        (1, last),
        "nothing was written"
    );
    place.pass(TTL);
    gone(&*store, last, &["/held/a"]).await;
}

pub(crate) async fn a_revoked_lease_ends_at_once<P: Place>(place: &mut P) {
    let store = place.open().await;
    let lease = store.grant(TTL).await.expect("is granted");
    let last = committed(&*store, leased("/held/a", lease)).await;
    store.revoke(lease).await.expect("is revoked");
    gone(&*store, last, &["/held/a"]).await;
    over(&*store, lease).await;
    // Without keys there is nothing to tell.
    let empty = store.grant(TTL).await.expect("is granted");
    store.revoke(empty).await.expect("is revoked");
    assert_eq!(make(&*store, "/next", "x").await, last.next().next());
}

pub(crate) async fn a_put_without_the_lease_saves_the_key_from_it<P: Place>(place: &mut P) {
    let store = place.open().await;
    let lease = store.grant(TTL).await.expect("is granted");
    committed(&*store, leased("/held/a", lease)).await;
    committed(&*store, leased("/held/b", lease)).await;
    let last = change(&*store, put("/held/a", "saved")).await;
    place.pass(TTL);
    gone(&*store, last, &["/held/b"]).await;
    let saved = get(&*store, "/held/a").await.expect("is there");
    assert_eq!((saved.lease, &saved.value[..]), (None, &b"saved"[..]));
}

pub(crate) async fn the_first_of_two_candidates_leads_until_its_lease_ends<P: Place>(
    place: &mut P,
) {
    let store = place.open().await;
    let first = store.grant(TTL).await.expect("is granted");
    let second = store.grant(TTL + TTL).await.expect("is granted");
    let last = committed(&*store, leased("/held/leader", first)).await;
    let outcome = store.txn(leased("/held/leader", second)).await;
    assert_eq!(outcome.expect("is taken"), Outcome::Conflict);
    place.pass(TTL);
    gone(&*store, last, &["/held/leader"]).await;
    committed(&*store, leased("/held/leader", second)).await;
}

pub(crate) async fn opened_again_a_lease_lasts_its_whole_time<P: Place>(place: &mut P) {
    let store = place.open().await;
    let lease = store.grant(TTL).await.expect("is granted");
    let last = committed(&*store, leased("/held/a", lease)).await;
    place.pass(ALMOST);
    drop(store);
    place.close();
    place.pass(TTL + TTL);
    let store = place.open().await;
    place.pass(ALMOST);
    assert!(get(&*store, "/held/a").await.is_some());
    place.pass(SECOND);
    gone(&*store, last, &["/held/a"]).await;
    over(&*store, lease).await;
}
