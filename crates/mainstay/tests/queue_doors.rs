//! Who gets to the broker of a node: by TLS, as its file says; and who does not get to its directory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod running;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use mainstay_testkit::{Authority, Pair, free_port, program, wait_until};
use running::{MAINSTAY, PATIENCE, Running, kill, text};
use rustix::process::Signal;

/// A node with nothing but a broker with TLS.
struct Node {
    running: Running,
    authority: Authority,
    port: u16,
    file: PathBuf,
}

impl Node {
    /// Its file and its certificate; nothing runs yet.
    fn prepare(name: &str) -> Self {
        let running = Running::prepare(name);
        let authority = Authority::new("of the broker");
        running.write("ca.pem", &authority.certificate());
        let port = free_port();
        let file = running.write(
            "node.toml",
            &format!(
                "roles = ['broker']\nstate = '{}'\n[broker]\nbind = '127.0.0.1:{}'\n[broker.tls]\nbind = '127.0.0.1:{port}'\n\
                 certificate = 'broker.crt'\nkey = 'broker.key'\n",
                running.state().display(),
                free_port()
            ),
        );
        let node = Self {
            running,
            authority,
            port,
            file,
        };
        node.write(&node.authority.issue("localhost"));
        node
    }

    fn write(&self, pair: &Pair) {
        self.running.write("broker.crt", &pair.certificate);
        self.running.write("broker.key", &pair.key);
    }

    /// Publishes and consumes by TLS.
    fn serves(&self) -> Result<(), String> {
        let pika = program("/usr/lib/python3/dist-packages/pika/__init__.py");
        assert!(pika.exists());
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../broker/tests/clients/programs/tls.py");
        let output = Command::new(program("/usr/bin/python3"))
            .args(["-B", "-u"])
            .arg(script)
            .arg(self.port.to_string())
            .arg(self.running.dir.join("ca.pem"))
            .output()
            .unwrap();
        match text(&output).trim() {
            "done" => Ok(()),
            other => Err(other.to_owned()),
        }
    }

    fn status(&self) -> Result<String, String> {
        let output = self.running.run(&["queue", "status"]);
        if output.status.success() {
            Ok(text(&output))
        } else {
            Err(text(&output))
        }
    }

    fn says(&self, what: &str) {
        wait_until(PATIENCE, what, || {
            let said = self.status()?;
            if said.contains(what) {
                Ok(())
            } else {
                Err(said)
            }
        });
    }
}

#[test]
fn system_a_node_serves_tls_and_its_port_outlives_a_killed_broker() {
    let mut node = Node::prepare("doors-tls");
    let file = node.file.clone();
    node.running.node(&file, &[]);
    wait_until(PATIENCE, "clients come in by TLS", || node.serves());
    node.says("of which 0 with TLS");
    let client = std::net::TcpStream::connect(("127.0.0.1", node.port)).unwrap();
    let before = node.running.own_process("broker").unwrap();
    kill(before, Signal::KILL);
    // The supervisor holds this socket, too.
    wait_until(PATIENCE, "clients come in again", || node.serves());
    drop(client);
    assert_ne!(node.running.own_process("broker"), Some(before));
    // A renewal that went wrong is told, and one that went right is taken.
    let next = node.authority.issue("localhost");
    node.running.write("broker.crt", &next.certificate);
    node.says("is not the key of the certificate");
    node.serves().unwrap();
    // A start is not the time to begin with it: the file is told, with its place.
    let output = Command::new(MAINSTAY)
        .arg("validate")
        .arg(&file)
        .output()
        .unwrap();
    let said = text(&output);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("node.toml:8:7") && said.contains("broker.tls.key"),
        "{said}"
    );
    assert!(
        said.contains("broker.crt") && said.contains("broker.key"),
        "{said}"
    );
    node.write(&next);
    wait_until(PATIENCE, "nothing is wrong any more", || {
        let said = node.status()?;
        if said.contains("not the key") {
            Err(said)
        } else {
            Ok(())
        }
    });
    node.serves().unwrap();
    node.running.stop();
}

#[test]
fn system_a_certificate_that_cannot_be_used_is_told_with_its_line_before_anything_starts() {
    let mut node = Node::prepare("doors-wrong");
    fs::remove_file(node.running.dir.join("broker.crt")).unwrap();
    let file = node.file.clone();
    node.running.node(&file, &[]);
    let ended = node.running.spawned().wait(PATIENCE);
    let said = node.running.spawned().log();
    assert_ne!(ended, mainstay_testkit::Ended::Code(0), "{said}");
    assert!(
        said.contains("node.toml:7:15") && said.contains("broker.tls.certificate"),
        "{said}"
    );
    assert!(
        said.contains("No such file") && said.contains("check the path"),
        "{said}"
    );
    assert_eq!(node.running.own_process("broker"), None);
}

/// The broker of a node without anything else.
fn plain(name: &str) -> (Running, PathBuf) {
    let running = Running::prepare(name);
    let file = running.write(
        "node.toml",
        &format!(
            "roles = ['broker']\nstate = '{}'\n[broker]\nbind = '127.0.0.1:{}'\n",
            running.state().display(),
            free_port()
        ),
    );
    (running, file)
}

fn publish(running: &Running) {
    wait_until(PATIENCE, "the broker answers", || {
        let output = running.run(&["queue", "declare", "work"]);
        if output.status.success() {
            Ok(())
        } else {
            Err(text(&output))
        }
    });
    let output = running.run(&["queue", "publish", "work", "--body", "kept"]);
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn system_nobody_else_gets_to_the_directory_of_a_broker_that_runs() {
    let (mut running, file) = plain("doors-second");
    running.node(&file, &[]);
    publish(&running);
    // Another node on it, which would listen elsewhere.
    let other = fs::read_to_string(&file).unwrap();
    let (head, _) = other.split_once("bind").unwrap();
    let other = running.write(
        "other.toml",
        &format!("{head}bind = '127.0.0.1:{}'\n", free_port()),
    );
    let output = Command::new(MAINSTAY)
        .args(["run", "--config"])
        .arg(&other)
        .output()
        .unwrap();
    let said = text(&output);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains(&*running.state().to_string_lossy()), "{said}");
    // And a reader of its log.
    let output = running.run(&["queue", "fsck"]);
    let said = text(&output);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("another broker uses"), "{said}");
    let output = running.run(&["queue", "peek", "work"]);
    assert!(text(&output).contains("kept"), "{}", text(&output));
    running.stop();
}

#[test]
fn system_a_log_of_a_newer_version_is_refused_and_left_as_it_is() {
    let (mut running, file) = plain("doors-newer");
    running.node(&file, &[]);
    publish(&running);
    running.stop();
    let log = running.state().join("broker/log");
    let segments: Vec<PathBuf> = fs::read_dir(&log)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| fs::read(path).is_ok_and(|bytes| bytes.len() > 40 && bytes[0] != 0))
        .collect();
    assert!(!segments.is_empty());
    // The format stands behind eight bytes that say what it is.
    let before: Vec<Vec<u8>> = segments
        .iter()
        .map(|path| {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&99u32.to_le_bytes(), 8).unwrap();
            fs::read(path).unwrap()
        })
        .collect();
    running.node(&file, &[]);
    // Told where people look, not only in its log.
    running.wait_for_output("the newer program that wrote it");
    running.wait_for_output("format 99");
    let output = running.run(&["queue", "fsck"]);
    assert!(text(&output).contains("format 99"), "{}", text(&output));
    running.stop();
    for (path, before) in segments.iter().zip(before) {
        assert_eq!(fs::read(path).unwrap(), before, "{}", path.display());
    }
}
