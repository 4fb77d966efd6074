//! An agent on a machine that was started anew: everything ended, and the order of the next starts
//! is the control centre's.

use mainstay_model::report::CrashLooping;

use super::*;

/// Makes the files of the instance those of an earlier start of the machine, on which its shim and
/// its program had the number and the start time of this process.
fn as_before_a_reboot(state: &State, of: u32) {
    let start = Stat::of(of).unwrap().unwrap().start_ticks;
    for name in ["spec.json", "shim.json"] {
        let path = state.run().join(name);
        let text = fs::read_to_string(&path).unwrap();
        let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
        for process in ["shim", "child"] {
            if record.get(process).is_some() {
                record[process] = serde_json::json!({
                    "pid": of,
                    "start_ticks": start,
                    "boot_id": "another",
                });
            }
        }
        record["boot"] = "another".into();
        fs::write(&path, record.to_string()).unwrap();
    }
}

/// An instance that ran when the machine ended, and somebody else who now has its number.
async fn rebooted() -> (State, PlannedInstance, Spawned) {
    let state = State::new(Cgroups::IfPossible);
    let planned = python("import signal; signal.pause()");
    let mut first = state.agent(1).await;
    first.plan(vec![planned.clone()]);
    let pid = first.passing().await;
    first.end().await;
    kill(state.shim());
    wait_until(SOON, "its program ended with it", || {
        if is_alive(pid) {
            Err(String::new())
        } else {
            Ok(())
        }
    });
    let mut other = Command::new(program("python3"));
    other.args(["-c", "import signal; signal.pause()"]);
    let other = Spawned::start(state.dir(), "other", &mut other);
    as_before_a_reboot(&state, other.pid().as_raw_nonzero().get().unsigned_abs());
    (state, planned, other)
}

#[tokio::test]
async fn system_after_a_reboot_nothing_is_started_before_a_plan_says_so_and_no_strangers_are_hit() {
    let (state, planned, other) = rebooted().await;
    let mut agent = state.agent(2).await;
    let (exit, crash_looping) = agent
        .until("it is told", |report| match report.phase {
            Phase::BackingOff {
                exit,
                crash_looping,
                ..
            } => Some((exit, crash_looping)),
            _ => None,
        })
        .await;
    assert_eq!((exit, crash_looping), (Exit::Rebooted, CrashLooping::No));
    let boot = agent.report().unwrap().boot.unwrap();
    assert_eq!(boot.0, mainstay_kernel::boot_id().unwrap());

    // Longer than the usual delay before the next attempt.
    let held = PlannedInstance {
        action: PlannedAction::Hold,
        ..planned.clone()
    };
    let began = std::time::Instant::now();
    agent.plan(vec![held]);
    agent.until_the_plan_is_taken().await;
    wait_until(SOON, "it would have been started", || {
        if began.elapsed() > Duration::from_millis(500) {
            Ok(())
        } else {
            Err(String::new())
        }
    });
    assert_eq!(state.processes(), [0; 0]);

    agent.plan(vec![planned.clone()]);
    agent.passing().await;
    let report = agent.instance().unwrap();
    assert_eq!(
        (report.attempt, report.last_exit),
        (Attempt(2), Some(Exit::Rebooted))
    );
    agent.plan(vec![to_stop(planned)]);
    agent.stopped().await;
    agent.end().await;
    assert_eq!(other.ended(), None);
}

#[tokio::test]
async fn system_what_ended_before_the_machine_did_waits_for_the_plan_too() {
    let (state, planned, _other) = rebooted().await;
    // As the end of the machine stops it: by SIGTERM to its shim, and not because a plan said so.
    fs::write(
        state.run().join("exit.json"),
        r#"{"format":1,"attempt":1,"exit":{"signal":15},"cause":"ordered","at":1,"log_dropped":0}"#,
    )
    .unwrap();
    let mut agent = state.agent(2).await;
    assert_eq!(agent.ended().await, Exit::Signal(15));
    let report = agent.instance().unwrap();
    assert!(
        matches!(report.phase, Phase::BackingOff { .. }),
        "{report:?}"
    );
    agent.plan(vec![planned]);
    agent.passing().await;
    agent.end().await;
}

#[tokio::test]
async fn system_a_plan_that_holds_an_instance_starts_nothing_and_lets_go_on_what_runs() {
    let state = State::new(Cgroups::IfPossible);
    let mut agent = state.agent(1).await;
    let planned = python("import signal; signal.pause()");
    let held = PlannedInstance {
        action: PlannedAction::Hold,
        ..planned.clone()
    };
    agent.plan(vec![held.clone()]);
    agent.until_the_plan_is_taken().await;
    assert_eq!((agent.instance(), state.run().exists()), (None, false));
    agent.plan(vec![planned.clone()]);
    let pid = agent.passing().await;
    agent.plan(vec![held.clone()]);
    agent.until_the_plan_is_taken().await;
    assert_eq!(agent.passing().await, pid);
    agent.plan(vec![to_stop(planned)]);
    assert_eq!(agent.stopped().await, Some(Exit::Signal(15)));
    agent.end().await;
}
