//! What is asked on the broker's own socket, and answered: a line of JSON each way.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The socket, in the state directory.
pub const SOCKET: &str = "broker.sock";

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// The broker as a whole.
    Status,
    /// What `/metrics` has.
    Metrics,
    /// All queues of all virtual hosts, or of one.
    Queues {
        /// Which; all by default.
        vhost: Option<String>,
    },
    /// Something of one virtual host.
    Vhost {
        /// Which.
        vhost: String,
        /// What.
        deed: Deed,
    },
    /// A copy of everything that is on disk, of one moment, in a new directory. It is made for as long as the caller
    /// stays, and clients go on meanwhile.
    Backup {
        /// The directory, absolute.
        to: PathBuf,
    },
    /// The policies of all virtual hosts, or of one.
    Policies {
        /// Which; all by default.
        vhost: Option<String>,
    },
    /// A new policy, or another one of that name.
    SetPolicy {
        /// It.
        policy: Policy,
    },
    /// A policy goes.
    RemovePolicy {
        /// Of this virtual host.
        vhost: String,
        /// Its name.
        name: String,
    },
    /// Everything that is declared, in RabbitMQ's form.
    Export,
    /// Declares what such a form says and is not there yet.
    Import {
        /// The form.
        definitions: serde_json::Value,
    },
    /// A new virtual host.
    AddVhost {
        /// Its name.
        name: String,
    },
    /// A virtual host goes, with all that is in it; its clients' connections are closed.
    RemoveVhost {
        /// Its name.
        name: String,
    },
    /// A new user, or another password of one.
    SetUser {
        /// The name.
        name: String,
        /// The password.
        password: String,
    },
    /// A user goes, with what it may.
    RemoveUser {
        /// The name.
        name: String,
    },
    /// What a user may in a virtual host: three regular expressions.
    Permit {
        /// Who.
        user: String,
        /// Where.
        vhost: String,
        /// What it may declare and delete.
        configure: String,
        /// Where it may publish.
        write: String,
        /// What it may consume.
        read: String,
    },
}

/// What is done in a virtual host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Deed {
    /// Shows the next messages; they stay.
    Peek {
        /// Of this queue.
        queue: String,
        /// So many at most.
        count: usize,
    },
    /// Takes the next messages away.
    Take {
        /// Of this queue.
        queue: String,
        /// So many at most.
        count: usize,
    },
    /// Throws away all that wait.
    Purge {
        /// Of this queue.
        queue: String,
    },
    /// Moves messages to the end of another queue.
    Move {
        /// Of this queue.
        from: String,
        /// To that one.
        to: String,
        /// So many at most.
        count: usize,
    },
    /// Declares a durable queue.
    Declare {
        /// Its name.
        queue: String,
        /// Its arguments.
        arguments: serde_json::Value,
    },
    /// Deletes a queue, whoever uses it.
    Delete {
        /// Its name.
        queue: String,
    },
    /// Publishes a persistent message.
    Publish {
        /// To this exchange; empty: the key is a queue's name.
        exchange: String,
        /// With this key.
        routing_key: String,
        /// The body, as base64.
        body: String,
    },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// The broker as a whole.
    Status(Box<Status>),
    /// Metrics.
    Metrics {
        /// In Prometheus' text format.
        text: String,
    },
    /// Queues.
    Queues {
        /// They.
        queues: Vec<Queue>,
    },
    /// Policies.
    Policies {
        /// They.
        policies: Vec<Policy>,
    },
    /// Messages.
    Messages {
        /// They.
        messages: Vec<Message>,
    },
    /// It is done and on disk, with so many messages.
    Done {
        /// How many.
        messages: usize,
    },
    /// A copy is there, whole and on disk.
    Copied {
        /// Files.
        segments: usize,
        /// Bytes of them.
        bytes: u64,
    },
    /// Definitions.
    Definitions {
        /// In RabbitMQ's form.
        definitions: serde_json::Value,
    },
    /// It is not done.
    Refused {
        /// Why.
        why: String,
    },
}

