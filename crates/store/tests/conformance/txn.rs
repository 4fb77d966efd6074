//! Transactions and ranges.

use std::collections::BTreeSet;

use mainstay_store::{
    Compare, Illegal, KeyRange, LeaseId, More, OPERATIONS_MAX, Operation, Outcome, PAGE_LEN_MAX,
    PAGE_MAX, REQUEST_LEN_MAX, Revision, StoreError, Test, Txn,
};
use tokio::task::JoinSet;

use crate::place::{Place, change, committed, delete, get, key, make, put};

pub(crate) async fn what_was_put_is_found_with_its_revisions<P: Place>(place: &mut P) {
    let store = place.open().await;
    let made = make(&*store, "/a", "one").await;
    let changed = change(&*store, put("/a", "two")).await;
    assert!(changed > made);
    let pair = get(&*store, "/a").await.expect("is there");
    assert_eq!(pair.value, b"two");
    assert_eq!((pair.created, pair.modified), (made, changed));
    change(&*store, delete("/a")).await;
    assert_eq!(get(&*store, "/a").await, None);
    let again = make(&*store, "/a", "three").await;
    let pair = get(&*store, "/a").await.expect("is there");
    assert_eq!((pair.created, pair.modified), (again, again));
}

pub(crate) async fn compares_hold_or_nothing_is_done<P: Place>(place: &mut P) {
    let store = place.open().await;
    let made = make(&*store, "/a", "one").await;
    let changed = change(&*store, put("/a", "two")).await;
    let other = make(&*store, "/b", "b").await;
    let cases = [
        (Test::Absent, false),
        (Test::CreatedAt(made), true),
        (Test::CreatedAt(changed), false),
        (Test::ModifiedAt(changed), true),
        (Test::ModifiedAt(made), false),
        (Test::ModifiedAt(other), false),
    ];
    for (test, holds) in cases {
        let before = store.range(&KeyRange::prefix(""), 10).await.expect("reads");
        // The one that may not hold is the second: the first must not be done either.
        let mut txn = Txn::default().with(Test::Absent, put("/new", "new"));
        txn.compares.push(Compare {
            key: key("/a"),
            test,
        });
        let outcome = store.txn(txn).await.expect("is taken");
        let after = store.range(&KeyRange::prefix(""), 10).await.expect("reads");
        if holds {
            assert!(matches!(outcome, Outcome::Committed(_)), "{test:?}");
            assert_eq!(after.pairs.len(), before.pairs.len() + 1, "{test:?}");
            change(&*store, delete("/new")).await;
        } else {
            assert_eq!(outcome, Outcome::Conflict, "{test:?}");
            assert_eq!(after, before, "{test:?}");
        }
    }
    let pair = get(&*store, "/a").await.expect("is there");
    for expected in [true, false] {
        let txn = Txn::default().with(Test::ModifiedAt(pair.modified), put("/a", "x"));
        let outcome = store.txn(txn).await.expect("is taken");
        assert_eq!(outcome != Outcome::Conflict, expected, "once alone");
    }
    for test in [
        Test::CreatedAt(Revision(0)),
        Test::CreatedAt(pair.created),
        Test::ModifiedAt(pair.created),
    ] {
        let txn = Txn::default().with(test, put("/missing", "x"));
        assert_eq!(store.txn(txn).await.expect("is taken"), Outcome::Conflict);
    }
    // A compare alone is a question.
    let question = Txn {
        compares: vec![Compare {
            key: key("/a"),
            test: Test::Absent,
        }],
        operations: Vec::new(),
    };
    assert_eq!(
        store.txn(question).await.expect("is taken"),
        Outcome::Conflict
    );
}

