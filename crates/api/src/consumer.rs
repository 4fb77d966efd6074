//! A consumer's way to the control centre: the watch of routes in, acknowledgements out. Who sends
//! traffic by the routes, a gateway or a node that forwards, is one.

use std::time::Duration;

use mainstay_ids::ConsumerId;
use mainstay_model::routing::Farewell;
use mainstay_model::{Ack, Routing};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::client::{self, Client};
use crate::wire::Accepted;

/// After a watch broke or could not be opened. The control centre is started again within some
/// hundred milliseconds, and a try costs a connect to a unix socket.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

/// The supervisor waits for our end. A control centre that does not hear the farewell sees it by the
/// supervisor's next incarnation, or by the lease.
pub const PARTING_TIME: Duration = Duration::from_millis(500);

/// Follows the routes and posts acknowledgements until `acks` is closed.
pub async fn run(
    client: Client,
    consumer: ConsumerId,
    routings: mpsc::Sender<Routing>,
    acks: mpsc::Receiver<Ack>,
) {
    tokio::select! {
        () = watch(&client, &consumer, routings) => {}
        () = post(&client, acks) => {}
    }
}

/// Tells that this consumer is no more.
pub async fn say_farewell(client: &Client, consumer: ConsumerId) {
    let farewell = Farewell {
        consumer,
        reason: "stopped".to_owned(),
    };
    let said = client.post::<_, Accepted>("/v1/consumers/farewell", &farewell);
    match timeout(PARTING_TIME, said).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the farewell was not heard"),
        Err(_) => tracing::debug!("the farewell was not heard in time"),
    }
}

/// Ends only when nobody takes the routes any more.
async fn watch(client: &Client, consumer: &ConsumerId, routings: mpsc::Sender<Routing>) {
    let path = format!(
        "/v1/watch/routes?name={}&incarnation={}",
        consumer.name, consumer.incarnation.0
    );
    let mut told = Told::Nothing;
    loop {
        match client.watch::<Routing>(&path).await {
            Ok(watch) => {
                tracing::info!("following the control centre's routes");
                told = Told::Nothing;
                if follow(watch, &routings).await == Taker::Gone {
                    return;
                }
            }
            Err(error) => {
                if told == Told::Nothing {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot follow the routes; going on with the last good ones"
                    );
                }
                told = Told::Trouble;
            }
        }
        sleep(RECONNECT_PAUSE).await;
    }
}

/// Whether the present trouble has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Trouble,
}

/// Whether somebody takes the routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taker {
    There,
    Gone,
}

async fn follow(mut watch: client::Watch<Routing>, routings: &mpsc::Sender<Routing>) -> Taker {
    loop {
        match watch.next().await {
            Ok(Some(routing)) => {
                if routings.send(routing).await.is_err() {
                    return Taker::Gone;
                }
            }
            Ok(None) => return Taker::There,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the watch of the routes broke; going on with the last good ones"
                );
                return Taker::There;
            }
        }
    }
}

/// Posts the newest acknowledgement; those that it has overtaken need not be sent.
async fn post(client: &Client, mut acks: mpsc::Receiver<Ack>) {
    while let Some(mut ack) = acks.recv().await {
        while let Ok(newer) = acks.try_recv() {
            ack = newer;
        }
        if let Err(error) = client.post::<_, Accepted>("/v1/consumers/ack", &ack).await {
            // The watch tells of the control centre's absence, and the next acknowledgement comes
            // within a second.
            tracing::debug!(%error, "an acknowledgement was not heard");
        }
    }
}
