use super::*;
use mainstay_testkit::{TempDir, is_root, skip, wait_until};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// Kills and reaps what a test started.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.handle().signal(Signal::KILL);
        let _ = waitpid(raw_pid(self.0.pid()), WaitOptions::empty());
    }
}

impl Guard {
    fn wait(&self) -> Ended {
        wait_until(SOON, "the child ends", || {
            self.0
                .try_reap()
                .unwrap()
                .ok_or_else(|| "it runs".to_owned())
        })
    }
}

fn python(code: &str) -> Spawn<'_> {
    Spawn::new(mainstay_testkit::program("python3")).arguments(["-c", code])
}

/// What `spawn` prints until it ends.
fn printed(spawn: Spawn<'_>) -> String {
    let dir = TempDir::new("spawn");
    let file = File::create(dir.join("out")).unwrap();
    let child = Guard(spawn.output(file.as_fd()).start().unwrap());
    child.wait();
    fs::read_to_string(dir.join("out")).unwrap()
}

fn failure(spawn: Spawn<'_>) -> (Step, i32) {
    match spawn.start() {
        Err(SpawnError::Step { step, source, .. }) => (step, source.raw_os_error().unwrap()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn system_a_child_gets_what_was_said_and_nothing_else() {
    let dir = TempDir::new("spawn");
    let (read, _write) = rustix::pipe::pipe().unwrap(); // without CLOEXEC, as other people's code does
    let code = "import os, signal\n\
                print(sorted(os.environ.items()), os.getcwd(), sorted(map(int, os.listdir('/proc/self/fd')))[:-1], \
                os.getpgrp() == os.getpid(), signal.pthread_sigmask(signal.SIG_BLOCK, []))";
    let seen = printed(
        python(code)
            .variable("A", "b c")
            .variable("LC_ALL", "C")
            .directory(dir.path())
            .pass("entry", read.as_fd())
            .place(Place::OwnGroup),
    );
    let expected = format!(
        "[('A', 'b c'), ('LC_ALL', 'C'), ('MAINSTAY_FDS', 'entry=3')] {} [0, 1, 2, 3] True set()\n",
        dir.path().canonicalize().unwrap().display()
    );
    assert_eq!(seen, expected);
}

#[test]
fn system_an_ignored_signal_of_the_parent_is_not_ignored_in_the_child() {
    // The Rust runtime ignores SIGPIPE in this process.
    let code =
        "print([l for l in open('/proc/self/status') if l.startswith('SigIgn')][0].split()[1])";
    let ignored = u64::from_str_radix(printed(python(code)).trim(), 16).unwrap();
    // Python itself ignores SIGPIPE and SIGXFSZ.
    let pythons_own = (1 << (libc::SIGPIPE - 1)) | (1 << (libc::SIGXFSZ - 1));
    assert_eq!(ignored & !pythons_own, 0);
}

#[test]
fn system_a_program_that_cannot_be_executed_is_told_with_its_reason() {
    let dir = TempDir::new("spawn");
    let file = |name: &str, content: &str, mode| {
        fs::write(dir.join(name), content).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
        Spawn::new(dir.join(name))
    };
    assert_eq!(
        failure(Spawn::new(dir.join("none"))),
        (Step::Program, libc::ENOENT)
    );
    assert_eq!(
        failure(Spawn::new("mainstay-no-such-program")),
        (Step::Program, libc::ENOENT)
    );
    assert_eq!(
        failure(file("plain", "text", 0o644)),
        (Step::Program, libc::EACCES)
    );
    assert_eq!(
        failure(file("text", "text", 0o755)),
        (Step::Program, libc::ENOEXEC)
    );
    assert_eq!(
        failure(Spawn::new("plain").variable("PATH", dir.path())),
        (Step::Program, libc::EACCES)
    );
    assert_eq!(
        failure(
            Spawn::new("true")
                .variable("PATH", "/usr/bin:/bin")
                .directory("/none")
        ),
        (Step::Directory, libc::ENOENT)
    );
    assert!(matches!(
        Spawn::new("true").argument("a\0b").start(),
        Err(SpawnError::Nul { .. })
    ));
}

#[test]
fn system_a_child_runs_under_the_account_that_was_said() {
    let nobody = Account {
        uid: 65_534,
        gid: 65_534,
        groups: vec![65_534, 12],
        home: "/".into(),
    };
    let spawn = python("import os; print(os.getresuid(), os.getresgid(), sorted(os.getgroups()))")
        .account(nobody);
    if is_root() {
        let id = 65_534;
        assert_eq!(
            printed(spawn),
            format!("({id}, {id}, {id}) ({id}, {id}, {id}) [12, {id}]\n")
        );
    } else {
        assert_eq!(failure(spawn), (Step::User, libc::EPERM));
    }
}

#[test]
fn system_a_directory_is_entered_as_the_account() {
    if !is_root() {
        return skip("needs root: switches to another account");
    }
    let dir = TempDir::new("spawn");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let nobody = Account {
        uid: 65_534,
        gid: 65_534,
        groups: vec![65_534],
        home: "/".into(),
    };
    assert_eq!(
        failure(python("").account(nobody).directory(dir.path())),
        (Step::Directory, libc::EACCES)
    );
}

#[test]
fn system_a_directory_of_path_that_may_not_be_entered_is_passed_over() {
    if !is_root() {
        return skip("needs root: switches to another account");
    }
    let dir = TempDir::new("spawn");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let nobody = Account {
        uid: 65_534,
        gid: 65_534,
        groups: vec![65_534],
        home: "/".into(),
    };
    let spawn = Spawn::new("mainstay-no-such-program")
        .variable("PATH", dir.path().join("x:/bin"))
        .account(nobody.clone());
    assert_eq!(failure(spawn), (Step::Program, libc::ENOENT));
    let spawn = Spawn::new(dir.join("program")).account(nobody);
    assert_eq!(failure(spawn), (Step::Program, libc::EACCES));
}

#[test]
fn system_a_child_that_ends_with_its_parent_is_killed_when_the_parent_thread_ends() {
    for (life, expected) in [
        (Life::EndsWithParent, Some(Ended::Signal(9))),
        (Life::OfItsOwn, None),
    ] {
        let child = std::thread::spawn(move || {
            Guard(
                python("import signal; signal.pause()")
                    .life(life)
                    .start()
                    .unwrap(),
            )
        });
        let child = child.join().unwrap();
        match expected {
            Some(ended) => assert_eq!(child.wait(), ended),
            None => assert!(!child.0.handle().has_ended().unwrap()),
        }
    }
}

#[test]
fn a_program_with_a_slash_is_seen_from_its_directory_and_a_bare_name_is_not() {
    let at = |program| resolve(program, Path::new("/srv/shop"));
    assert_eq!(at("./orders"), Path::new("/srv/shop/./orders"));
    assert_eq!(at("/bin/true"), Path::new("/bin/true"));
    assert_eq!(at("python3"), Path::new("python3"));
}
