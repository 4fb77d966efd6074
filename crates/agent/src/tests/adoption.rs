//! One agent after another.

use super::*;

#[tokio::test]
async fn system_a_running_instance_is_adopted_and_the_first_report_says_that_it_passes() {
    let state = State::new(Cgroups::IfPossible);
    let planned = python("import signal; signal.pause()");
    let mut first = state.agent(1).await;
    first.plan(vec![planned.clone()]);
    let pid = first.passing().await;
    first.end().await;
    assert!(is_alive(pid));

    let mut second = state.agent(2).await;
    let report = wait_until_async(SOON, "the first report", async || {
        second.report().ok_or_else(String::new)
    })
    .await;
    assert_eq!((report.incarnation, report.plan), (Incarnation(2), None));
    let Phase::Running {
        pid: adopted,
        health,
        ..
    } = report.instances[0].phase
    else {
        panic!("{report:?}")
    };
    assert_eq!((adopted, health), (pid, ProbedHealth::Passing));
    second.plan(vec![to_stop(planned)]);
    assert_eq!(second.stopped().await, Some(Exit::Signal(15)));
    second.end().await;
}

#[tokio::test]
async fn system_an_instance_that_ended_while_no_agent_ran_is_started_again_without_a_plan() {
    let state = State::new(Cgroups::IfPossible);
    let mut first = state.agent(1).await;
    first.plan(vec![python("import signal; signal.pause()")]);
    let pid = first.passing().await;
    first.end().await;
    kill(pid);
    wait_until_async(SOON, "its end is recorded", async || {
        if state.run().join("exit.json").exists() {
            Ok(())
        } else {
            Err(String::new())
        }
    })
    .await;

    let second = state.agent(2).await;
    let again = second.passing().await;
    assert_ne!(again, pid);
    let report = second.instance().unwrap();
    assert_eq!(
        (report.attempt, report.last_exit),
        (Attempt(2), Some(Exit::Signal(9)))
    );
    second.end().await;
}

