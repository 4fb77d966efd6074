//! Probes against real programs.

use super::*;

#[tokio::test]
async fn system_a_probe_that_hangs_is_killed_with_its_group_at_its_deadline() {
    let state = State::new(Cgroups::None);
    let mut agent = state.agent(1).await;
    let mut planned = python("import signal; signal.pause()");
    let pids = state.file("pids");
    for_all(&pids);
    let hang = format!(
        "import os, signal; os.fork(); open('{}', 'a').write(f'{{os.getpid()}}\\n'); signal.pause()",
        pids.display()
    );
    let python = program("python3");
    let words = [python.to_str().unwrap(), "-c", &hang];
    planned.spec.health.check = Check::Exec(words.iter().map(|word| template(word)).collect());
    planned.spec.health.timeout = Duration::from_millis(700);
    agent.plan(vec![planned]);
    let probes = wait_until_async(SOON, "two probes started", async || {
        let text = fs::read_to_string(&pids).unwrap_or_default();
        let found: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
        if found.len() >= 4 {
            Ok(found)
        } else {
            Err(text)
        }
    })
    .await;
    assert!(
        !is_alive(probes[0]) && !is_alive(probes[1]),
        "the first probe's processes are gone"
    );
    let phase = agent.instance().unwrap().phase;
    assert!(
        matches!(
            phase,
            Phase::Running {
                health: ProbedHealth::Starting,
                ..
            }
        ),
        "{phase:?}"
    );
    agent.end().await;
    wait_until_async(SOON, "no probe outlives the agent", async || {
        let left = state.processes();
        if left.len() == 1 {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn system_health_follows_the_program_by_http_and_by_tcp() {
    let code = "import os, signal, socket\n\
        from http.server import HTTPServer, BaseHTTPRequestHandler\n\
        class H(BaseHTTPRequestHandler):\n\
        \x20def do_GET(self):\n\
        \x20\x20self.send_response(503 if os.path.exists(os.environ['SICK']) else 204); self.end_headers()\n\
        HTTPServer((os.environ['HOST'], int(os.environ['PORT'])), H).serve_forever()";
    let state = State::new(Cgroups::IfPossible);
    let sick = state.file("sick");
    let mut planned = python(code);
    planned.spec.health.check = Check::Http(PathPrefix::parse("/health").unwrap());
    planned.spec.env.insert(
        "SICK".into(),
        Template::parse(sick.to_str().unwrap()).unwrap(),
    );
    let mut agent = state.agent(1).await;
    agent.plan(vec![planned.clone()]);
    let pid = agent.passing().await;
    fs::write(&sick, "").unwrap();
    let why = agent
        .until("it fails", |report| match report.phase {
            Phase::Running {
                health: ProbedHealth::Failing,
                ..
            } => report.probe_failure.clone(),
            _ => None,
        })
        .await;
    assert!(why.ends_with("answered with status 503"), "{why}");
    fs::remove_file(&sick).unwrap();
    assert_eq!(
        agent.passing().await,
        pid,
        "a failing instance is not restarted"
    );
    assert_eq!(agent.instance().unwrap().probe_failure, None);
    agent.end().await;

    let state = State::new(Cgroups::IfPossible);
    planned.spec.health.check = Check::Tcp;
    let mut agent = state.agent(1).await;
    agent.plan(vec![planned]);
    agent.passing().await;
    agent.end().await;
}
