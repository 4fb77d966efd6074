//! A full disk: 4 MiB that are really full.

use super::*;
use mainstay_model::StartFailure;
use mainstay_testkit::{is_root, skip};
use std::process::Command;

/// A file system of 4 MiB.
struct Small {
    path: PathBuf,
    _dir: TempDir,
}

impl Small {
    fn new() -> Self {
        let dir = TempDir::new("small");
        let path = dir.join("disk");
        fs::create_dir(&path).unwrap();
        let mount = Command::new(program("mount"))
            .args(["-t", "tmpfs", "-o", "size=4m", "none"])
            .arg(&path)
            .status();
        assert!(mount.unwrap().success());
        Self { path, _dir: dir }
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let mut filler = fs::File::create(self.path.join("filler")).unwrap();
        let block = [0; 4096];
        while std::io::Write::write(&mut filler, &block).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.path.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let unmounted = Command::new(program("umount")).arg(&self.path).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("cannot unmount {}", self.path.display());
        }
    }
}

/// Prints more than a pipe holds in each step, which it counts in a file: a shim that does not read
/// would stop it.
fn chatty(count: &Path) -> PlannedInstance {
    let code = "import os, time\n\
        n = 0\n\
        while True:\n\
        \x20print('x' * 200000); n += 1\n\
        \x20open(os.environ['COUNT'], 'w').write(str(n)); time.sleep(0.02)";
    let mut planned = python(code);
    planned.spec.log = LogSpec {
        size: 500_000,
        keep: 1,
    };
    planned
        .spec
        .env
        .insert("COUNT".into(), template(count.to_str().unwrap()));
    planned
}

#[tokio::test]
async fn system_an_instance_goes_on_when_the_disk_is_full_and_what_was_dropped_is_told() {
    if !is_root() {
        return skip("needs root: mounts a small file system");
    }
    let small = Small::new();
    let state = State::at(&small.path);
    let mut agent = state.agent(1).await;
    let outside = TempDir::new("count");
    let count = outside.join("count");
    for_all(&count);
    let planned = chatty(&count);
    agent.plan(vec![planned.clone()]);
    agent.passing().await;
    small.fill();
    let steps = || {
        fs::read_to_string(&count)
            .ok()
            .and_then(|text| text.parse::<u32>().ok())
            .unwrap_or_default()
    };
    agent
        .until("drops are counted", |report| {
            (report.log_dropped > 0).then_some(())
        })
        .await;
    let before = steps();
    wait_until_async(SOON, "the program goes on", async || {
        if steps() >= before + 10 {
            Ok(())
        } else {
            Err(format!("{before} to {}", steps()))
        }
    })
    .await;
    assert_eq!(agent.instance().unwrap().attempt, Attempt::FIRST);

    small.free();
    wait_until_async(SOON, "the log tells", async || {
        let old = fs::read_to_string(state.file("logs/web-1.log.1")).unwrap_or_default();
        let told = |log: &str| {
            log.lines().any(|line| {
                line.starts_with("mainstay: ")
                    && line.contains(" bytes of output were dropped: No space left")
            })
        };
        if told(&old) || told(&state.log()) {
            Ok(())
        } else {
            Err("no line".to_owned())
        }
    })
    .await;

    small.fill();
    agent.plan(vec![to_stop(planned)]);
    assert_eq!(
        agent.stopped().await,
        Some(Exit::Signal(15)),
        "the end is recorded on a full disk"
    );
    agent.end().await;
}

#[tokio::test]
async fn system_an_instance_that_cannot_be_written_down_is_told_and_started_once_it_can() {
    if !is_root() {
        return skip("needs root: mounts a small file system");
    }
    let small = Small::new();
    let state = State::at(&small.path);
    let mut agent = state.agent(1).await;
    small.fill();
    agent.plan(vec![python("import signal; signal.pause()")]);
    assert_eq!(
        agent.ended().await,
        Exit::NotStarted(StartFailure::StateDirectory)
    );
    small.free();
    agent.passing().await;
    agent.end().await;
}

/// There is room for what the agent writes, and none for the shim's reserve.
#[tokio::test]
async fn system_a_shim_that_cannot_reserve_its_room_tells_it_and_starts_nothing() {
    if !is_root() {
        return skip("needs root: mounts a small file system");
    }
    let small = Small::new();
    let state = State::at(&small.path);
    fs::create_dir_all(state.run()).unwrap();
    fs::create_dir_all(state.file("logs")).unwrap();
    let mut agent = state.agent(1).await;
    // The reserve of three files needs three pages, the specification and its successor two.
    let room = small.path.join("room");
    fs::write(&room, [0; 3 * 4096]).unwrap();
    small.fill();
    fs::remove_file(&room).unwrap();
    agent.plan(vec![python("print('started')")]);
    assert_eq!(
        agent.ended().await,
        Exit::NotStarted(StartFailure::StateDirectory)
    );
    assert!(!state.log().contains("started"), "{}", state.log());
    agent.end().await;
}
