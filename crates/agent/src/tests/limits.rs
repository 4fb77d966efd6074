//! What an instance may use, and what happens to one that wants more. With the kernel's own groups.

use super::*;
use mainstay_kernel::cgroup::Mounted;
use mainstay_model::StartFailure;
use mainstay_model::report::{Limit, LimitObstacle};
use mainstay_model::service::LimitsSpec;
use mainstay_testkit::{is_root, skip};

const MIB: u64 = 1 << 20;

fn limited(code: &str, limits: LimitsSpec) -> PlannedInstance {
    let mut planned = python(code);
    planned.spec.limits = limits;
    planned
}

fn memory(bytes: u64) -> LimitsSpec {
    LimitsSpec {
        memory_bytes: Some(bytes),
        ..LimitsSpec::default()
    }
}

/// The groups of the instance that exist, in whichever trees.
fn groups(state: &State) -> Vec<PathBuf> {
    let name = format!("mainstay/{}/web-1", state.context().mark());
    ["", "unified", "cpu", "memory", "pids"]
        .iter()
        .map(|tree| Path::new("/sys/fs/cgroup").join(tree).join(&name))
        .filter(|path| path.exists())
        .collect()
}

/// The tests' machine must be able to limit, or they are skipped.
fn cannot_limit() -> bool {
    let can = is_root() && Mounted::detect().usable().is_ok();
    if !can {
        skip("needs root and cgroups: limits processes");
    }
    !can
}

#[tokio::test]
async fn system_a_program_that_takes_too_much_memory_is_killed_told_and_started_again() {
    if cannot_limit() {
        return;
    }
    let state = State::new(Cgroups::IfPossible);
    let mut agent = state.agent(1).await;
    let code = "hog = bytearray(256 << 20); print('has it all')";
    agent.plan(vec![limited(code, memory(64 * MIB))]);
    let exit = Exit::OutOfMemory {
        limit_bytes: 64 * MIB,
    };
    assert_eq!(agent.ended().await, exit);
    agent
        .until("it was started again", |report| {
            (report.attempt >= Attempt(2)).then_some(())
        })
        .await;
    assert_eq!(agent.instance().unwrap().last_exit, Some(exit));
    let log = state.log();
    assert!(
        log.contains("attempt 1 killed: out of memory (limit 64 MiB) at "),
        "{log}"
    );
    assert!(!log.contains("has it all"), "{log}");
    agent.end().await;
}

#[tokio::test]
async fn system_a_killed_child_of_a_program_that_goes_on_is_told_in_its_log() {
    if cannot_limit() {
        return;
    }
    let state = State::new(Cgroups::IfPossible);
    let mut agent = state.agent(1).await;
    // The child offers itself to the kernel, which kills the largest.
    let code = "import os, signal\n\
                if os.fork() == 0: hog = bytearray(256 << 20)\n\
                print('child', os.wait()[1]); signal.pause()";
    agent.plan(vec![limited(code, memory(64 * MIB))]);
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        // Version 2 kills the whole group.
        let limit_bytes = 64 * MIB;
        assert_eq!(agent.ended().await, Exit::OutOfMemory { limit_bytes });
        return agent.end().await;
    }
    let pid = agent.passing().await;
    wait_until_async(SOON, "it is told", async || {
        let told = "attempt 1: a process of it killed: out of memory (limit 64 MiB)";
        match state.log() {
            log if log.contains(told) && log.contains("child 9") => Ok(()),
            log => Err(log),
        }
    })
    .await;
    assert_eq!(agent.passing().await, pid);
    // It was no end of the program: what ends it later is told as what it is.
    kill(pid);
    assert_eq!(agent.ended().await, Exit::Signal(9));
    agent.end().await;
}

#[tokio::test]
async fn system_a_limit_of_processor_time_holds() {
    if cannot_limit() {
        return;
    }
    let state = State::new(Cgroups::IfPossible);
    let mut agent = state.agent(1).await;
    // Two processes want a processor each. For two seconds of the clock, by the kernel's count.
    let code = "import os, time\n\
                child = os.fork()\n\
                start = time.monotonic()\n\
                while time.monotonic() - start < 2: pass\n\
                if child == 0: os._exit(0)\n\
                os.wait(); took = time.monotonic() - start; used = os.times()\n\
                print('share', (used.user + used.system + used.children_user + used.children_system) / took)\n\
                import signal; signal.pause()";
    let limits = LimitsSpec {
        cpu_thousandths: Some(200),
        ..LimitsSpec::default()
    };
    agent.plan(vec![limited(code, limits)]);
    let share = wait_until_async(SOON, "it has measured", async || {
        let log = state.log();
        let share = log.lines().find_map(|line| line.strip_prefix("share "));
        share
            .and_then(|share| share.parse::<f64>().ok())
            .ok_or_else(|| log.clone())
    })
    .await;
    // The first period may be used up at once, and the last one is counted in part: 10 % of two
    // seconds. Below, only a machine that is busy with other things.
    assert!(share < 0.26, "{share}");
    agent.end().await;
}

#[tokio::test]
async fn system_a_fork_bomb_stops_at_its_limit_and_nothing_of_it_is_left() {
    if cannot_limit() {
        return;
    }
    let state = State::new(Cgroups::IfPossible);
    let mut agent = state.agent(1).await;
    let code = "import os, signal, time\n\
                top = os.getpid(); made = 0\n\
                while True:\n\
                \x20try:\n\
                \x20\x20if os.fork() == 0: signal.pause()\n\
                \x20\x20made += 1\n\
                \x20except BlockingIOError:\n\
                \x20\x20print('made', made); signal.pause()";
    let limits = LimitsSpec {
        pids: Some(20),
        ..LimitsSpec::default()
    };
    let planned = limited(code, limits);
    agent.plan(vec![planned.clone()]);
    agent.passing().await;
    wait_until_async(SOON, "it is refused more", async || {
        let log = state.log();
        if log.contains("made 19\n") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    assert_eq!(state.processes().len(), 20);
    assert!(!groups(&state).is_empty());
    agent.plan(vec![to_stop(planned)]);
    assert_eq!(agent.stopped().await, Some(Exit::Signal(15)));
    assert_eq!(state.processes(), Vec::<u32>::new());
    assert_eq!(groups(&state), Vec::<PathBuf>::new());
    agent.end().await;
}

#[tokio::test]
async fn system_a_limit_that_cannot_be_kept_keeps_the_instance_from_starting() {
    let state = State::new(Cgroups::None);
    let mut agent = state.agent(1).await;
    agent.plan(vec![limited("print('runs')", memory(64 * MIB))]);
    let failure = StartFailure::Limit {
        limit: Limit::Memory,
        obstacle: LimitObstacle::NotRoot,
    };
    assert_eq!(agent.ended().await, Exit::NotStarted(failure));
    assert_eq!(state.log(), "");
    agent.end().await;
}

#[tokio::test]
async fn system_groups_that_a_killed_run_left_are_removed_at_the_next_start() {
    if cannot_limit() {
        return;
    }
    let state = State::new(Cgroups::IfPossible);
    let context = state.context();
    let mut planned = limited("pass", memory(64 * MIB));
    planned.spec.limits.pids = Some(9);
    super::super::groups::make(&context, &planned).unwrap();
    assert!(!groups(&state).is_empty());
    let agent = state.agent(1).await;
    assert_eq!(groups(&state), Vec::<PathBuf>::new());
    agent.end().await;
}
