//! Watches.

use std::time::Duration;

use mainstay_store::{
    Event, Illegal, KeyRange, Notice, PROGRESS_EVERY, Revision, StoreError, Test, Txn,
};

use crate::place::{DEADLINE, Place, change, committed, delete, key, make, next, put};

/// A notice in short: revision, and each key with its value, ordered.
fn short(notice: Notice) -> (u64, Vec<String>) {
    let Notice::Events(revision, events) = notice else {
        panic!("{notice:?}");
    };
    let mut events: Vec<String> = events
        .into_iter()
        .map(|event| match event {
            Event::Put(pair) => {
                assert_eq!(pair.modified, revision);
                format!("{}={}", pair.key, String::from_utf8_lossy(&pair.value))
            }
            Event::Deleted(key) => format!("{key} is gone"),
        })
        .collect();
    events.sort();
    (revision.0, events)
}

pub(crate) async fn a_watch_tells_the_past_and_the_future_in_order<P: Place>(place: &mut P) {
    let store = place.open().await;
    make(&*store, "/w/a", "1").await;
    make(&*store, "/other", "2").await;
    let both = Txn::default()
        .with(Test::Absent, put("/w/b", "3"))
        .with(Test::Absent, put("/x", "3"))
        .with(Test::Absent, put("/w/c", "3"));
    committed(&*store, both).await;
    let range = KeyRange::prefix("/w/");
    let mut from_start = store.watch(&range, Revision(0));
    let mut from_two = store.watch(&range, Revision(2));
    let mut from_future = store.watch(&range, Revision(5));
    assert_eq!(
        short(next(&mut from_start).await),
        (1, vec!["/w/a=1".into()])
    );
    for watch in [&mut from_start, &mut from_two] {
        let events = vec!["/w/b=3".into(), "/w/c=3".into()];
        assert_eq!(short(next(watch).await), (3, events));
    }
    let waiting = tokio::spawn(async move {
        let notice = next(&mut from_start).await;
        (notice, from_start)
    });
    change(&*store, delete("/w/a")).await;
    let (notice, mut from_start) = waiting.await.expect("is joined");
    assert_eq!(short(notice), (4, vec!["/w/a is gone".into()]));
    change(&*store, put("/w/b", "5")).await;
    for watch in [&mut from_start, &mut from_future] {
        assert_eq!(short(next(watch).await), (5, vec!["/w/b=5".into()]));
    }
    let mut one = store.watch(&KeyRange::one(&key("/w/b")), Revision(1));
    assert_eq!(short(next(&mut one).await).0, 3);
    assert_eq!(short(next(&mut one).await).0, 5);
}

pub(crate) async fn a_watch_of_what_is_forgotten_says_so<P: Place>(place: &mut P) {
    let store = place.open().await;
    make(&*store, "/a", "1").await;
    for n in 2..=10 {
        change(&*store, put("/a", &n.to_string())).await;
    }
    store.compact(Revision(6)).await.expect("compacts");
    let range = KeyRange::prefix("/");
    for from in [1, 5] {
        let mut watch = store.watch(&range, Revision(from));
        assert_eq!(
            next(&mut watch).await,
            Notice::Compacted(Revision(6)),
            "{from}"
        );
    }
    let mut watch = store.watch(&range, Revision(7));
    assert_eq!(short(next(&mut watch).await), (7, vec!["/a=7".into()]));
    // One that lags behind the next compaction learns it, too.
    let mut late = store.watch(&range, Revision(7));
    store.compact(Revision(9)).await.expect("compacts");
    assert_eq!(next(&mut late).await, Notice::Compacted(Revision(9)));
    // Again, or of less: it is so already.
    store.compact(Revision(6)).await.expect("is so already");
    let refused = store
        .compact(Revision(11))
        .await
        .expect_err("is not there yet");
    assert!(
        matches!(
            refused,
            StoreError::Illegal(Illegal::Future {
                asked: Revision(11),
                newest: Revision(10)
            })
        ),
        "{refused:?}"
    );
    let found = store.range(&range, 10).await.expect("reads");
    assert_eq!(found.pairs[0].value, b"10", "values stay");
}

pub(crate) async fn a_reader_that_lags_misses_nothing<P: Place>(place: &mut P) {
    const CHANGES: u64 = 1500;
    let store = place.open().await;
    let range = KeyRange::prefix("/");
    let mut slow = store.watch(&range, Revision(1));
    for n in 1..=CHANGES {
        make(&*store, &format!("/{n}"), &n.to_string()).await;
    }
    // More than one read holds, and one more commit for each that is taken.
    for n in 1..=CHANGES {
        assert_eq!(short(next(&mut slow).await), (n, vec![format!("/{n}={n}")]));
    }
    // One transaction is told as a whole.
    let many = (0..128).fold(Txn::default(), |txn, n| {
        txn.with(Test::Absent, put(&format!("/many/{n}"), "x"))
    });
    committed(&*store, many).await;
    let (revision, events) = short(next(&mut slow).await);
    assert_eq!((revision, events.len()), (CHANGES + 1, 128));
}

pub(crate) async fn a_watch_that_is_dropped_while_it_waits_loses_nothing<P: Place>(place: &mut P) {
    let store = place.open().await;
    let mut watch = store.watch(&KeyRange::prefix("/"), Revision(1));
    for n in 1..=50 {
        make(&*store, &format!("/{n}"), "x").await;
        // Given up at whatever point it is, several times; if it was done, it was done.
        let mut told = None;
        for _ in 0..n % 4 {
            let given_up = tokio::time::timeout(Duration::ZERO, watch.next()).await;
            if let Ok(notice) = given_up {
                told = Some(notice.expect("goes on"));
                break;
            }
        }
        let notice = match told {
            Some(notice) => notice,
            None => next(&mut watch).await,
        };
        assert_eq!(short(notice).0, n);
    }
}

pub(crate) async fn a_silent_watch_says_how_far_it_is<P: Place>(place: &mut P) {
    let store = place.open().await;
    make(&*store, "/a", "1").await;
    let mut watch = store.watch(&KeyRange::prefix("/other/"), Revision(1));
    // From here on the clock runs ahead whenever all wait.
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    let notice = watch.next().await.expect("goes on");
    assert_eq!(notice, Notice::Progress(Revision(1)));
    assert!(start.elapsed() <= PROGRESS_EVERY + Duration::from_secs(1));
    let again = watch.next().await.expect("goes on");
    assert_eq!(again, Notice::Progress(Revision(1)));
    tokio::time::resume();
    make(&*store, "/other/b", "2").await;
    assert_eq!(short(next(&mut watch).await).0, 2);
}

pub(crate) async fn a_watch_ends_with_its_store<P: Place>(place: &mut P) {
    let store = place.open().await;
    let mut watch = store.watch(&KeyRange::prefix("/"), Revision(1));
    let waiting = tokio::spawn(async move { watch.next().await });
    tokio::task::yield_now().await;
    drop(store);
    place.close();
    let ended = tokio::time::timeout(DEADLINE, waiting).await.expect("ends");
    let error = ended.expect("is joined").expect_err("the store is gone");
    assert!(matches!(error, StoreError::Closed), "{error:?}");
}
