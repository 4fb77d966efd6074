//! Instances that run to their end, and attempts that are given up.

use super::*;

/// Writes a line, waits until it may go on, and ends well.
fn job(state: &State) -> PlannedInstance {
    let code = format!(
        "import os\n\
         open('{path}/runs', 'a').write('x')\n\
         fd = os.open('{path}/go', os.O_RDONLY)\nos.read(fd, 1)",
        path = state.path.display()
    );
    rustix::fs::mknodat(
        rustix::fs::CWD,
        state.file("go"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let mut planned = python(&code);
    planned.action = PlannedAction::RunOnce;
    // It writes into the directory of the test.
    if rustix::process::geteuid().is_root() {
        planned.spec.user = Some("root".to_owned());
    }
    planned
}

fn let_it_end(state: &State) {
    fs::write(state.file("go"), "x").unwrap();
}

fn runs(state: &State) -> usize {
    fs::read_to_string(state.file("runs")).map_or(0, |runs| runs.len())
}

async fn begun(state: &State, agent: &Agent) {
    agent
        .until("it runs", |report| {
            let runs = matches!(report.phase, Phase::Running { .. });
            runs.then_some(())
        })
        .await;
    wait_until_async(SOON, "it has begun", async || match runs(state) {
        1 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
}

#[tokio::test]
async fn system_what_runs_once_is_told_with_its_end_and_not_run_again() {
    let state = State::new(Cgroups::IfPossible);
    let planned = job(&state);
    let mut agent = state.agent(1).await;
    agent.plan(vec![planned.clone()]);
    begun(&state, &agent).await;
    let_it_end(&state);
    assert_eq!(agent.stopped().await, Some(Exit::Code(0)));
    // The same order again, as a control centre says it that has not heard of the end.
    agent.plan(vec![planned]);
    agent.until_the_plan_is_taken().await;
    assert_eq!(agent.stopped().await, Some(Exit::Code(0)));
    assert_eq!(runs(&state), 1);
    agent.end().await;
}

#[tokio::test]
async fn system_what_ran_once_while_no_agent_lived_is_found_with_its_end_and_without_a_plan() {
    let state = State::new(Cgroups::IfPossible);
    let mut first = state.agent(1).await;
    first.plan(vec![job(&state)]);
    begun(&state, &first).await;
    first.end().await;
    let_it_end(&state);
    wait_until_async(SOON, "its end is recorded", async || {
        if state.run().join("exit.json").exists() {
            Ok(())
        } else {
            Err(String::new())
        }
    })
    .await;
    let second = state.agent(2).await;
    assert_eq!(second.stopped().await, Some(Exit::Code(0)));
    assert_eq!(runs(&state), 1);
    second.end().await;
}

#[tokio::test]
async fn system_what_runs_once_and_is_killed_is_not_tried_again() {
    let state = State::new(Cgroups::IfPossible);
    let mut first = state.agent(1).await;
    first.plan(vec![job(&state)]);
    begun(&state, &first).await;
    first.end().await;
    kill(state.shim());
    let second = state.agent(2).await;
    assert_eq!(second.stopped().await, Some(Exit::Lost));
    assert_eq!(runs(&state), 1);
    second.end().await;
}

#[tokio::test]
async fn system_an_attempt_that_does_not_get_healthy_is_ended_and_started_again() {
    let state = State::new(Cgroups::IfPossible);
    let mut planned = web(
        &[
            &program("python3").display().to_string(),
            "-c",
            "import signal; signal.pause()",
        ],
        Check::Tcp,
    );
    planned.spec.health.start = Some(Duration::from_millis(300));
    let mut agent = state.agent(1).await;
    agent.plan(vec![planned]);
    let exit = agent.ended().await;
    assert!(
        matches!(exit, Exit::Unhealthy { for_ms: 300.. }),
        "{exit:?}"
    );
    agent
        .until("it was started again", |report| {
            (report.attempt > Attempt(1)).then_some(())
        })
        .await;
    agent.end().await;
}

#[tokio::test]
async fn system_a_frozen_instance_is_ended_and_its_next_attempt_serves() {
    let state = State::new(Cgroups::IfPossible);
    let mut planned = web(
        &[
            &program("python3").display().to_string(),
            "-m",
            "http.server",
            "PORT",
            "--bind",
            "127.0.0.1",
        ],
        Check::Http(PathPrefix::parse("/").unwrap()),
    );
    planned.spec.health.timeout = Duration::from_millis(300);
    planned.spec.health.restart = Some(Duration::from_millis(500));
    planned.spec.grace = Duration::from_millis(300);
    let mut agent = state.agent(1).await;
    agent.plan(vec![planned]);
    let pid = agent.passing().await;
    let frozen = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(frozen, rustix::process::Signal::STOP).unwrap();
    let exit = agent.ended().await;
    assert!(matches!(exit, Exit::Unhealthy { .. }), "{exit:?}");
    let again = agent
        .until("the next passes", |report| match report.phase {
            Phase::Running {
                pid,
                health: ProbedHealth::Passing,
                ..
            } if report.attempt > Attempt(1) => Some(pid),
            _ => None,
        })
        .await;
    assert_ne!(again, pid);
    agent.end().await;
}
