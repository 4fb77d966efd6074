//! The programs of `examples/any-program` as they are run there.

#![expect(
    clippy::unwrap_used,
    reason = "what speaks to the programs here belongs to the tests"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mainstay_testkit::{Ended, Spawned, TempDir, free_port, program, wait_until};
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(20);

fn page(port: u16) -> Result<String, String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
        .write_all(b"GET / HTTP/1.0\r\nhost: site\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .map_err(|error| error.to_string())?;
    Ok(answer)
}

fn run_nginx(dir: &TempDir, port: u16) -> Spawned {
    program("nginx");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../any-program");
    let mut command = Command::new(examples.join("run-nginx"));
    command.args(["127.0.0.1", &port.to_string(), "site"]);
    let nginx = Spawned::start(
        dir,
        "nginx",
        command.current_dir(examples).env("TMPDIR", dir.path()),
    );
    let answer = wait_until(SOON, "nginx answers", || page(port));
    assert!(
        answer.contains(" 200 ") && answer.contains("Kept available"),
        "{answer}"
    );
    nginx
}

fn own_directories(dir: &TempDir) -> usize {
    let names = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with("run-nginx."))
        .count()
}

#[test]
fn system_nginx_serves_from_a_port_of_its_own_and_leaves_nothing_behind() {
    let dir = TempDir::new("nginx");
    let killed = run_nginx(&dir, free_port());
    killed.signal(Signal::KILL);
    drop(killed);
    assert_eq!(own_directories(&dir), 1, "a killed script cannot clean up");
    let (first, second) = (run_nginx(&dir, free_port()), run_nginx(&dir, free_port()));
    assert_eq!(own_directories(&dir), 2, "the next ones do it");
    for nginx in [first, second] {
        nginx.signal(Signal::TERM);
        assert_eq!(nginx.wait(SOON), Ended::Code(0), "{}", nginx.log());
    }
    assert_eq!(own_directories(&dir), 0);
}