/// The broker as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Connections now.
    pub connections: usize,
    /// As many as there may be.
    pub connections_max: usize,
    /// Those with TLS.
    pub tls: Tls,
    /// Why publishers wait, if they do.
    pub alarm: Option<String>,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of the log's files.
    pub on_disk: u64,
    /// Bytes of them that are needed.
    pub live: u64,
    /// Counted since the start.
    pub counters: Counters,
}

/// Clients with TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// Connections now; they are among all connections, too.
    pub connections: usize,
    /// Handshakes that failed since the start.
    pub refused: u64,
    /// Who failed last, and why.
    pub refused_last: Option<String>,
    /// Why the certificate on disk is not the one that is shown, if it is not.
    pub problem: Option<String>,
}

/// What is counted since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Connections that were accepted.
    pub connections: u64,
    /// Attempts to log in that were refused.
    pub logins_refused: u64,
    /// Messages that were published.
    pub published: u64,
    /// Publishes that were confirmed.
    pub confirmed: u64,
    /// Messages that were delivered, or got.
    pub delivered: u64,
    /// Acknowledgements, each of one message or several.
    pub acknowledged: u64,
    /// Messages that went back because no queue took them.
    pub returned: u64,
    /// Bodies that were read from disk.
    pub bodies_read: u64,
    /// Of these, for which a thread waited: they were not in the page cache, or long.
    pub bodies_waited_for: u64,
    /// Bytes from clients.
    pub read_bytes: u64,
    /// Bytes to clients.
    pub written_bytes: u64,
    /// Syncs of the log.
    pub syncs: u64,
    /// Changes that were written to it.
    pub records: u64,
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// Its virtual host.
    pub vhost: String,
    /// Its name.
    pub name: String,
    /// Whether it outlives the broker.
    pub durable: bool,
    /// Messages that wait.
    pub ready: usize,
    /// Bytes of their bodies.
    pub ready_bytes: u64,
    /// Messages that are delivered and not settled.
    pub unacked: usize,
    /// Consumers.
    pub consumers: usize,
    /// The policy that is in force.
    pub policy: Option<String>,
    /// Messages that come in per second, as the mean of the last five.
    pub published_per_second: f64,
    /// Messages that are delivered per second.
    pub delivered_per_second: f64,
    /// Messages that are done with per second: acknowledged, or delivered to somebody who acknowledges nothing.
    pub acknowledged_per_second: f64,
    /// When nothing is left, waiting or delivered, if all goes on like this; `None`: it does not become less.
    pub seconds_to_empty: Option<f64>,
}

/// A policy, in the form that RabbitMQ's definitions have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Its virtual host.
    pub vhost: String,
    /// Its name.
    pub name: String,
    /// A regular expression: the policy is for names of which it fits some part.
    pub pattern: String,
    /// `queues`, `exchanges` or `all`.
    #[serde(rename = "apply-to", default = "all")]
    pub applies_to: String,
    /// What it says, as an object.
    pub definition: serde_json::Value,
    /// Of all that fit a name, the one with the highest is in force, alone.
    #[serde(default)]
    pub priority: i64,
}

impl Policy {
    /// Whether it asks for copies on other machines. It is taken, so that the same definitions work on a cluster of
    /// RabbitMQ; there is one copy here, and whoever sets it is to be told.
    pub fn asks_for_copies(&self) -> bool {
        let mut keys = self.definition.as_object().into_iter().flatten();
        keys.any(|(key, _)| key.starts_with("ha-"))
    }
}

fn all() -> String {
    "all".to_owned()
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Where it was published.
    pub exchange: String,
    /// With which key.
    pub routing_key: String,
    /// Whether it was delivered before.
    pub redelivered: bool,
    /// Its body as text, if it is text.
    pub text: Option<String>,
    /// Its body as base64, if it is none.
    pub base64: Option<String>,
}

/// A body as it stands in [`Deed::Publish`].
pub fn base64(body: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(body)
}
