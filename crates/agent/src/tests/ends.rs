//! How attempts end, and that nothing of them is left.

use super::*;
use mainstay_model::StartFailure;
use mainstay_testkit::{is_root, skip};

/// Prints the number of a grandchild that left the group, the session and its parent, and goes on
/// once that is done.
const LEAVES_A_GRANDCHILD: &str = "import os, signal, sys\n\
    ready, done = os.pipe()\n\
    if os.fork() == 0:\n\
    \x20os.setsid()\n\
    \x20if os.fork() == 0:\n\
    \x20\x20os.write(1, b'grandchild %d\\n' % os.getpid()); os.write(done, b'.')\n\
    \x20\x20signal.pause()\n\
    \x20os._exit(0)\n\
    os.wait(); os.read(ready, 1)\n";

/// The numbers that were printed, once there is one.
async fn grandchildren(state: &State) -> Vec<u32> {
    wait_until_async(SOON, "the grandchild lives", async || {
        let log = state.log();
        let found: Vec<u32> = log
            .lines()
            .filter_map(|line| line.strip_prefix("grandchild ")?.parse().ok())
            .collect();
        if found.is_empty() {
            Err(log)
        } else {
            Ok(found)
        }
    })
    .await
}

#[tokio::test]
async fn system_codes_and_signals_are_told_and_the_instance_is_started_again() {
    for (code, exit) in [
        ("import sys; sys.exit(3)", Exit::Code(3)),
        ("import os; os.kill(os.getpid(), 11)", Exit::Signal(11)),
    ] {
        let state = State::new(Cgroups::IfPossible);
        let mut agent = state.agent(1).await;
        agent.plan(vec![python(code)]);
        assert_eq!(agent.ended().await, exit);
        agent
            .until("it was started three times", |report| {
                (report.attempt >= Attempt(3)).then_some(())
            })
            .await;
        assert_eq!(agent.instance().unwrap().last_exit, Some(exit));
        agent.end().await;
        assert!(state.log().contains("web-1 attempt 2 "), "{}", state.log());
    }
}

#[tokio::test]
async fn system_what_cannot_be_started_is_told_with_its_reason() {
    let dir = TempDir::new("programs");
    let file = |name: &str, content: &str, mode| {
        fs::write(dir.join(name), content).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
        dir.join(name).to_str().unwrap().to_owned()
    };
    let mut cases = vec![
        (
            web(&["/no/such/program"], Check::Tcp),
            StartFailure::ProgramNotFound,
        ),
        (
            web(&["mainstay-no-such-program"], Check::Tcp),
            StartFailure::ProgramNotFound,
        ),
        (
            web(&[&file("plain", "text", 0o644)], Check::Tcp),
            StartFailure::ProgramNotExecutable,
        ),
        (
            web(&[&file("text", "text", 0o755)], Check::Tcp),
            StartFailure::NotAProgram,
        ),
        (
            web(&[&file("script", "#!/no/such/shell\n", 0o755)], Check::Tcp),
            StartFailure::NotAProgram,
        ),
    ];
    let mut no_directory = python("pass");
    no_directory.spec.dir = "/no/such/directory".into();
    cases.push((no_directory, StartFailure::Directory));
    let mut no_user = python("pass");
    no_user.spec.user = Some("mainstay-nobody".into());
    cases.push((no_user, StartFailure::User));
    for (planned, failure) in cases {
        let state = State::new(Cgroups::IfPossible);
        let mut agent = state.agent(1).await;
        agent.plan(vec![planned]);
        assert_eq!(agent.ended().await, Exit::NotStarted(failure));
        assert!(
            state.log().contains("web-1 attempt 1 was not started: "),
            "{}",
            state.log()
        );
        agent.end().await;
    }
}

async fn what_is_left_behind_is_killed(cgroups: Cgroups) {
    let state = State::new(cgroups);
    let mut agent = state.agent(1).await;
    agent.plan(vec![python(&format!("{LEAVES_A_GRANDCHILD}sys.exit(5)"))]);
    assert_eq!(agent.ended().await, Exit::Code(5));
    // The end is told only when nothing is left, and the program is started again after that.
    let first = grandchildren(&state).await[0];
    assert!(!is_alive(first));
    agent.end().await;
}