#[tokio::test]
async fn system_an_instance_whose_shim_was_killed_while_no_agent_ran_is_lost_and_nothing_of_it_is_left()
 {
    let state = State::new(Cgroups::None);
    let mut first = state.agent(1).await;
    first.plan(vec![python(
        "import os, signal\nif os.fork() == 0: os.setsid(); print('away')\nsignal.pause()",
    )]);
    first.passing().await;
    wait_until_async(SOON, "its child left the session", async || {
        let log = state.log();
        if log.contains("away") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    first.end().await;
    let before = state.processes();
    kill(state.shim());
    let second = state.agent(2).await;
    second
        .until("it is lost", |report| {
            (report.last_exit == Some(Exit::Lost)).then_some(())
        })
        .await;
    assert!(before.iter().all(|pid| !is_alive(*pid)), "{before:?}");
    second.end().await;
}

/// The agent died after it had started the shim and before the shim had told that the program runs.
#[tokio::test]
async fn system_an_instance_in_the_middle_of_its_start_is_not_started_twice() {
    let state = State::new(Cgroups::IfPossible);
    let planned = python("import signal; signal.pause()");
    let mut first = state.agent(1).await;
    first.plan(vec![planned.clone()]);
    let pid = first.passing().await;
    first.end().await;
    let (told, hidden) = (state.run().join("shim.json"), state.run().join("hidden"));
    fs::rename(&told, &hidden).unwrap();

    let mut second = state.agent(2).await;
    second.plan(vec![planned]);
    second.until_the_plan_is_taken().await;
    assert_eq!(state.processes(), [pid]);
    fs::rename(&hidden, &told).unwrap();
    assert_eq!(second.passing().await, pid);
    second.end().await;
}

#[tokio::test]
async fn system_a_claimed_attempt_without_a_shim_counts_as_lost_and_the_next_one_follows() {
    let state = State::new(Cgroups::IfPossible);
    let mut first = state.agent(1).await;
    first.plan(vec![python("import signal; signal.pause()")]);
    let pid = first.passing().await;
    first.end().await;
    kill(pid);
    wait_until_async(SOON, "its end is recorded", async || {
        if state.run().join("exit.json").exists() {
            Ok(())
        } else {
            Err(String::new())
        }
    })
    .await;
    // As if the agent had written the second attempt down and died then.
    let spec = fs::read_to_string(state.run().join("spec.json")).unwrap();
    fs::write(
        state.run().join("spec.json"),
        spec.replace("\"attempt\":1", "\"attempt\":2"),
    )
    .unwrap();

    let second = state.agent(2).await;
    second.passing().await;
    let report = second.instance().unwrap();
    assert_eq!(
        (report.attempt, report.last_exit),
        (Attempt(3), Some(Exit::Lost))
    );
    second.end().await;
}

#[tokio::test]
async fn system_the_files_of_a_newer_version_are_left_alone() {
    let state = State::new(Cgroups::IfPossible);
    fs::create_dir_all(state.run()).unwrap();
    let newer = r#"{"format": 2}"#;
    fs::write(state.run().join("spec.json"), newer).unwrap();
    let mut agent = state.agent(1).await;
    assert_eq!(agent.instance(), None);
    agent.plan(vec![python("pass")]);
    assert_eq!(
        agent.ended().await,
        Exit::NotStarted(mainstay_model::StartFailure::StateDirectory)
    );
    agent.end().await;
    assert_eq!(
        fs::read_to_string(state.run().join("spec.json")).unwrap(),
        newer
    );
}

/// An instance that runs, without its agent.
async fn left_running(state: &State) -> (PlannedInstance, u32) {
    let planned = python("import signal; signal.pause()");
    let mut first = state.agent(1).await;
    first.plan(vec![planned.clone()]);
    let pid = first.passing().await;
    first.end().await;
    (planned, pid)
}

#[tokio::test]
async fn system_an_instance_whose_specification_was_lost_is_adopted_by_what_its_shim_has() {
    let state = State::new(Cgroups::IfPossible);
    let (planned, pid) = left_running(&state).await;
    let spec = state.run().join("spec.json");
    let before = fs::read(&spec).unwrap();
    fs::remove_file(&spec).unwrap();

    let mut second = state.agent(2).await;
    assert_eq!(second.passing().await, pid);
    assert_eq!(fs::read(&spec).unwrap(), before, "it is restored");
    second.plan(vec![to_stop(planned)]);
    assert_eq!(second.stopped().await, Some(Exit::Signal(15)));
    second.end().await;
}

/// `shim.json` as shims wrote it that did not repeat the specification.
fn forget_the_specification(state: &State) {
    fs::remove_file(state.run().join("spec.json")).unwrap();
    let path = state.run().join("shim.json");
    let text = fs::read_to_string(&path).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record.as_object_mut().unwrap().remove("spec").unwrap();
    fs::write(&path, record.to_string()).unwrap();
}

#[tokio::test]
async fn system_an_instance_of_which_only_the_shim_is_known_is_ended_and_started_anew() {
    let state = State::new(Cgroups::IfPossible);
    let (planned, pid) = left_running(&state).await;
    forget_the_specification(&state);

    let mut second = state.agent(2).await;
    second.plan(vec![planned]);
    let again = second.passing().await;
    assert!(again != pid && !is_alive(pid));
    assert_eq!(second.instance().unwrap().attempt, Attempt(2));
    assert_eq!(state.processes(), [again]);
    second.end().await;
}

#[tokio::test]
async fn system_an_instance_of_which_nothing_is_written_down_is_ended_and_started_anew() {
    let state = State::new(Cgroups::IfPossible);
    let (planned, pid) = left_running(&state).await;
    for name in ["spec.json", "shim.json"] {
        fs::remove_file(state.run().join(name)).unwrap();
    }

    let mut second = state.agent(2).await;
    second.plan(vec![planned]);
    let again = second.passing().await;
    assert!(again != pid && !is_alive(pid));
    assert_eq!(state.processes(), [again]);
    second.end().await;
}
