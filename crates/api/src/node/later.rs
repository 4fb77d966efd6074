//! Keys of a node's file that this version does not have, or that belong elsewhere.

use crate::file::later::{Explained, foreign, later};

/// At the top of the file.
pub(super) const FILE: &[Explained] = &[
    later(
        "vip",
        "a floating address needs another program, as keepalived, until then",
    ),
    later("broker", "run a broker of your own until then"),
    later("site", "take it out"),
    later("node", "the only node is called `local`; take it out"),
    foreign(
        "service",
        "services are declared in files of their own: `services = [\"shop.toml\"]`",
    ),
    foreign("limits", "they are the gateway's: `[gateway.limits]`"),
    foreign(
        "stats",
        "it is the gateway's: `[gateway]` with `stats = \":8888\"`",
    ),
];

/// In `gateway`.
pub(super) const GATEWAY: &[Explained] = &[
    later("https", "end TLS before the gateway until then"),
    later("tls", "end TLS before the gateway until then"),
    foreign("bind", "clients enter at `http = \":80\"`"),
    foreign(
        "listen",
        "other listeners are tables of their own: `[listen.NAME]`",
    ),
    foreign("maxconn", "write `connections` in `[gateway.limits]`"),
    foreign("threads", "write `workers`"),
];

/// In `gateway.limits`.
pub(super) const LIMITS: &[Explained] = &[
    foreign("maxconn", "write `connections`"),
    foreign(
        "timeout_client",
        "write `idle_time`, `body_idle` and `write_idle`",
    ),
    foreign("timeout_server", "write `answer_time`"),
    foreign("timeout_queue", "write `queue_time`"),
];
