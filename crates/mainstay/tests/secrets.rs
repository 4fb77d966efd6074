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
use running::{MAINSTAY, PATIENCE, Running, python_server, text};

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

#[test]
fn system_a_secret_reaches_its_program_and_stands_nowhere_in_clear() {
    let mut running = Running::prepare("secret");
    let file = running.write_service(&program(), KEYS);
    let file = file.to_str().unwrap();
    running.dev(&[]);
    running.wait_for_output("entry  http://");

    let refused = running.run(&["up", file]);
    let said = text(&refused);
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("secret `db`, which does not exist"), "{said}");
    assert!(said.contains("mainstay secret set db"), "{said}");

    let empty = with_input(&running, &["secret", "set", "db"], "\n");
    assert_eq!(empty.status.code(), Some(2), "{}", text(&empty));
    let set = with_input(&running, &["secret", "set", "db"], &format!("{VALUE}\n"));
    assert!(set.status.success(), "{}", text(&set));
    let up = running.run(&["up", file]);
    assert!(up.status.success(), "{}", text(&up));
    let status = running.wait_until_steady();
    let answer = Running::get(&status, "/");
    let expected = (200, format!("{} staple", VALUE.len()));
    assert_eq!(answer, expected);

    let mut said = Vec::new();
    for command in [
        &["status"][..],
        &["status", "--json"],
        &["ps", "--json"],
        &["events"],
        &["events", "--json"],
        &["logs"],
        &["secret", "ls"],
        &["secret", "ls", "--json"],
        &["secret", "rm", "db"],
        &["up", file, "--dry-run", "--json"],
    ] {
        said.push(text(&running.run(command)));
    }
    for path in [
        "/v1/services/web/spec",
        "/v1/watch/plan?node=local&incarnation=1",
        "/v1/events",
        "/v1/status",
        "/v1/secrets",
    ] {
        let answer = api(&running, path);
        assert!(answer.contains(" 200 "), "{path}: {answer}");
        said.push(answer);
    }
    assert!(
        said[11].contains("\"db\""),
        "the plan refers to it: {}",
        said[11]
    );
    said.push(running.spawned().log());
    for said in &said {
        assert!(!said.contains(VALUE), "{said}");
    }
    assert!(
        said[6].contains("db") && said[6].contains("web"),
        "{}",
        said[6]
    );
    assert!(said[8].contains("is used by `web`"), "{}", said[8]);
    // The program gets it in its environment, of which the kernel tells root and its own account.
    let pid = running.instances().unwrap()[0].pid.unwrap();
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(String::from_utf8_lossy(&environment).contains(VALUE));

    let mut found = Vec::new();
    let count = search(running.state(), VALUE, &mut found);
    assert_eq!(found, Vec::<PathBuf>::new());
    assert!(count > 8, "only {count} files were looked at");

    // A new value is said to wait, and is taken at the next start, also by another control centre.
    let set = with_input(
        &running,
        &["secret", "set", "db"],
        "second-value-of-it-fresher",
    );
    let said = text(&set);
    assert!(
        said.contains("used by web") && said.contains("next start"),
        "{said}"
    );
    running::kill(
        running.own_process("server").unwrap(),
        rustix::process::Signal::KILL,
    );
    running::kill(pid, rustix::process::Signal::KILL);
    wait_until(PATIENCE, "the new value is taken", || {
        match Running::get(&status, "/") {
            (200, body) if body == "26 resher" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let (ended, said) = running.stop();
    assert_eq!(ended, Ended::Code(0), "{said}");
    let mut found = Vec::new();
    search(running.state(), VALUE, &mut found);
    search(running.state(), "second-value", &mut found);
    assert_eq!(found, Vec::<PathBuf>::new());
}
