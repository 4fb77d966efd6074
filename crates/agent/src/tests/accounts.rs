//! Under which account instances run, and what they may not do there.

use super::*;
use mainstay_kernel::Account;
use mainstay_model::StartFailure;
use mainstay_testkit::{is_root, skip};

/// Prints who it is and what it has, and stays.
const SAYS_WHO: &str = "import os, signal\n\
    umask = os.umask(0)\n\
    status = open('/proc/self/status').read()\n\
    field = lambda name: status.split(name + ':')[1].split('\\n')[0].split()\n\
    print('uid', os.getuid(), 'groups', os.getgroups(), 'umask', oct(umask), 'home', os.environ['HOME'])\n\
    print('rights', field('NoNewPrivs')[0], 'capabilities', field('CapEff')[0])\n\
    signal.pause()";

async fn says(planned: PlannedInstance) -> String {
    let state = State::new(Cgroups::IfPossible);
    let mut agent = state.agent(1).await;
    agent.plan(vec![planned]);
    let log = wait_until_async(SOON, "it has told", async || match state.log() {
        log if log.contains("capabilities") => Ok(log),
        log => Err(log),
    })
    .await;
    agent.end().await;
    log
}

#[tokio::test]
async fn system_as_root_a_service_without_user_runs_without_any_right() {
    if !is_root() {
        return skip("needs root: only root has another account to choose");
    }
    let own = Account::find("mainstay-services").unwrap();
    let nobody = Account::find("nobody").unwrap().unwrap();
    let account = own.unwrap_or(nobody);
    let said = says(python(SAYS_WHO)).await;
    let who = format!(
        "uid {} groups {:?} umask 0o22 home {}\n",
        account.uid,
        account.groups,
        account.home.display()
    );
    assert!(said.contains(&who), "{who} in {said}");
    assert!(
        said.contains("rights 1 capabilities 0000000000000000"),
        "{said}"
    );
}

#[tokio::test]
async fn system_root_is_only_who_is_written_as_root() {
    if !is_root() {
        return skip("needs root: runs as root");
    }
    let mut planned = python(SAYS_WHO);
    planned.spec.user = Some("root".into());
    let said = says(planned).await;
    assert!(
        said.contains("uid 0 groups [0] umask 0o22") && said.contains("rights 0 "),
        "{said}"
    );
}

#[tokio::test]
async fn system_the_files_of_mainstay_are_shut_for_an_instance() {
    if !is_root() {
        return skip("needs root: instances of an ordinary user are that user");
    }
    let state = State::new(Cgroups::IfPossible);
    let mut agent = state.agent(1).await;
    let code = format!(
        "import os\n\
         for path in ['run', 'run/web-1/spec.json']:\n\
         \x20try: os.stat(os.path.join({:?}, path + '/.')); print('saw', path)\n\
         \x20except OSError as error: print('shut', path, error.errno)\n\
         \x20try: open(os.path.join({0:?}, path)); print('saw', path)\n\
         \x20except OSError as error: print('shut', path, error.errno)\n\
         import signal; signal.pause()",
        state.path
    );
    agent.plan(vec![python(&code)]);
    let log = wait_until_async(SOON, "it has tried", async || match state.log() {
        log if log.matches("run/web-1/spec.json").count() == 2 => Ok(log),
        log => Err(log),
    })
    .await;
    assert!(!log.contains("saw"), "{log}");
    assert!(log.contains("shut run 13"), "{log}");
    agent.end().await;
}

#[tokio::test]
async fn system_what_the_default_account_cannot_reach_is_told_with_the_directory_in_the_way() {
    if !is_root() {
        return skip("needs root: only root has another account to choose");
    }
    let dir = TempDir::new("shut");
    let shut = dir.join("home");
    fs::create_dir(&shut).unwrap();
    let program = shut.join("program");
    fs::write(&program, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o700)).unwrap();
    let below = shut.to_str().unwrap();
    let path = program.to_str().unwrap();
    let always = Check::Exec(vec![Template::parse("/bin/true").unwrap()]);

    let by_path = web(&[path], always.clone());
    let mut by_name = web(&["program"], always.clone());
    let variable = format!("{below}:/usr/bin:/bin");
    by_name
        .spec
        .env
        .insert("PATH".into(), Template::parse(&variable).unwrap());
    let mut in_directory = python("pass");
    in_directory.spec.dir = below.into();
    for planned in [by_path.clone(), by_name, in_directory] {
        let state = State::new(Cgroups::IfPossible);
        let mut agent = state.agent(1).await;
        agent.plan(vec![planned]);
        assert_eq!(
            agent.ended().await,
            Exit::NotStarted(StartFailure::ShutOut),
            "{}",
            state.log()
        );
        let told = format!("may not enter `{below}`");
        assert!(state.log().contains(&told), "{}", state.log());
        agent.end().await;
    }
    // Who says which account is told what that one meets, and root meets nothing.
    for (user, starts) in [("nobody", false), ("root", true)] {
        let state = State::new(Cgroups::IfPossible);
        let mut agent = state.agent(1).await;
        let mut planned = by_path.clone();
        planned.spec.user = Some(user.into());
        agent.plan(vec![planned]);
        if starts {
            agent.passing().await;
        } else {
            let failure = Exit::NotStarted(StartFailure::ProgramNotExecutable);
            assert_eq!(agent.ended().await, failure);
        }
        agent.end().await;
    }
}
