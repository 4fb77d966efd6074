//! Prints what is published. As `durable` its queue outlives it, and what came meanwhile is printed when it comes back.

use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let durable = std::env::args().nth(1).as_deref() == Some("durable");
    let url = std::env::var("AMQP_URL").unwrap_or("amqp://127.0.0.1:5672/%2f".into());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let mut consumer = subscribe(&channel, durable).await?;
    println!("subscribed");
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        println!("{}", String::from_utf8_lossy(&delivery.data));
        delivery.ack(BasicAckOptions::default()).await?;
    }
    Err("the broker ended the subscription".into())
}

/// Binds a queue to the news: one that stays, or one that goes with this program.
async fn subscribe(channel: &Channel, durable: bool) -> lapin::Result<Consumer> {
    let none = FieldTable::default;
    let stays = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    channel
        .exchange_declare("news".into(), ExchangeKind::Fanout, stays, none())
        .await?;
    let name = if durable { "news.rust" } else { "" };
    let options = QueueDeclareOptions {
        durable,
        exclusive: !durable,
        ..Default::default()
    };
    let queue = channel.queue_declare(name.into(), options, none()).await?;
    let queue = queue.name().clone();
    channel
        .queue_bind(
            queue.clone(),
            "news".into(),
            "".into(),
            QueueBindOptions::default(),
            none(),
        )
        .await?;
    channel
        .basic_consume(queue, "".into(), BasicConsumeOptions::default(), none())
        .await
}
