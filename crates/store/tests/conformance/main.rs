//! What every store does, checked on each that there is.
//!
//! A case is a function over [`Store`]; the table at the end of this file runs it on SQLite and in
//! memory. Another implementation is another [`Place`].

mod lease;
mod place;
mod txn;
mod watch;

use place::{InMemory, OnDisk, Place};

/// A test for each case on each place.
macro_rules! cases {
    ($($module:ident :: $case:ident),+ $(,)?) => {
        mod on_sqlite {
            use super::{OnDisk, Place as _};
            $(#[tokio::test]
            async fn $case() {
                super::$module::$case(&mut OnDisk::new()).await;
            })+
        }
        mod in_memory {
            use super::{InMemory, Place as _};
            $(#[tokio::test]
            async fn $case() {
                super::$module::$case(&mut InMemory::new()).await;
            })+
        }
    };
}

cases! {
    txn::what_was_put_is_found_with_its_revisions,
    txn::compares_hold_or_nothing_is_done,
    txn::a_range_is_ordered_and_comes_in_pages,
    txn::what_no_store_can_do_is_refused_and_nothing_is_done,
    txn::one_of_many_who_want_the_same_key_gets_it,
    txn::revisions_grow_by_one_per_change_and_not_without_one,
    watch::a_watch_tells_the_past_and_the_future_in_order,
    watch::a_watch_of_what_is_forgotten_says_so,
    watch::a_reader_that_lags_misses_nothing,
    watch::a_watch_that_is_dropped_while_it_waits_loses_nothing,
    watch::a_silent_watch_says_how_far_it_is,
    watch::a_watch_ends_with_its_store,
    lease::a_lease_that_is_not_kept_alive_ends_with_its_keys,
    lease::a_lease_that_is_kept_alive_lasts,
    lease::a_revoked_lease_ends_at_once,
    lease::a_put_without_the_lease_saves_the_key_from_it,
    lease::the_first_of_two_candidates_leads_until_its_lease_ends,
}

/// Only what is on a disk can be opened again.
mod on_sqlite_alone {
    use super::{OnDisk, Place as _};

    #[tokio::test]
    async fn opened_again_everything_is_there_and_revisions_go_on() {
        super::txn::opened_again_everything_is_there(&mut OnDisk::new()).await;
    }

    #[tokio::test]
    async fn opened_again_a_lease_lasts_its_whole_time_and_then_ends() {
        super::lease::opened_again_a_lease_lasts_its_whole_time(&mut OnDisk::new()).await;
    }
}
