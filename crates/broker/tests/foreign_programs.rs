//! Programs that know nothing of Mainstay talk AMQP to it through the clients that they have: pika, amqplib and lapin
//! from their registries, Celery, and Debian's client for Java. `clients/` has what each of them tries.
//!
//! The same cases are played against RabbitMQ: what it would not pass is no case.
#![allow(clippy::unwrap_used, reason = "tests")]

mod clients;

use clients::{Target, amqplib, file, lapin, pika};
use mainstay_testkit::{RabbitMq, RabbitMqOptions, TempDir};

#[test]
fn system_rabbitmq_itself_answers_every_case_of_every_client() {
    let dir = TempDir::new("clients-rabbitmq");
    let definitions = file("definitions.json");
    let options = RabbitMqOptions {
        definitions: Some(&definitions),
        ..RabbitMqOptions::default()
    };
    let node = RabbitMq::start(&dir, &options);
    node.wait();
    lapin(node.address());
    amqplib(&dir, node.address(), Target::RabbitMq);
    pika(&dir, node.address(), Target::RabbitMq);
}
