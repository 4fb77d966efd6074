//! A secret on its whole way: from standard input to a program's environment, and nowhere else.

#![expect(clippy::unwrap_used, reason = "a test")]

mod running;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use mainstay_testkit::{Ended, wait_until};
use running::{MAINSTAY, PATIENCE, Running, kill, python_server, text};
use rustix::process::Signal;

const VALUE: &str = "correct-horse-battery-staple";

/// Runs a command with this on its standard input.
fn with_input(running: &Running, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(MAINSTAY)
        .args(arguments)
        .arg("--state")
        .arg(running.state())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

/// Every file below a directory that holds the text, and how many files there are.
fn search(directory: &Path, needle: &str, found: &mut Vec<PathBuf>) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            count += search(&path, needle, found);
        } else if let Ok(content) = fs::read(&path) {
            count += 1;
            let content = String::from_utf8_lossy(&content).into_owned();
            found.extend(content.contains(needle).then_some(path));
        }
    }
    count
}

/// What a path of the API gives within a while; a stream gives what it has.
fn api(running: &Running, path: &str) -> String {
    let mut stream = UnixStream::connect(running.state().join("api.sock")).unwrap();
    let while_ = Some(Duration::from_millis(500));
    stream.set_read_timeout(while_).unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_millis(1500)
        && let Ok(len @ 1..) = stream.read(&mut buffer)
    {
        answer.extend_from_slice(&buffer[..len]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Serves, and answers with the length of the secret instead of the secret.
fn program() -> String {
    python_server("SECRET = os.environ['DB_PASSWORD']").replace(
        "os.environ[\"MAINSTAY_INSTANCE\"] + \"\\n\"",
        "'%d %s' % (len(SECRET), SECRET[-6:])",
    )
}

const KEYS: &str = "env = { DB_PASSWORD = \"secret:db\" }\nhttp = { path = \"/\" }\n\
    rollout = { hold = \"100ms\" }";

/// Declares the service before and after its secret is there.
fn declare(running: &Running, file: &str) {
    let refused = running.run(&["up", file]);
    let said = text(&refused);
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("secret `db`, which does not exist"), "{said}");
    assert!(said.contains("mainstay secret set db"), "{said}");

    let empty = with_input(running, &["secret", "set", "db"], "\n");
    assert_eq!(empty.status.code(), Some(2), "{}", text(&empty));
    let set = with_input(running, &["secret", "set", "db"], &format!("{VALUE}\n"));
    assert!(set.status.success(), "{}", text(&set));
    let up = running.run(&["up", file]);
    assert!(up.status.success(), "{}", text(&up));
}

/// No command and no answer of the API tells the value; those that should tell of the secret do.
fn nobody_tells(running: &Running, file: &str) {
    let commands: [(&[&str], &str); 10] = [
        (&["status"], "web"),
        (&["status", "--json"], "web"),
        (&["ps", "--json"], "web-"),
        (&["events"], "web"),
        (&["events", "--json"], "web"),
        (&["logs"], ""),
        (&["secret", "ls"], "web"),
        (&["secret", "ls", "--json"], "\"db\""),
        (&["secret", "rm", "db"], "is used by `web`"),
        (&["up", file, "--dry-run", "--json"], "unchanged"),
    ];
    for (command, part) in commands {
        let said = text(&running.run(command));
        assert!(
            said.contains(part) && !said.contains(VALUE),
            "{command:?}: {said}"
        );
    }
    for (path, part) in [
        ("/v1/services/web/spec", "\"DB_PASSWORD\":\"db\""),
        (
            "/v1/watch/plan?node=local&incarnation=1",
            "\"DB_PASSWORD\":\"db\"",
        ),
        ("/v1/events", "web"),
        ("/v1/status", "web"),
        ("/v1/secrets", "\"revision\":1"),
    ] {
        let said = api(running, path);
        assert!(
            said.contains(part) && !said.contains(VALUE),
            "{path}: {said}"
        );
    }
    let said = running.spawned().log();
    assert!(!said.contains(VALUE), "{said}");
}

/// Where a text stands below the state directory, of how many files.
fn in_files(running: &Running, needle: &str) -> (Vec<PathBuf>, usize) {
    let mut found = Vec::new();
    let count = search(running.state(), needle, &mut found);
    (found, count)
}

#[test]
fn system_a_secret_reaches_its_program_and_stands_nowhere_in_clear() {
    let mut running = Running::prepare("secret");
    let file = running.write_service(&program(), KEYS);
    let file = file.to_str().unwrap();
    running.dev(&[]);
    running.wait_for_output("entry  http://");
    declare(&running, file);
    let status = running.wait_until_steady();
    let expected = (200, format!("{} staple", VALUE.len()));
    assert_eq!(Running::get(&status, "/"), expected);
    nobody_tells(&running, file);
    let (found, count) = in_files(&running, VALUE);
    assert_eq!(found, Vec::<PathBuf>::new());
    assert!(count > 8, "only {count} files were looked at");
    // The program gets it in its environment, of which the kernel tells root and its own account.
    let pid = running.instances().unwrap()[0].pid.unwrap();
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(String::from_utf8_lossy(&environment).contains(VALUE));

    // A new value is said to wait, and is taken at the next start, also by another control centre.
    let new = "second-value-of-it-fresher";
    let said = text(&with_input(&running, &["secret", "set", "db"], new));
    assert!(
        said.contains("used by web") && said.contains("next start"),
        "{said}"
    );
    kill(running.own_process("server").unwrap(), Signal::KILL);
    kill(pid, Signal::KILL);
    wait_until(PATIENCE, "the new value is taken", || {
        match Running::get(&status, "/") {
            (200, body) if body == "26 resher" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let (ended, said) = running.stop();
    assert_eq!(ended, Ended::Code(0), "{said}");
    for value in [VALUE, new] {
        assert_eq!(in_files(&running, value).0, Vec::<PathBuf>::new());
    }
}
