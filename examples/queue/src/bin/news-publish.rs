//! Publishes N numbered messages to everybody who subscribed; each is on disk when the next one goes out.

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties, ExchangeKind};

const PERSISTENT: u8 = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: u32 = std::env::args().nth(1).map_or(Ok(10), |n| n.parse())?;
    let url = std::env::var("AMQP_URL").unwrap_or("amqp://127.0.0.1:5672/%2f".into());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    channel
        .exchange_declare(
            "news".into(),
            ExchangeKind::Fanout,
            durable,
            FieldTable::default(),
        )
        .await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    for number in 0..count {
        let confirm = channel
            .basic_publish(
                "news".into(),
                "".into(),
                BasicPublishOptions::default(),
                format!("news {number}").as_bytes(),
                BasicProperties::default().with_delivery_mode(PERSISTENT),
            )
            .await?;
        if !confirm.await?.is_ack() {
            return Err(format!("the broker did not take news {number}").into());
        }
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}