#[tokio::test]
async fn system_grandchildren_that_are_left_behind_are_killed_by_their_cgroup() {
    if !is_root() {
        return skip("needs root: makes cgroups");
    }
    what_is_left_behind_is_killed(Cgroups::IfPossible).await;
}

#[tokio::test]
async fn system_grandchildren_that_are_left_behind_are_killed_without_cgroups() {
    what_is_left_behind_is_killed(Cgroups::None).await;
}

async fn a_killed_shim_leaves_nothing(cgroups: Cgroups) {
    let state = State::new(cgroups);
    let mut agent = state.agent(1).await;
    agent.plan(vec![python(&format!(
        "{LEAVES_A_GRANDCHILD}signal.pause()"
    ))]);
    let pid = agent.passing().await;
    let grandchild = grandchildren(&state).await[0];
    kill(state.shim());
    assert_eq!(agent.ended().await, Exit::Lost);
    assert!(!is_alive(pid) && !is_alive(grandchild));
    let again = agent.passing().await;
    assert_ne!(again, pid);
    agent.end().await;
}

#[tokio::test]
async fn system_a_killed_shim_leaves_nothing_in_its_cgroup() {
    if !is_root() {
        return skip("needs root: makes cgroups");
    }
    a_killed_shim_leaves_nothing(Cgroups::IfPossible).await;
}

#[tokio::test]
async fn system_a_killed_shim_leaves_nothing_without_cgroups() {
    a_killed_shim_leaves_nothing(Cgroups::None).await;
}

/// The shim and the program under another account, as if an ordinary user ran Mainstay.
#[tokio::test]
async fn system_an_ordinary_users_shim_leaves_nothing_behind() {
    if !is_root() {
        return skip("needs root: runs a shim under another account");
    }
    let mut state = State::new(Cgroups::None);
    let shim = state.file("shim");
    fs::copy(shim_program(), &shim).unwrap();
    state.shim = ShimProgram {
        program: Some(program("setpriv")),
        arguments: [
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            shim.to_str().unwrap(),
        ]
        .map(String::from)
        .to_vec(),
    };
    for directory in [state.run(), state.file("logs")] {
        fs::create_dir_all(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let mut agent = state.agent(1).await;
    agent.plan(vec![python(&format!(
        "{LEAVES_A_GRANDCHILD}print('user', os.getuid()); sys.exit(5)"
    ))]);
    assert_eq!(agent.ended().await, Exit::Code(5), "{}", state.log());
    assert!(state.log().contains("user 65534"), "{}", state.log());
    assert!(!is_alive(grandchildren(&state).await[0]));
    agent.end().await;
}

#[tokio::test]
async fn system_a_program_that_ignores_sigterm_is_killed_after_its_grace_and_not_before() {
    let state = State::new(Cgroups::IfPossible);
    let mut agent = state.agent(1).await;
    let mut planned = python(
        "import signal; signal.signal(15, lambda *_: print('asked')); print('ready')\nwhile True: signal.pause()",
    );
    planned.spec.grace = Duration::from_millis(500);
    agent.plan(vec![planned.clone()]);
    let pid = agent.passing().await;
    wait_until_async(SOON, "it is ready", async || {
        if state.log().contains("ready") {
            Ok(())
        } else {
            Err(state.log())
        }
    })
    .await;
    let asked = std::time::Instant::now();
    agent.plan(vec![to_stop(planned)]);
    agent
        .until("it is stopping", |report| {
            (report.phase == Phase::Stopping { pid }).then_some(())
        })
        .await;
    assert_eq!(agent.stopped().await, Some(Exit::Signal(9)));
    assert!(asked.elapsed() >= Duration::from_millis(500));
    assert!(state.log().contains("asked"), "{}", state.log());
    agent.end().await;
}
