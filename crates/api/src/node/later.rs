//! Keys of a node's file that this version does not have, or that belong elsewhere.

use crate::file::later::{Explained, foreign, later};

/// At the top of the file.
pub(super) const FILE: &[Explained] = &[
    later("site", "take it out"),
    later("node", "the only node is called `local`; take it out"),
    foreign(
        "service",
        "services are declared in files of their own: `services = [\"shop.toml\"]`",
    ),
    foreign("limits", "they are the gateway's: `[gateway.limits]`"),
    foreign("dns", "write `[names]` with `listen = \"127.0.0.1:53\"`"),
    foreign(
        "stats",
        "it is the gateway's: `[gateway]` with `stats = \":8888\"`",
    ),
];

/// In `forward`.
pub(super) const FORWARD: &[Explained] = &[
    foreign("ranges", "it is `range`, which takes a list, too"),
    foreign("backend", "it is `back_end`"),
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

/// In `broker`.
pub(super) const BROKER: &[Explained] = &[
    foreign("listeners", "write `bind = \":5672\"`"),
    foreign("vm_memory_high_watermark", "write `memory = \"1GiB\"`"),
    foreign("disk_free_limit", "write `disk_free = \"50MiB\"`"),
    foreign("max_queues", "write `queues = 10000`"),
    foreign(
        "ssl_options",
        "write `[broker.tls]` with `certificate` and `key` below it",
    ),
    foreign(
        "certificate",
        "it stands with `key` in a table of their own: `[broker.tls]`",
    ),
];

/// In `broker.tls`, as RabbitMQ calls things.
pub(super) const BROKER_TLS: &[Explained] = &[
    foreign("certfile", "write `certificate`"),
    foreign("keyfile", "write `key`"),
    foreign(
        "cacertfile",
        "write `client_ca` if clients must have a certificate; what is between the server's own and its authority stands in the file of `certificate`",
    ),
    foreign(
        "fail_if_no_peer_cert",
        "with `client_ca` clients must have a certificate; take it out",
    ),
];

/// In `backup`, as other tools call things.
pub(super) const BACKUP: &[Explained] = &[
    foreign("interval", "write `every = \"1h\"`"),
    foreign("schedule", "write `every = \"1h\"`"),
    foreign("retention", "write how many are kept: `keep = 24`"),
    foreign("path", "write `to = \"/mnt/backup/mainstay\"`"),
    foreign("directory", "write `to = \"/mnt/backup/mainstay\"`"),
];

/// In `names`.
pub(super) const NAMES: &[Explained] = &[
    foreign(
        "zone",
        "services are found under `mainstay.internal`; take it out",
    ),
    foreign("forward", "write `upstream = [\"192.0.2.1\"]`"),
    foreign("server", "write `upstream = [\"192.0.2.1\"]`"),
    foreign("nameserver", "write `upstream = [\"192.0.2.1\"]`"),
    foreign("ttl", "it is 5 seconds; take it out"),
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

/// Nothing but what is known.
pub(super) const NONE: &[Explained] = crate::file::later::NONE;

/// In `listen.NAME`.
pub(super) const LISTEN: &[Explained] = &[
    later(
        "tls",
        "end TLS at the servers, or before the gateway, until then",
    ),
    foreign(
        "server",
        "servers are a list: `servers = [\"10.0.0.1:5672\"]`",
    ),
    foreign("maxconn", "write `connections`"),
    foreign(
        "timeout",
        "write `timeouts = { connect = \"2s\", idle = \"1h\" }`",
    ),
    foreign(
        "option",
        "a check is written `check = { get = \"/health\" }`",
    ),
];

/// In one of `listen.NAME.servers`.
pub(super) const SERVER: &[Explained] = &[
    foreign("maxconn", "write `connections`"),
    foreign(
        "check",
        "all servers of a listener are checked alike: `check` stands beside `servers`",
    ),
];

/// In `listen.NAME.check`.
pub(super) const CHECK: &[Explained] = &[
    later(
        "exec",
        "let a small HTTP server tell it until then, and `get` its path",
    ),
    foreign("inter", "write `every`"),
];

/// In `vip.NAME`, as keepalived calls things.
pub(super) const VIP: &[Explained] = &[
    foreign(
        "state",
        "the election decides; who is to be preferred has the greater `priority`",
    ),
    foreign("virtual_router_id", "write `vrid`"),
    foreign("virtual_ipaddress", "write `address`"),
    foreign("advert_int", "write `advert = \"1s\"`"),
    foreign(
        "nopreempt",
        "that is the default; the other one is `preempt = true`",
    ),
    foreign("preempt_delay", "write `preempt = \"30s\"`"),
    foreign("unicast_peer", "write `peers = [\"10.0.0.2\"]`"),
    foreign(
        "track_script",
        "write `track = [{ exec = [\"/usr/local/bin/check\"] }]`",
    ),
    foreign(
        "track_process",
        "write `track = [{ process = \"haproxy\" }]`",
    ),
    foreign("use_vmac", "write `virtual_mac = true`"),
    later(
        "authentication",
        "passwords of version 2 protect nothing: everybody on the link reads them; take it out on all machines",
    ),
];

/// In one of `vip.NAME.track`.
pub(super) const TRACK: &[Explained] = &[
    foreign("script", "write `exec = [\"/usr/local/bin/check\"]`"),
    foreign("interval", "write `every`"),
    foreign(
        "weight",
        "what is dead takes the address away, whatever the priorities; take it out",
    ),
];

/// In `listen.NAME.timeouts`.
pub(super) const TIMEOUTS: &[Explained] = &[
    foreign("client", "both sides have one: `idle`"),
    foreign("server", "both sides have one: `idle`"),
    foreign("tunnel", "write `idle`"),
    foreign(
        "queue",
        "a session waits as long as a connection may take: `connect`",
    ),
    foreign("client_fin", "write `half_open`"),
    foreign("server_fin", "write `half_open`"),
];
