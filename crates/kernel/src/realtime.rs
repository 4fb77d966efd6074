//! Scheduling in real time, for a process that must speak every few milliseconds whatever else runs.
#![expect(
    unsafe_code,
    reason = "sched_setscheduler and mlockall have no safe interface"
)]

use std::io;

/// Runs this thread before all that are not in real time, in the order of priorities (1 to 99), until it waits. What it
/// starts is scheduled as usual (`SCHED_RESET_ON_FORK`).
///
/// `EPERM`: neither root nor `CAP_SYS_NICE` nor `RLIMIT_RTPRIO`, or, in control groups of version 1, its group has no
/// share of real time (`cpu.rt_runtime_us`).
pub fn enter(priority: u8) -> io::Result<()> {
    let parameters = libc::sched_param {
        sched_priority: priority.into(),
    };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: 0 is this thread, and the parameters live until the call returns.
    answer(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) })
}

/// Keeps every page in memory once it was touched, so that none is ever waited for again.
///
/// `ENOMEM` or `EPERM`: `RLIMIT_MEMLOCK` is less than what this process has, and `CAP_IPC_LOCK` is missing.
pub fn lock_memory() -> io::Result<()> {
    let what = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: changes no memory, only whether it may be moved out.
    answer(unsafe { libc::mlockall(what) })
}

fn answer(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::skip;

    /// The policy of this thread, with its flags.
    fn policy() -> i32 {
        // SAFETY: 0 is this thread; only asks.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    fn system_a_thread_in_real_time_starts_others_as_usual() {
        let told = std::thread::spawn(|| {
            let entered = enter(10);
            let own = policy();
            let of_another = std::thread::spawn(policy).join().unwrap();
            (
                entered.map_err(|error| error.raw_os_error()),
                own,
                of_another,
            )
        });
        match told.join().unwrap() {
            (Ok(()), own, of_another) => {
                assert_eq!(own, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK);
                assert_eq!(of_another & !libc::SCHED_RESET_ON_FORK, libc::SCHED_OTHER);
            }
            (Err(errno), own, _) => {
                assert_eq!((errno, own), (Some(libc::EPERM), libc::SCHED_OTHER));
                skip("needs a share of real time");
            }
        }
    }

    #[test]
    fn memory_that_is_locked_is_counted_by_the_kernel() {
        let locked = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
            line.unwrap()
                .split_whitespace()
                .next()
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        match lock_memory() {
            Ok(()) => assert!(locked() > 0),
            Err(_) => skip("needs the right to lock memory"),
        }
        // SAFETY: changes no memory, only whether it may be moved out.
        unsafe { libc::munlockall() };
        assert_eq!(locked(), 0);
    }
}
