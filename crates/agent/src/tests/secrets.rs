//! Secrets on their way to a program, from a control centre of a few lines: real HTTP on a real unix
//! socket. The whole way is tested with the binary.

use super::*;
use mainstay_ids::SecretName;
use mainstay_model::StartFailure;
use mainstay_model::report::CrashLooping;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;

const VALUE: &str = "correct horse battery staple";

/// Answers every call with this status and body, until it is dropped.
struct Centre(JoinHandle<()>);

impl Centre {
    fn start(state: &State, status: &str, body: &str) -> Self {
        let socket = state.file("api.sock");
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(socket).unwrap();
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Self(tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                assert_eq!(line, "GET /v1/secrets/db/value HTTP/1.1\r\n");
                while line != "\r\n" {
                    line.clear();
                    stream.read_line(&mut line).await.unwrap();
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }))
    }

    fn with_value(state: &State) -> Self {
        Self::start(state, "200 OK", &format!("{{\"value\":\"{VALUE}\"}}"))
    }

    fn refuses(state: &State, status: &str, code: &str) -> Self {
        let body = format!("{{\"code\":\"{code}\",\"message\":\"no\",\"remedy\":\"mend it\"}}");
        Self::start(state, status, &body)
    }
}

impl Drop for Centre {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Prints the length of the value, and what else of it can be told without it.
fn with_secret() -> PlannedInstance {
    let code = "import os, signal\n\
                value = os.environ['DB_PASSWORD']\n\
                print('got', len(value), value.split()[1]); signal.pause()";
    let mut planned = python(code);
    let name = SecretName::parse("db").unwrap();
    planned.spec.secrets.insert("DB_PASSWORD".into(), name);
    planned
}

/// Every file below a directory that holds the text.
fn holding(directory: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else if let Ok(content) = fs::read(&path) {
            let content = String::from_utf8_lossy(&content).into_owned();
            found.extend(content.contains(text).then_some(path));
        }
    }
    found
}

#[tokio::test]
async fn system_a_program_gets_its_secret_and_no_file_of_the_agent_does() {
    let state = State::new(Cgroups::IfPossible);
    let centre = Centre::with_value(&state);
    let mut agent = state.agent(1).await;
    agent.plan(vec![with_secret()]);
    let pid = agent.passing().await;
    let told = format!("got {} horse", VALUE.len());
    wait_until_async(SOON, "it has told", async || match state.log() {
        log if log.contains(&told) => Ok(()),
        log => Err(log),
    })
    .await;
    assert_eq!(holding(&state.path, VALUE), Vec::<PathBuf>::new());
    let spec = state.run().join("spec.json");
    let referring = holding(&state.path, "DB_PASSWORD");
    assert!(referring.contains(&spec), "{referring:?}");
    // Neither the shim's environment nor what it was started with.
    let shim = state.shim();
    for file in ["environ", "cmdline"] {
        let text = fs::read(format!("/proc/{shim}/{file}")).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains(VALUE));
    }
    let descriptors = fs::read_dir(format!("/proc/{shim}/fd")).unwrap();
    for descriptor in descriptors.flatten() {
        let target = fs::read_link(descriptor.path()).unwrap_or_default();
        assert!(!target.to_string_lossy().contains("memfd"), "{target:?}");
    }
    // Its next start takes what is there then.
    drop(centre);
    let _centre = Centre::start(&state, "200 OK", "{\"value\":\"another one\"}");
    kill(pid);
    wait_until_async(SOON, "the new value", async || match state.log() {
        log if log.contains("got 11 one") => Ok(()),
        log => Err(log),
    })
    .await;
    agent.end().await;
}

#[tokio::test]
async fn system_without_the_control_centre_an_attempt_waits_for_its_secrets_and_says_why() {
    let state = State::new(Cgroups::IfPossible);
    let mut agent = state.agent(1).await;
    agent.plan(vec![with_secret()]);
    let exit = Exit::NotStarted(StartFailure::SecretsAway);
    assert_eq!(agent.ended().await, exit);
    agent
        .until("it waits on and is no crash loop", |report| {
            let waits = matches!(report.phase, Phase::BackingOff { exit: of, crash_looping: CrashLooping::No, .. } if of == exit);
            (waits && report.attempt >= Attempt(3)).then_some(())
        })
        .await;
    assert_eq!(state.log(), "");
    let _centre = Centre::with_value(&state);
    agent.passing().await;
    agent.end().await;
}

#[tokio::test]
async fn system_a_secret_that_is_missing_or_locked_is_told() {
    for (status, code, failure) in [
        (
            "404 Not Found",
            "secret-unknown",
            StartFailure::SecretMissing,
        ),
        ("409 Conflict", "secret-locked", StartFailure::SecretLocked),
    ] {
        let state = State::new(Cgroups::IfPossible);
        let _centre = Centre::refuses(&state, status, code);
        let mut agent = state.agent(1).await;
        agent.plan(vec![with_secret()]);
        assert_eq!(agent.ended().await, Exit::NotStarted(failure));
        agent.end().await;
    }
}
