//! Keys that Mainstay's design has and this version does not, and keys that other tools have: each
//! is refused with what to do now instead of "unknown".

use super::problem::Code;

/// A key that is not read, and what to say of it.
pub(crate) struct Explained {
    pub(crate) key: &'static str,
    pub(crate) code: Code,
    pub(crate) help: &'static str,
}

pub(crate) const fn later(key: &'static str, help: &'static str) -> Explained {
    let code = Code::NotInThisVersion;
    Explained { key, code, help }
}

pub(crate) const fn foreign(key: &'static str, help: &'static str) -> Explained {
    let code = Code::UnknownKey;
    Explained { key, code, help }
}

const NODE_FILE: &str = "this belongs to the file of a node; `mainstay dev` chooses its addresses \
    by its options, and a service file declares services only";

/// At the top of the file.
pub(crate) const FILE: &[Explained] = &[
    later("gateway", NODE_FILE),
    later("listen", NODE_FILE),
    later("vip", NODE_FILE),
    later("roles", NODE_FILE),
    later("site", NODE_FILE),
    later(
        "queue",
        "declare queues at the broker that the services use",
    ),
];

/// In a service.
pub(crate) const SERVICE: &[Explained] = &[
    later("image", "give a program on this machine by `exec`"),
    later(
        "scale",
        "set `instances`, or use `mainstay scale` while it runs",
    ),
    later("place", "all instances run on this machine; take it out"),
    foreign(
        "job",
        "a program that runs once before a rollout is `before`, one that runs at times `schedule`",
    ),
    foreign("cron", "write `schedule = \"30 3 * * *\"`"),
    later(
        "singleton",
        "write `instances = 1`; during a rollout there are two for a moment",
    ),
    foreign("canary", "write `rollout = { canary = 1 }`"),
    foreign(
        "port",
        "Mainstay chooses a port for each instance and hands it over as PORT and as `{port}` in \
         `exec` and `env`; where others reach the service is its `address`",
    ),
    foreign(
        "secrets",
        "write each into `env` by its name, as in `env = { DB_PASSWORD = \"secret:db\" }`",
    ),
    foreign("args", "put the arguments behind the program in `exec`"),
];

/// In `http`.
pub(super) const HTTP: &[Explained] = &[
    foreign(
        "hosts",
        "write a list: `http = [{ host = \"a\" }, { host = \"b\" }]`",
    ),
    foreign(
        "paths",
        "write a list: `http = [{ path = \"/a\" }, { path = \"/b\" }]`",
    ),
    foreign(
        "port",
        "which ports the gateway listens on is the node's affair; take it out",
    ),
    foreign("header", "write `headers = { NAME = \"value\" }`"),
    foreign("cookie", "write `cookies = { NAME = \"value\" }`"),
    foreign("method", "write `methods = [\"GET\"]`"),
    foreign(
        "forwarded",
        "it stands beside `http`, in the service: `forwarded = \"both\"`",
    ),
    later("tls", "put a server that ends TLS in front"),
];

/// In `redirect`.
pub(super) const REDIRECT: &[Explained] = &[
    foreign("code", "write `status = 301`"),
    foreign(
        "location",
        "write `to = \"https://example.com{path}{query}\"`",
    ),
    foreign("from", "write `host` and `path`"),
];

/// In `retry`.
pub(super) const RETRY: &[Explained] = &[
    foreign(
        "attempts",
        "a request is sent at most four times, within a budget that all share",
    ),
    foreign("budget", "repeats are at most 20 % of all requests"),
    foreign("on", "what is safe to send again is; see docs/gateway.md"),
];

/// In `sticky`.
pub(super) const STICKY: &[Explained] = &[
    foreign("path", "the cookie holds for the whole host"),
    foreign("ip", "write `source = true`"),
];

/// In `rewrite`.
pub(super) const REWRITE: &[Explained] = &[
    foreign(
        "headers",
        "write `request = { set = { .. } }` or `response = { set = { .. } }`",
    ),
    foreign("strip", "write `path = { strip = \"/shop\" }`"),
    foreign(
        "replace",
        "write `path = { replace = [\"/old\", \"/new\"] }`",
    ),
    foreign(
        "regex",
        "paths are changed by whole segments at their beginning",
    ),
];

/// In `rewrite.request` and `rewrite.response`.
pub(super) const CHANGES: &[Explained] = &[
    foreign("delete", "write `remove = [\"NAME\"]`"),
    foreign("append", "write `add = { NAME = \"value\" }`"),
    foreign("replace", "write `set = { NAME = \"value\" }`"),
];

/// In `timeouts`.
pub(super) const TIMEOUTS: &[Explained] = &[
    foreign("response", "write `answer`"),
    foreign(
        "server",
        "write `answer`: until the head of an instance's answer",
    ),
    foreign(
        "client",
        "how long a client may take is the gateway's affair, not one service's",
    ),
    foreign("queue", "write `queue = { time = \"1s\" }`"),
    foreign(
        "idle",
        "how long a client may take is the gateway's affair, not one service's",
    ),
];

/// In `rollout.canary`.
pub(super) const CANARY: &[Explained] = &[
    foreign(
        "headers",
        "write `header = { NAME = \"value\" }`: any one of them is enough",
    ),
    foreign(
        "cookies",
        "write `cookie = { NAME = \"value\" }`: any one of them is enough",
    ),
    foreign("share", "write `weight = \"0.1%\"`"),
    foreign("percent", "write `weight = \"0.1%\"`"),
    foreign("count", "write `instances = 1`"),
];

/// In `health`.
pub(crate) const HEALTH: &[Explained] = &[
    later("grpc", "use `tcp = true`, or a program by `exec`"),
    later("amqp", "use `tcp = true`, or a program by `exec`"),
    foreign("path", "write the path as `get = \"/health\"`"),
    foreign("port", "the probe goes to the instance's own port"),
];

/// In `rollout`.
pub(crate) const ROLLOUT: &[Explained] = &[
    later("steps", "write one `step`, which is repeated"),
    foreign(
        "order",
        "a new instance is always started before an old one is stopped",
    ),
];

/// In `limits`.
pub(crate) const LIMITS: &[Explained] = &[
    foreign("mem", "write `memory = \"256MiB\"`"),
    foreign("ram", "write `memory = \"256MiB\"`"),
    foreign("threads", "write `pids`, which counts threads, too"),
    foreign(
        "swap",
        "`memory` counts what is swapped out, too: there is no more of it",
    ),
];

/// In the other tables.
pub(crate) const NONE: &[Explained] = &[];
