//! What `mainstay queue` is told.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// A virtual host.
#[derive(Debug, Clone, Args)]
pub(crate) struct OfVhost {
    /// The virtual host.
    #[arg(long, default_value = "/", value_name = "NAME")]
    pub(crate) vhost: String,
}

/// What to do with queues.
#[derive(Debug, Subcommand)]
pub(crate) enum QueueDeed {
    /// List the queues: what waits, what is out, who consumes.
    Ls {
        /// Only this virtual host's.
        #[arg(long, value_name = "NAME")]
        vhost: Option<String>,
    },
    /// Show the broker as a whole: connections, memory, its log, what went through it.
    Status,
    /// Print what is counted, as `/metrics` of the broker has it.
    Metrics,
    /// Show the next messages of a queue; they stay where they are.
    Peek {
        /// Which queue.
        queue: String,
        /// So many at most.
        #[arg(short = 'n', long, default_value_t = 10)]
        count: usize,
        #[command(flatten)]
        of: OfVhost,
    },
    /// Take the next messages of a queue away and print them. Who does not see the answer has lost them.
    Consume {
        /// Which queue.
        queue: String,
        /// So many at most.
        #[arg(short = 'n', long, default_value_t = 1)]
        count: usize,
        #[command(flatten)]
        of: OfVhost,
    },
    /// Publish a persistent message, and wait until it is on disk.
    Publish {
        /// The queue; with --exchange, the routing key.
        queue: String,
        /// To this exchange.
        #[arg(long, default_value = "", value_name = "NAME")]
        exchange: String,
        /// The body; without it, standard input.
        #[arg(long, value_name = "TEXT")]
        body: Option<String>,
        #[command(flatten)]
        of: OfVhost,
    },
    /// Move messages to the end of another queue.
    Move {
        /// From this queue.
        from: String,
        /// To that one.
        to: String,
        /// So many at most; by default all.
        #[arg(short = 'n', long, default_value_t = usize::MAX, hide_default_value = true)]
        count: usize,
        #[command(flatten)]
        of: OfVhost,
    },
    /// Throw away all messages of a queue that wait.
    Purge {
        /// Which queue.
        queue: String,
        #[command(flatten)]
        of: OfVhost,
    },
    /// Declare a durable queue.
    Declare {
        /// Its name.
        queue: String,
        /// Its arguments as JSON, for instance '{"x-message-ttl": 60000}'.
        #[arg(long, value_name = "JSON")]
        arguments: Option<String>,
        #[command(flatten)]
        of: OfVhost,
    },
    /// Delete a queue with all that it holds, whoever uses it.
    Delete {
        /// Which queue.
        queue: String,
        #[command(flatten)]
        of: OfVhost,
    },
    /// Say something of all queues and exchanges whose names fit a pattern.
    Policy {
        #[command(subcommand)]
        deed: PolicyDeed,
    },
    /// Print all that is declared, in the form of RabbitMQ's definitions.
    Export,
    /// Declare what RabbitMQ's definitions say and is not there yet.
    Import {
        /// The file.
        file: PathBuf,
    },
    /// Add a virtual host.
    Vhost {
        /// Its name.
        name: String,
    },
    /// Delete a virtual host with all queues and messages in it; its clients' connections are closed.
    RmVhost {
        /// Its name.
        name: String,
        /// Also `/`, where programs go that name none.
        #[arg(long)]
        default: bool,
    },
    /// Add a user, or give one another password, which is read from standard input.
    User {
        /// The name.
        name: String,
    },
    /// Remove a user.
    RmUser {
        /// The name.
        name: String,
    },
    /// Say what a user may in a virtual host, by regular expressions for names.
    Permit {
        /// Who.
        user: String,
        /// What may be declared and deleted.
        #[arg(long, default_value = ".*", value_name = "REGEX")]
        configure: String,
        /// Where may be published.
        #[arg(long, default_value = ".*", value_name = "REGEX")]
        write: String,
        /// What may be consumed.
        #[arg(long, default_value = ".*", value_name = "REGEX")]
        read: String,
        #[command(flatten)]
        of: OfVhost,
    },
    /// Read the whole log of a broker that does not run, and tell what is damaged.
    Fsck,
}

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyDeed {
    /// List the policies.
    Ls {
        /// Only this virtual host's.
        #[arg(long, value_name = "NAME")]
        vhost: Option<String>,
    },
    /// Set a policy, or set it anew. It is in force at once, for queues that are there, too.
    Set(PolicySaid),
    /// Take a policy away.
    Rm {
        /// Its name.
        name: String,
        #[command(flatten)]
        of: OfVhost,
    },
}

/// A policy as it is typed.
#[derive(Debug, Args)]
pub(crate) struct PolicySaid {
    /// Its name.
    pub(crate) name: String,
    /// A regular expression, in Perl's syntax: for names of which it fits some part. '^orders' begins so.
    pub(crate) pattern: String,
    /// What it says, as JSON, for instance '{"max-length": 1000, "overflow": "reject-publish"}'.
    #[arg(long, value_name = "JSON")]
    pub(crate) definition: String,
    /// Of all policies that fit a name, the one with the highest priority is in force, alone.
    #[arg(
        long,
        default_value_t = 0,
        value_name = "N",
        allow_negative_numbers = true
    )]
    pub(crate) priority: i64,
    /// What it is for.
    #[arg(long, default_value = "all", value_name = "WHAT", value_parser = ["queues", "exchanges", "all"])]
    pub(crate) apply_to: String,
    #[command(flatten)]
    pub(crate) of: OfVhost,
}
