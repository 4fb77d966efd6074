//! Shows what is measured: `GET /metrics`.
//!
//! ```text
//!   mainstay_scrape ── mpsc Ask, 16 ──> gather: reads at most once a second,
//!     <── oneshot ─────────────────────  on a blocking thread
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_forward::Meter;
use mainstay_scrape::{Ask, CONNECTIONS_MAX, FRESH, Subject};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::metrics::{self, Told};

const SUBJECT: Subject = Subject {
    of: "forwarding",
    key: "`metrics` in `[forward]`",
};

/// Until `stop`. `told` is what is known of forwarding, `meter` comes once something forwards.
pub(super) async fn run(
    at: SocketAddr,
    told: watch::Receiver<Arc<Told>>,
    meter: oneshot::Receiver<Box<dyn Meter>>,
    stop: CancellationToken,
) {
    let (asks, asked) = mpsc::channel(CONNECTIONS_MAX);
    tokio::select! {
        () = stop.cancelled() => {}
        () = mainstay_scrape::serve(at, SUBJECT, asks) => {}
        () = gather(told, meter, asked) => {}
    }
}

/// Reads when it is asked. Who asks meanwhile gets the same.
async fn gather(
    told: watch::Receiver<Arc<Told>>,
    mut coming: oneshot::Receiver<Box<dyn Meter>>,
    mut asked: mpsc::Receiver<Ask>,
) {
    let mut meter: Option<Box<dyn Meter>> = None;
    let mut last: Option<(Instant, Bytes)> = None;
    while let Some(reply) = asked.recv().await {
        let text = match &last {
            Some((read, text)) if read.elapsed() < FRESH => text.clone(),
            Some(_) | None => {
                if let Ok(came) = coming.try_recv() {
                    meter = Some(came);
                }
                let told = Arc::clone(&told.borrow());
                let mut taken = meter.take();
                let reading = move || {
                    let text = match &mut taken {
                        Some(meter) => metrics::exposition(Some(meter.as_mut()), &told),
                        None => metrics::exposition(None, &told),
                    };
                    (taken, text)
                };
                let Ok((back, text)) = spawn_blocking(reading).await else {
                    tracing::error!(
                        "reading metrics of forwarding panicked; they are shown no more"
                    );
                    return;
                };
                meter = back;
                let text = Bytes::from(text);
                last = Some((Instant::now(), text.clone()));
                text
            }
        };
        // Whoever asked may be gone.
        reply.send(text).ok();
    }
}
