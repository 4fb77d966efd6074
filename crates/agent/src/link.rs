//! The agent's side of the API: plans come by a watch, reports go by calls.

use std::sync::Arc;
use std::time::Duration;

use mainstay_api::client::Client;
use mainstay_api::wire::Accepted;
use mainstay_ids::{Incarnation, NodeName};
use mainstay_model::{NodePlan, NodeReport};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

/// A report is sent this often even if nothing changed: it renews what the control centre knows.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Between two tries to reach a control centre that is away.
const RETRY: Duration = Duration::from_millis(200);

/// How long the end of the agent waits for a report that is under way: for a control centre that
/// does not answer it would be as long as a call may take.
const PARTING_TIME: Duration = Duration::from_millis(500);

/// What is said of the control centre in the log: only when it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contact {
    Untried,
    There,
    Away,
}

/// Follows the plan until `stop`. Tells by `reached` that the control centre is there, maybe another
/// one than before.
pub(crate) async fn follow(
    client: Client,
    node: NodeName,
    incarnation: Incarnation,
    plans: watch::Sender<Option<NodePlan>>,
    reached: Arc<Notify>,
    stop: CancellationToken,
) {
    let path = format!("/v1/watch/plan?node={node}&incarnation={}", incarnation.0);
    let mut contact = Contact::Untried;
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => return,
            () = follow_once(&client, &path, &plans, &reached, &mut contact) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(RETRY) => {}
        }
    }
}

/// Until the watch breaks. The client has the deadlines.
async fn follow_once(
    client: &Client,
    path: &str,
    plans: &watch::Sender<Option<NodePlan>>,
    reached: &Notify,
    contact: &mut Contact,
) {
    let ended = async {
        let mut watch = client.watch::<NodePlan>(path).await?;
        note(contact, Contact::There, "following the plan", None);
        reached.notify_one();
        while let Some(plan) = watch.next().await? {
            tracing::debug!(generation = %plan.generation, instances = plan.instances.len(), "a plan came");
            plans.send_replace(Some(plan));
        }
        Ok::<(), mainstay_api::client::Error>(())
    };
    let error = ended.await.err();
    note(
        contact,
        Contact::Away,
        "no plans come; instances go on as they are",
        error.as_ref(),
    );
}

async fn parting(stop: &CancellationToken) {
    stop.cancelled().await;
    sleep(PARTING_TIME).await;
}

/// Sends each report, and the newest one each second and whenever the control centre is `reached`
/// (one that was just started decides nothing before it has one), until `stop` and then once more.
pub(crate) async fn report(
    client: Client,
    mut reports: watch::Receiver<Option<NodeReport>>,
    reached: Arc<Notify>,
    stop: CancellationToken,
) {
    let mut contact = Contact::Untried;
    loop {
        let report = reports.borrow_and_update().clone();
        if let Some(report) = report {
            let sent = tokio::select! {
                sent = client.post::<_, Accepted>("/v1/nodes/report", &report) => sent,
                () = parting(&stop) => return,
            };
            match sent {
                Ok(_) => note(&mut contact, Contact::There, "reporting", None),
                Err(error) => note(
                    &mut contact,
                    Contact::Away,
                    "reports do not arrive",
                    Some(&error),
                ),
            }
        }
        // At once on a change; while nobody takes reports, not more often than it makes sense.
        let pause = if contact == Contact::Away {
            RETRY
        } else {
            Duration::ZERO
        };
        let next = Instant::now() + REPORT_EVERY;
        let due = async {
            sleep(pause).await;
            // Both outcomes, a change and the second that is over, mean the same.
            timeout_at(next, reports.changed())
                .await
                .is_ok_and(|changed| changed.is_err())
        };
        tokio::select! {
            () = stop.cancelled() => return,
            closed = due => if closed { return },
            () = reached.notified() => {}
        }
    }
}

fn note(
    contact: &mut Contact,
    now: Contact,
    text: &str,
    error: Option<&mainstay_api::client::Error>,
) {
    if *contact == now {
        return;
    }
    *contact = now;
    match error {
        None => tracing::info!("{text}"),
        Some(error) => tracing::warn!(error = %crate::chain(error), "{text}"),
    }
}
