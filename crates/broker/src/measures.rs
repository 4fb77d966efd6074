//! Looks each second at how fast queues fill and empty, and answers `/metrics`.

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use mainstay_amqp::rates::SAMPLE_EVERY;
use mainstay_scrape::{Ask, CONNECTIONS_MAX, FRESH, Subject};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::calls::{question, vhosts};
use crate::desk::{Question, Told};
use crate::exposition::{OfBroker, OfVhost, write};
use crate::house::House;

const SUBJECT: Subject = Subject {
    of: "the broker",
    key: "`metrics` in `[broker]`",
};

/// Has each virtual host look at its rates, until it is dropped.
pub(crate) async fn sample(house: Rc<House>) {
    let mut ticks = interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for vhost in vhosts(&house, None).unwrap_or_default() {
            // One that is gone meanwhile has no rates.
            question(&house, &vhost, Question::Sample).await.ok();
        }
    }
}

/// Answers on this address, until it is dropped.
pub(crate) async fn serve(house: Rc<House>, at: SocketAddr) {
    let (asks, asked) = mpsc::channel(CONNECTIONS_MAX);
    tokio::select! {
        () = mainstay_scrape::serve(at, SUBJECT, asks) => {}
        () = gather(&house, asked) => {}
    }
}

/// Reads when it is asked. Who asks meanwhile gets the same.
async fn gather(house: &House, mut asked: mpsc::Receiver<Ask>) {
    let mut last: Option<(Instant, Bytes)> = None;
    while let Some(reply) = asked.recv().await {
        let shown = match &last {
            Some((read, shown)) if read.elapsed() < FRESH => shown.clone(),
            Some(_) | None => match text(house).await {
                Ok(text) => {
                    let shown = Bytes::from(text);
                    last = Some((Instant::now(), shown.clone()));
                    shown
                }
                // Without an answer it is 503.
                Err(why) => {
                    tracing::debug!(why, "metrics cannot be read");
                    continue;
                }
            },
        };
        // Whoever asked may be gone.
        reply.send(shown).ok();
    }
}

/// All that is counted, as of now.
pub(crate) async fn text(house: &House) -> Result<String, String> {
    let mut all: Vec<OfVhost> = Vec::new();
    for name in vhosts(house, None)? {
        if let Told::Measured(one) = question(house, &name, Question::Measure).await? {
            all.push(*one);
        }
    }
    Ok(write(&OfBroker::of(house), &all))
}
