//! The agent against a control centre of a few lines: real HTTP on a real unix socket.

use std::time::Duration;

use crate::{Adoption, Options, ShimProgram, run};
use mainstay_ids::{Epoch, Generation, Incarnation};
use mainstay_model::{NodePlan, NodeReport};
use mainstay_testkit::{TempDir, wait_until_async};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Answers one request; gives the path and the body that it saw. A watch stays open until `end`.
async fn answer(stream: UnixStream, plan: &NodePlan, end: &CancellationToken) -> (String, Vec<u8>) {
    let mut stream = BufReader::new(stream);
    let (mut path, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        let line = line.trim_end().to_ascii_lowercase();
        if path.is_empty() {
            path = line.split(' ').nth(1).unwrap().to_owned();
        } else if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        } else if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let text = if path.starts_with("/v1/watch/plan") {
        let line = serde_json::to_string(plan).unwrap() + "\n";
        format!(
            "transfer-encoding: chunked\r\n\r\n{:x}\r\n{line}\r\n",
            line.len()
        )
    } else {
        "content-length: 11\r\n\r\n{\"event\":0}".to_owned()
    };
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    // The agent may have ended meanwhile.
    let _ = stream.write_all(format!("{head}{text}").as_bytes()).await;
    if path.starts_with("/v1/watch") {
        end.cancelled().await;
    }
    (path, body)
}

fn plan(epoch: u64) -> NodePlan {
    NodePlan {
        generation: Generation::first(Epoch(epoch)),
        node: "local".parse().unwrap(),
        instances: Vec::new(),
    }
}

/// A control centre with one plan, until `end`.
async fn centre(
    socket: std::path::PathBuf,
    plan: NodePlan,
    seen: watch::Sender<Option<NodeReport>>,
    end: CancellationToken,
) {
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    let mut calls = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            () = end.cancelled() => break,
            accepted = listener.accept() => {
                let (plan, seen, end) = (plan.clone(), seen.clone(), end.clone());
                calls.spawn(async move {
                    let (path, body) = answer(accepted.unwrap().0, &plan, &end).await;
                    match path.as_str() {
                        "/v1/nodes/report" => drop(seen.send_replace(Some(serde_json::from_slice(&body).unwrap()))),
                        other => assert_eq!(other, "/v1/watch/plan?node=local&incarnation=3"),
                    }
                });
            }
        }
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
}

#[tokio::test]
async fn system_plans_come_and_reports_go_and_a_restarted_control_centre_is_found_again() {
    const SOON: Duration = Duration::from_secs(20);
    let dir = TempDir::new("link");
    let socket = dir.join("api.sock");
    let options = Options {
        address: std::net::Ipv4Addr::LOCALHOST.into(),
        forward: None,
        forward_seams: crate::ForwardSeams::default(),
        state: dir.path().to_owned(),
        node: "local".parse().unwrap(),
        incarnation: Incarnation(3),
        api: socket.clone(),
        shim: ShimProgram {
            program: None,
            arguments: Vec::new(),
        },
        adoption: Adoption::On,
        names: None,
    };
    let stop = CancellationToken::new();
    let agent = tokio::spawn(run(options, stop.clone()));
    for epoch in [1, 2] {
        let (seen, reports) = watch::channel(None);
        let end = CancellationToken::new();
        let centre = tokio::spawn(centre(socket.clone(), plan(epoch), seen, end.clone()));
        wait_until_async(SOON, "the plan was taken over", async || {
            let report: Option<NodeReport> = reports.borrow().clone();
            match &report {
                Some(known) if known.plan == Some(plan(epoch).generation) => Ok(()),
                Some(_) | None => Err(format!("{report:?}")),
            }
        })
        .await;
        end.cancel();
        centre.await.unwrap();
    }
    stop.cancel();
    tokio::time::timeout(SOON, agent)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}
