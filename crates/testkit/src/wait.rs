//! Waiting for a state, with a deadline and a report of what was seen last.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Between two looks. Short enough that a test is not slow, long enough that 20 waiting tests do not load the machine.
const PAUSE: Duration = Duration::from_millis(10);

/// Calls `condition` until it gives a value, and returns that value.
///
/// `condition` answers with what it sees instead, and the panic at the deadline quotes the last answer.
#[track_caller]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where a test may sleep"
)]
pub fn wait_until<T>(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    loop {
        match condition() {
            Ok(value) => return value,
            Err(seen) if start.elapsed() >= deadline => {
                panic!("waited {deadline:?} in vain until {what}; last seen: {seen}")
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// [`wait_until`] for conditions that must be awaited; one that does not answer by the deadline has failed, too.
///
/// Time is tokio's: under a paused clock the wait takes no time, and must then not be for a real process.
pub async fn wait_until_async<T>(
    deadline: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let end = tokio::time::Instant::now() + deadline;
    let mut seen = String::from("nothing, the first look did not end");
    loop {
        let Ok(look) = tokio::time::timeout_at(end, condition()).await else {
            panic!("waited {deadline:?} in vain until {what}; last seen: {seen}")
        };
        match look {
            Ok(value) => return value,
            // A look that is ready at once is never cut off by the timeout.
            Err(now) if tokio::time::Instant::now() >= end => {
                panic!("waited {deadline:?} in vain until {what}; last seen: {now}")
            }
            Err(now) => seen = now,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn message(panic: &(dyn std::any::Any + Send)) -> String {
        panic.downcast_ref::<String>().cloned().unwrap_or_default()
    }

    #[test]
    fn a_condition_that_comes_true_gives_its_value() {
        let mut looks = 0;
        let value = wait_until(Duration::from_secs(5), "three looks", || {
            looks += 1;
            if looks == 3 {
                Ok(looks)
            } else {
                Err(format!("{looks} looks"))
            }
        });
        assert_eq!(value, 3);
    }

    #[test]
    fn a_condition_that_never_comes_true_is_reported_with_the_last_state_seen() {
        let panic = catch_unwind(AssertUnwindSafe(|| {
            wait_until(Duration::ZERO, "it is ready", || {
                Err::<(), _>("two of three up".to_owned())
            });
        }))
        .unwrap_err();
        let text = message(panic.as_ref());
        assert!(
            text.contains("until it is ready") && text.contains("two of three up"),
            "{text}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_awaited_condition_that_hangs_fails_at_the_deadline_with_what_was_seen_before() {
        let tasks = tokio::task::LocalSet::new();
        let waiting = tasks.spawn_local(async {
            let mut looks = 0;
            wait_until_async(Duration::from_hours(1), "it answers", async || {
                looks += 1;
                if looks == 1 {
                    Err::<(), _>("refused".to_owned())
                } else {
                    std::future::pending().await
                }
            })
            .await;
        });
        let text = message(
            tasks
                .run_until(waiting)
                .await
                .unwrap_err()
                .into_panic()
                .as_ref(),
        );
        assert!(
            text.contains("until it answers") && text.contains("refused"),
            "{text}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_awaited_condition_that_answers_at_once_fails_at_the_deadline_too() {
        let tasks = tokio::task::LocalSet::new();
        let waiting = tasks.spawn_local(wait_until_async(
            Duration::from_hours(1),
            "it is ready",
            async || Err::<(), _>("one of two".to_owned()),
        ));
        let panic = tasks.run_until(waiting).await.unwrap_err().into_panic();
        let text = message(panic.as_ref());
        assert!(text.contains("last seen: one of two"), "{text}");
    }
}