pub(crate) async fn a_range_is_ordered_and_comes_in_pages<P: Place>(place: &mut P) {
    let store = place.open().await;
    for name in ["/b/2", "/a", "/b/1", "/b/3", "/c", "/b"] {
        make(&*store, name, name).await;
    }
    let range = KeyRange::prefix("/b/");
    let page = store.range(&range, 2).await.expect("reads");
    let names = |found: &mainstay_store::Found| {
        let pairs = found.pairs.iter();
        pairs.map(|pair| pair.key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        (names(&page), page.more),
        (vec!["/b/1".into(), "/b/2".into()], More::Yes)
    );
    let behind = range.behind(&page.pairs[1].key);
    let page = store.range(&behind, 2).await.expect("reads");
    assert_eq!(
        (names(&page), page.more),
        (vec!["/b/3".to_owned()], More::No)
    );
    assert_eq!(page.revision, Revision(6));

    // Neither in number nor in bytes without bound, whatever is asked.
    let value = "x".repeat(1024 * 1024);
    for n in 0..6 {
        make(&*store, &format!("/large/{n}"), &value).await;
    }
    let large = store.range(&KeyRange::prefix("/large/"), usize::MAX).await;
    let large = large.expect("reads");
    let len: usize = large.pairs.iter().map(|pair| pair.value.len()).sum();
    assert!(
        len <= PAGE_LEN_MAX + value.len() && large.more == More::Yes,
        "{len}"
    );
    for group in 0..=PAGE_MAX / OPERATIONS_MAX {
        let txn = (0..OPERATIONS_MAX).fold(Txn::default(), |txn, n| {
            txn.with(Test::Absent, put(&format!("/many/{group}/{n}"), ""))
        });
        committed(&*store, txn).await;
    }
    let many = store.range(&KeyRange::prefix("/many/"), usize::MAX).await;
    let many = many.expect("reads");
    assert_eq!((many.pairs.len(), many.more), (PAGE_MAX, More::Yes));
}

/// What a refusal must be.
type Expected = fn(&StoreError) -> bool;

pub(crate) async fn what_no_store_can_do_is_refused_and_nothing_is_done<P: Place>(place: &mut P) {
    let store = place.open().await;
    let full = (0..OPERATIONS_MAX).fold(Txn::default(), |txn, n| {
        txn.with(Test::Absent, put(&format!("/{n:03}"), "x"))
    });
    let one_more = full.clone().with(Test::Absent, put("/more", "x"));
    let long = Txn::default().with(Test::Absent, put("/long", &"x".repeat(REQUEST_LEN_MAX)));
    let unguarded = Txn {
        compares: Vec::new(),
        operations: vec![delete("/a")],
    };
    let twice = Txn::default()
        .with(Test::Absent, put("/a", "1"))
        .with(Test::Absent, put("/a", "2"));
    let leased = Txn::default().with(
        Test::Absent,
        Operation::Put {
            key: key("/a"),
            value: Vec::new(),
            lease: Some(LeaseId(77)),
        },
    );
    let cases: [(Txn, Expected); 5] = [
        (one_more, |error| {
            matches!(
                error,
                StoreError::Illegal(Illegal::TooManyOperations { operations: 129 })
            )
        }),
        (long, |error| {
            matches!(error, StoreError::Illegal(Illegal::TooLong { .. }))
        }),
        (
            unguarded,
            |error| matches!(error, StoreError::Illegal(Illegal::NotCompared { key }) if key.as_str() == "/a"),
        ),
        (twice, |error| {
            matches!(error, StoreError::Illegal(Illegal::Twice { .. }))
        }),
        (leased, |error| {
            matches!(error, StoreError::NoSuchLease { lease: LeaseId(77) })
        }),
    ];
    for (txn, expected) in cases {
        let refused = store.txn(txn).await.expect_err("is refused");
        assert!(expected(&refused), "{refused:?}");
        let found = store.range(&KeyRange::prefix(""), 1).await.expect("reads");
        assert_eq!((found.revision, found.pairs.len()), (Revision(0), 0));
    }
    // What is just within the limits is taken.
    committed(&*store, full).await;
    let room = REQUEST_LEN_MAX
        - Txn::default()
            .with(Test::Absent, put("/long", ""))
            .request_len();
    make(&*store, "/long", &"x".repeat(room)).await;
}

pub(crate) async fn one_of_many_who_want_the_same_key_gets_it<P: Place>(place: &mut P) {
    let store = place.open().await;
    let mut wanting = JoinSet::new();
    for n in 0..50 {
        let store = store.clone();
        wanting.spawn(async move {
            let txn = Txn::default().with(Test::Absent, put("/leader", &n.to_string()));
            let outcome = store.txn(txn).await.expect("is taken");
            matches!(outcome, Outcome::Committed(_)).then_some(n)
        });
    }
    let winners: Vec<u32> = wanting.join_all().await.into_iter().flatten().collect();
    let pair = get(&*store, "/leader").await.expect("is there");
    assert_eq!(winners.len(), 1);
    assert_eq!(pair.value, winners[0].to_string().as_bytes());
}

pub(crate) async fn revisions_grow_by_one_per_change_and_not_without_one<P: Place>(place: &mut P) {
    let store = place.open().await;
    let mut seen = BTreeSet::new();
    for n in 1..=20 {
        seen.insert(make(&*store, &format!("/{n}"), "x").await);
    }
    assert_eq!(seen, (1..=20).map(Revision).collect());
    let nothing = Txn::default().with(Test::Absent, delete("/missing"));
    assert_eq!(committed(&*store, nothing).await, Revision(20));
    assert_eq!(committed(&*store, Txn::default()).await, Revision(20));
    let several = Txn::default()
        .with(Test::Absent, put("/x", "x"))
        .with(Test::Absent, put("/y", "y"));
    assert_eq!(committed(&*store, several).await, Revision(21));
}

pub(crate) async fn opened_again_everything_is_there<P: Place>(place: &mut P) {
    let store = place.open().await;
    let made = make(&*store, "/a", "one").await;
    let changed = change(&*store, put("/a", "two")).await;
    make(&*store, "/b", "b").await;
    let last = change(&*store, delete("/b")).await;
    drop(store);
    place.close();
    let store = place.open().await;
    let found = store.range(&KeyRange::prefix(""), 10).await.expect("reads");
    assert_eq!((found.revision, found.pairs.len()), (last, 1));
    let pair = get(&*store, "/a").await.expect("is there");
    assert_eq!(
        (pair.created, pair.modified, &pair.value[..]),
        (made, changed, &b"two"[..])
    );
    assert_eq!(make(&*store, "/b", "b").await, last.next());
    let mut watch = store.watch(&KeyRange::prefix("/b"), Revision(1));
    for revision in [3, 4, 5] {
        let notice = crate::place::next(&mut watch).await;
        assert!(
            matches!(&notice, mainstay_store::Notice::Events(seen, _) if seen.0 == revision),
            "{notice:?}"
        );
    }
}
