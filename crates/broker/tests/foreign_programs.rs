//! Programs that know nothing of Mainstay talk AMQP to it through the clients that they have: pika, amqplib and lapin
//! from their registries, and Celery. `clients/` has what each of them tries.
//!
//! The same cases are played against RabbitMQ: what it would not pass is no case.
#![allow(clippy::unwrap_used, reason = "tests")]

mod alone;
mod clients;

use alone::Alone;
use clients::{Target, amqplib, define, file, lapin, pika, programs};
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

#[test]
fn system_every_case_of_lapin_holds() {
    let broker = Alone::start("clients-lapin");
    lapin(broker.address());
}

#[test]
fn system_every_case_of_amqplib_holds() {
    let broker = Alone::start("clients-amqplib");
    amqplib(&broker.dir, broker.address(), Target::Mainstay);
}

#[test]
fn system_every_case_of_pika_holds() {
    let broker = Alone::start("clients-pika");
    define(broker.state());
    pika(&broker.dir, broker.address(), Target::Mainstay);
}

#[test]
fn system_celery_with_a_worker_runs_unchanged() {
    let broker = Alone::start("clients-celery");
    programs::celery(&broker.dir, broker.address());
}
