//! What every store must do: FoundationDB's semantics, case by case, by the crate's public API alone.
//!
//! ```text
//!   with_cases!  the one list ─┬─► CASES             a table: names, and functions of a Bed
//!                              └─► conformance_tests! a #[test] for each, in the binary of a store
//! ```
//!
//! The binary of a store says how to provide one (`async fn open(env) -> Provided`) and calls
//! `conformance_tests!(open)`. The names are the same everywhere, and each binary checks that it has
//! them all. A case keeps to keys below a prefix of its own, so that the suite can run against a
//! cluster that others use.
//!
//! Each case says what of FoundationDB it pins: a page of <https://apple.github.io/foundationdb/>
//! with its section, or an error of its page *Error codes*.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and takes real clocks and chance"
)]

mod bed;

mod atomics;
mod conflicts;
mod history;
mod limits;
mod model;
mod ranges;
mod reads;
mod retries;
mod selectors;
mod stamps;
mod steps;
mod watches;

use std::pin::Pin;
use std::sync::Arc;

pub(crate) use bed::{Bed, Provided, run};

/// A case that is running.
pub(crate) type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One case.
pub(crate) struct Case {
    /// `module::function`, as the tests of every store are named.
    pub(crate) name: &'static str,
    /// Panics when the store does something else.
    pub(crate) run: fn(Arc<Bed>) -> Running,
}

/// Hands the list of all cases to another macro, behind `args`.
macro_rules! with_cases {
    ([$($then:tt)*] $args:tt) => {
        $($then)*! { $args
            reads {
                own_writes_are_read
                own_atomics_are_read_on_top_of_the_store
                all_reads_see_one_version
                a_read_sees_every_commit_acknowledged_before
                an_empty_value_is_not_an_absent_one
                a_transaction_is_used_once
                nothing_is_seen_before_its_commit
            }
            ranges {
                ranges_stop_at_rows_and_say_so
                ranges_stop_at_bytes_and_go_on
                a_range_has_its_begin_and_not_its_end
                own_writes_lie_between_stored_rows
                a_limit_counts_what_own_clears_leave
                a_long_range_comes_whole
            }
            selectors {
                the_four_selectors_name_keys_by_their_place
                offsets_go_over_stored_and_own_keys
                offsets_end_outside_of_what_is_there
                a_range_is_selected_by_its_ends
                a_selected_key_conflicts_as_far_as_it_was_looked_for
            }
            conflicts {
                write_skew_is_refused
                write_skew_is_refused_at_the_same_moment
                a_snapshot_read_does_not_conflict
                writes_without_reads_do_not_conflict
                a_transaction_without_writes_does_not_conflict
                a_read_of_an_own_write_does_not_conflict
                a_read_through_an_own_atomic_conflicts
                a_range_conflicts_as_far_as_it_was_read
                an_absent_key_conflicts_with_its_first_write
                read_conflicts_can_be_added_by_hand
                write_conflicts_can_be_added_by_hand
                a_cleared_range_conflicts_with_its_readers
                a_stamped_key_conflicts_with_its_readers
                atomics_on_one_key_never_conflict
                a_failed_commit_leaves_nothing
                of_many_increments_none_is_lost
            }
            atomics {
                add_is_little_endian_and_as_wide_as_its_operand
                max_and_min_compare_little_endian_numbers
                byte_max_and_byte_min_compare_bytes_in_order
                and_or_xor_are_as_wide_as_their_operand
                compare_and_clear_compares_the_whole_value
                append_if_fits_appends_up_to_the_limit_of_values
                later_writes_of_a_transaction_win
                atomics_see_the_writes_before_them
            }
            stamps {
                stamps_rise_in_commit_order
                a_stamp_is_ten_bytes_big_endian_at_its_offset
                one_transaction_has_one_stamp
                commits_at_one_moment_have_stamps_of_their_own
                a_stamp_outside_of_its_bytes_is_refused
                what_only_the_commit_knows_cannot_be_read
            }
            limits {
                keys_have_a_greatest_size
                values_have_a_greatest_size
                keys_and_ranges_have_a_legal_place
                a_transaction_has_a_greatest_size
                a_large_transaction_commits
                a_transaction_has_five_seconds
                a_store_refuses_what_it_cannot_check_any_more
            }
            watches {
                a_watch_fires_on_a_change_of_its_key_only
                a_watch_sees_clears_atomics_and_first_values
                a_change_between_read_and_commit_is_not_missed
                an_own_write_is_what_the_watch_has_seen
                a_change_and_a_change_back_may_be_silent_another_is_not
                a_watch_outlives_its_transaction_and_others
                a_watch_ends_with_its_uncommitted_transaction
                a_watch_is_no_read_conflict
                many_watch_one_key
            }
            retries {
                an_unknown_commit_is_resolved_by_reading
                increments_by_token_survive_lost_answers
                pauses_grow_between_attempts
                the_loop_gives_up_after_a_minute
                an_own_error_ends_the_loop_at_once
                a_conflict_is_retried_until_it_gets_through
                a_closed_store_refuses_commits_and_ends_watches
            }
            model {
                transactions_one_after_the_other_do_what_the_model_does
                two_interleaved_transactions_are_serializable
            }
            history {
                concurrent_histories_are_serializable_in_stamp_order
                histories_with_lost_answers_are_serializable_in_stamp_order
            }
        }
    };
}
pub(crate) use with_cases;

macro_rules! table {
    (() $($module:ident { $($case:ident)* })*) => {
        /// All cases.
        pub(crate) const CASES: &[Case] = &[$($(Case {
            name: concat!(stringify!($module), "::", stringify!($case)),
            run: |bed| Box::pin($module::$case(bed)),
        },)*)*];
    };
}
with_cases!([table]());

/// A `#[test]` for each case on the stores that `$open` provides, and one that none is missing.
macro_rules! conformance_tests {
    ($open:ident) => {
        $crate::conformance::with_cases!([$crate::conformance::case_tests]($open));

        /// The binary of this store has all cases, under the names that all stores have.
        #[test]
        fn every_case_is_there() {
            let this = std::env::current_exe().unwrap();
            let listed = std::process::Command::new(this).arg("--list").output().unwrap();
            let listed = String::from_utf8(listed.stdout).unwrap();
            for case in $crate::conformance::CASES {
                let line = format!("{}: test", case.name);
                assert!(listed.lines().any(|listed| listed == line), "no {}", case.name);
            }
        }
    };
}
pub(crate) use conformance_tests;

/// The `#[test]` functions, a module a file.
macro_rules! case_tests {
    (($open:ident) $($module:ident { $($case:ident)* })*) => {
        $(mod $module {
            $(#[test]
            fn $case() {
                let name = concat!(stringify!($module), "::", stringify!($case));
                $crate::conformance::run(name, super::$open);
            })*
        })*
    };
}
pub(crate) use case_tests;
