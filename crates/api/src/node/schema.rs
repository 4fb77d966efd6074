//! The keys of a node file as types, from which editors get a JSON schema and people the reference
//! page. These types describe; what reads a file is `keys`. A test holds the two together.
#![expect(
    dead_code,
    reason = "the types are described by schemars and never built"
)]

use mainstay_ids::duration::display;
use mainstay_model::{gateway as model, listen, vip};
use schemars::JsonSchema;

use super::defaults;
use crate::file::schema::schema_of;
use crate::file::units::display_size;

/// The JSON schema of the node file, for editors that complete and check TOML.
pub fn schema() -> serde_json::Value {
    schema_of::<NodeFile>()
}

/// A node file says what a machine runs under `mainstay run --config FILE`. It is TOML. `${NAME}`
/// and `${NAME:-default}` in any text are filled in from the environment of `mainstay run`, and
/// `$${NAME}` stands for `${NAME}` itself. The file is looked at once a second and on SIGHUP: what
/// changed is put in force without losing a request, or told with its place if it cannot be, and
/// then all stays as it was. `roles`, `state`, `address`, `api`, `broker`, `forward` and `workers` are read at
/// the start only.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, title = "Mainstay node file")]
struct NodeFile {
    /// What the node does: `control` decides and answers the command line, `agent` runs instances
    /// (with `control` only), `gateway` lets clients in, `broker` has queues of messages, `vip` holds floating addresses (whoever has
    /// `[vip.NAME]` has this role, too).
    #[schemars(extend("default" = defaults::ROLES.map(super::Role::as_str)), length(min = 1))]
    roles: Option<Vec<Role>>,
    /// The directory in which all state is kept, relative to that of the file. Commands are told it
    /// with `--state` or MAINSTAY_STATE.
    #[schemars(extend("default" = defaults::STATE))]
    state: Option<String>,
    /// The address of this machine at which instances listen: `HOST` in their environment. The
    /// default is reached from this machine alone; other machines need one that they have a way to.
    #[schemars(extend("default" = defaults::ADDRESS.to_string(), "examples" = ["10.0.0.7"]))]
    address: Option<String>,
    /// Service files that are declared at the start, on SIGHUP, and when this file changed. A
    /// service that is in none of them any more is kept until `mainstay down`.
    #[schemars(extend("default" = serde_json::json!([])))]
    services: Option<ServiceFiles>,
    /// Where the command line and programs reach the control centre. Its unix socket is `api.sock`
    /// in the state directory.
    api: Option<Api>,
    /// The entry of clients.
    gateway: Option<Gateway>,
    /// The gateway's entries to servers that Mainstay did not start: `[listen.NAME]` each.
    listen: Option<Listens>,
    /// The message queue of this machine, AMQP 0-9-1 as RabbitMQ speaks it. With the role `broker` only.
    broker: Option<Broker>,
    /// Where services are found by name, `SERVICE.mainstay.internal`; by default nowhere.
    names: Option<Names>,
    /// Forwarding of connections to service addresses, below HTTP: for every program and protocol.
    forward: Option<Forward>,
    /// Addresses that several machines can hold, and one holds: `[vip.NAME]` each.
    vip: Option<Vips>,
    /// Backups that are made by themselves; by default none are.
    backup: Option<Backup>,
}

/// Service addresses in these networks are not the gateway's: connections to them, of TCP and UDP,
/// from this machine and through it, are led to instances by the kernel, by weights alone. Read at the
/// start only.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "forward"))]
#[expect(clippy::struct_field_names, reason = "it is the kernel's word")]
struct Forward {
    /// The network of service addresses, or a list of up to 16. Nothing else may use it. `auto`
    /// addresses of services are picked from the first.
    range: RangeOrRanges,
    /// What forwards: `nft` (maps of nftables), `iptables` (a rule of weight 1/i for each instance),
    /// `userspace` (copies, without root), or `auto`, the first of them that the machine can have.
    #[schemars(extend("default" = "auto"))]
    back_end: Option<BackEnd>,
    /// Whether bytes are counted for each instance; by `nft` only, and without packets of TCP that only
    /// open, acknowledge or close.
    #[schemars(extend("default" = defaults::COUNT))]
    count: Option<bool>,
    /// Whether this machine answers ARP for service addresses, so that others on its links reach them
    /// without a route. Only one machine of a link may.
    #[schemars(extend("default" = defaults::ANSWER_ARP))]
    answer_arp: Option<bool>,
    /// Whether the agent may switch on that this host forwards packets (`net.ipv4.ip_forward`, and that of
    /// IPv6) when containers or other hosts need it to reach instances on other hosts; by `nft` only. Where
    /// it did, nothing but connections to service addresses is forwarded, and `mainstay purge` takes it
    /// back. With `false` that is left to whoever needs it.
    #[schemars(extend("default" = defaults::IP_FORWARD))]
    ip_forward: Option<bool>,
    /// Where `/metrics` of forwarding is, for Prometheus: a loopback address, or `"off"` for nowhere.
    #[schemars(extend("default" = defaults::METRICS.to_string()))]
    metrics: Option<BindOrOff>,
}

/// A network, or a list of networks.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = serde_json::json!(["10.96.0.0/16", ["10.96.0.0/16", "fd96::/112"]])))]
enum RangeOrRanges {
    One(String),
    Several(Vec<String>),
}

#[derive(JsonSchema)]
#[schemars(inline, rename_all = "snake_case")]
enum BackEnd {
    Auto,
    Nft,
    Iptables,
    Userspace,
}

#[derive(JsonSchema)]
#[schemars(inline, rename_all = "snake_case")]
enum Role {
    Control,
    Agent,
    Gateway,
    Broker,
    Vip,
}

/// A path, or a list of paths, relative to the directory of the file.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = serde_json::json!(["shop.toml", ["shop.toml", "tools.toml"]])))]
enum ServiceFiles {
    One(String),
    Several(Vec<String>),
}

/// Tables of listeners by name.
#[derive(JsonSchema)]
struct Listens(std::collections::BTreeMap<String, Listen>);

/// An entry to servers that Mainstay did not start: what is `listen` for HAProxy. A change of
/// servers, weights, checks and limits is put in force without cutting a session. Of a server that
/// is removed, and of a listener, the sessions have `timeouts.drain` to end.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "listen.NAME"))]
struct Listen {
    /// Where clients enter: an address, or a list of up to 16.
    bind: BindOrBinds,
    /// Up to 256 servers: an address each (`"10.0.0.1:5672"`; names are not looked up), or a table
    /// `{ address, name, weight, backup, connections }`. `name` (by default the address) is what
    /// the statistics show; `weight` is 0 to 256, by default 1; one that is `backup` serves only
    /// while no other can; `connections` is how many sessions it may have, with `http` requests at
    /// once, while more wait.
    servers: Vec<Server>,
    /// `tcp` carries bytes, whatever they mean, a server for each session; `http` brings each request
    /// to a server of its own choice.
    #[schemars(extend("default" = "tcp"))]
    mode: Option<Mode>,
    /// How a server is chosen for a session: the one with the fewest for its weight, one after the
    /// other, the better of two at random, or by the client's address, which keeps its server. With
    /// `http` the first or the last of these: the better of two for a request, by how fast and how
    /// busy they are, is what the first stands for.
    #[schemars(extend("default" = listen::Balance::default().as_str()))]
    balance: Option<Balance>,
    /// How servers are tried; `"off"`: not at all.
    #[schemars(extend("default" = serde_json::json!({ "tcp": true })))]
    check: Option<CheckOrOff>,
    /// Whether clients are proxies that say for whom they connect.
    proxy: Option<Proxy>,
    /// Tells servers who the client is, by the PROXY protocol in this version. Servers must expect
    /// it. By default they are not told. Not with `http`, which tells it in `X-Forwarded-For`.
    send_proxy: Option<ProxyVersion>,
    /// How long what may take.
    timeouts: Option<Timeouts>,
    /// Sessions at once, with `http` connections of clients. More wait in the kernel's queue.
    #[schemars(
        range(min = 1, max = listen::CONNECTIONS_MAX),
        extend("default" = listen::CONNECTIONS)
    )]
    connections: Option<u32>,
    /// What becomes of a server's sessions when it is found to be down: `keep`, or `close`, so that
    /// clients of a server that hangs connect anew.
    #[schemars(extend("default" = "keep"))]
    on_down: Option<OnDown>,
    /// How long a server that came up takes to its full share; by default no time. Not with `http`,
    /// where it is 10s.
    slow_start: Option<Duration>,
}

/// One address, or several.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
enum BindOrBinds {
    One(Bind),
    Several(Vec<Bind>),
}

#[derive(JsonSchema)]
#[schemars(inline, rename_all = "snake_case")]
enum Mode {
    Tcp,
    Http,
}

#[derive(JsonSchema)]
#[schemars(inline, rename_all = "kebab-case")]
enum Balance {
    LeastConnections,
    RoundRobin,
    Random,
    Source,
}

#[derive(JsonSchema)]
#[schemars(inline, rename_all = "snake_case")]
enum ProxyVersion {
    V1,
    V2,
}

#[derive(JsonSchema)]
#[schemars(inline, rename_all = "snake_case")]
enum OnDown {
    Keep,
    Close,
}

/// A server's address, or a table.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
enum Server {
    Address(String),
    More(ServerTable),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, inline)]
struct ServerTable {
    address: String,
    name: Option<String>,
    #[schemars(range(min = 0, max = listen::WEIGHT_MAX))]
    weight: Option<u32>,
    backup: Option<bool>,
    #[schemars(range(min = 1, max = listen::CONNECTIONS_MAX))]
    connections: Option<u32>,
}

/// A check, or `"off"`.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
enum CheckOrOff {
    Check(Check),
    Off(Off),
}

#[derive(JsonSchema)]
#[schemars(inline, rename_all = "snake_case")]
enum Off {
    Off,
}

/// How servers are tried: one of `tcp`, `get` and `amqp`. Without any, `tcp`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "listen.NAME.check"))]
struct Check {
    /// A connection is accepted.
    tcp: Option<bool>,
    /// GET of this path is answered with a status of 200 to 399.
    get: Option<String>,
    /// Exactly this status is wanted of `get`.
    #[schemars(range(min = 100, max = 599))]
    expect: Option<u32>,
    /// A connection of AMQP 0-9-1 begins: the broker takes clients, which an open port does not
    /// say.
    amqp: Option<bool>,
    /// The time between two checks of a server, at least 10ms.
    #[schemars(extend("default" = display(listen::CHECK_EVERY)))]
    every: Option<Duration>,
    /// How long a check may take before it counts as failed.
    #[schemars(extend("default" = display(listen::CHECK_TIMEOUT)))]
    timeout: Option<Duration>,
    /// Failures in a row that take a server out.
    #[schemars(range(min = 1, max = 100), extend("default" = listen::CHECK_FALL))]
    fall: Option<u32>,
    /// Passes in a row that take it in again. One that goes down again and again needs more each
    /// time.
    #[schemars(range(min = 1, max = 100), extend("default" = listen::CHECK_RISE))]
    rise: Option<u32>,
}

/// Proxies in front that say by the PROXY protocol, versions 1 and 2, for whom they connect.
/// Whoever does not say it is refused, and whoever is not in `from`, too.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "listen.NAME.proxy"))]
struct Proxy {
    /// Whether it is expected.
    #[schemars(extend("default" = true))]
    accept: Option<bool>,
    /// The networks that are believed, `"10.0.0.0/8"`, up to 64. Required with `accept`.
    from: Option<Vec<String>>,
}

/// How long what may take.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "listen.NAME.timeouts"))]
struct Timeouts {
    /// A connection to a server. A session also waits so long for a server that is full or down.
    #[schemars(extend("default" = display(listen::CONNECT)))]
    connect: Option<Duration>,
    /// A session without a byte in either direction. Dead peers are found by TCP's keep-alive
    /// within two minutes, whatever this is.
    #[schemars(extend("default" = display(listen::IDLE)))]
    idle: Option<Duration>,
    /// The silence of one side after the other has finished.
    #[schemars(extend("default" = display(listen::HALF_OPEN)))]
    half_open: Option<Duration>,
    /// The sessions of a removed server or listener.
    #[schemars(extend("default" = display(listen::DRAIN)))]
    drain: Option<Duration>,
}

/// Tables of floating addresses by name.
#[derive(JsonSchema)]
struct Vips(std::collections::BTreeMap<String, Vip>);

/// A floating address, by VRRP (RFC 9568), together with other machines that have the same `vrid`
/// and `address`, and Mainstay or keepalived. Needs root. A change of these tables restarts the
/// process that holds the addresses, which offers them to others first.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "vip.NAME"))]
struct Vip {
    /// The address with its network, or a list of up to 20 of one family, which move together:
    /// `"10.0.0.100/32"`. Without a network it is the address alone.
    address: AddressOrAddresses,
    /// The interface, which has an address of its own.
    interface: String,
    /// The number of the virtual router on its link, the same on all machines.
    #[schemars(range(min = 1, max = 255))]
    vrid: u32,
    /// Which VRRP is spoken; 2 is the default of keepalived.
    #[schemars(range(min = 2, max = 3), extend("default" = 3))]
    version: Option<u32>,
    /// Who is preferred: the greater. Between equals the greater address wins.
    #[schemars(range(min = 1, max = 255), extend("default" = vip::PRIORITY))]
    priority: Option<u32>,
    /// Whether the address is taken from a holder with a smaller priority: `false`, `true`, or after
    /// how long, as in `"30s"`.
    #[schemars(extend("default" = false))]
    preempt: Option<Preempt>,
    /// The time between two adverts, in steps of 10ms; with `version = 2` in whole seconds. A holder
    /// that is silent for three of them and a little more is taken for dead. Less than 100ms needs
    /// real-time scheduling, and is 100ms without it.
    #[schemars(extend("default" = display(vip::ADVERT)))]
    advert: Option<Duration>,
    /// The other machines, where the network carries no multicast: each gets adverts of its own, and
    /// no other one is believed. Up to 16 addresses.
    #[schemars(extend("default" = serde_json::json!([])))]
    peers: Option<Vec<String>>,
    /// Whether the address has the hardware address of the virtual router (RFC 9568, 7.3), which moves along, so that no
    /// neighbour has to learn another one: keepalived's `use_vmac`. Not with `peers`, and not where a network lets each
    /// machine have one hardware address alone.
    #[schemars(extend("default" = false))]
    virtual_mac: Option<bool>,
    /// What must work for the address to be here: `"gateway"`, or tables. By default the gateway, if
    /// the node has one.
    track: Option<Vec<Track>>,
    /// What happens when it does not: `yield-at-once` offers the address to the others at once;
    /// `restart-then-yield` waits 500ms for a restart first, except after three deaths in 10s.
    #[schemars(extend("default" = "yield-at-once"))]
    on_dead: Option<OnDead>,
    /// A program and its arguments that is run at each change, with `INSTANCE`, the name,
    /// `MASTER`, `BACKUP`, `FAULT` or `STOP`, and the priority behind them, as keepalived's `notify`.
    #[schemars(extend("default" = serde_json::json!([])))]
    notify: Option<Vec<String>>,
}

/// One address, or several.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
enum AddressOrAddresses {
    One(String),
    Several(Vec<String>),
}

/// Yes, no, or after how long.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
enum Preempt {
    Switch(bool),
    After(Duration),
}

#[derive(JsonSchema)]
#[schemars(inline, rename_all = "kebab-case")]
enum OnDead {
    YieldAtOnce,
    RestartThenYield,
}

/// `"gateway"`, or a table.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
enum Track {
    Named(TrackName),
    More(TrackTable),
}

#[derive(JsonSchema)]
#[schemars(inline, rename_all = "snake_case")]
enum TrackName {
    Gateway,
}

/// What must work: one of `process`, `tcp` and `exec`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, inline)]
struct TrackTable {
    /// A process of this name runs; its end is seen at once.
    process: Option<String>,
    /// Connections are accepted there; a port alone is this machine's.
    tcp: Option<String>,
    /// A program with its arguments ends with code 0.
    exec: Option<Vec<String>>,
    /// The time between two looks at a port or runs of a program, at least 20ms.
    every: Option<Duration>,
    /// How long a look may take before it counts as failed.
    timeout: Option<Duration>,
    /// Failed looks in a row that count.
    #[schemars(range(min = 1, max = 100))]
    fall: Option<u32>,
    /// Passed looks in a row that count.
    #[schemars(range(min = 1, max = 100))]
    rise: Option<u32>,
    /// A program with its arguments that starts it again when it has died.
    restart: Option<Vec<String>>,
}

/// Where the API is.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "api"))]
struct Api {
    /// A loopback address; calls there take the token, which is in `token` in the state directory.
    #[schemars(extend("default" = defaults::API))]
    address: Option<Bind>,
    /// The group whose members may use the unix socket, beside this account and root. They can run
    /// programs as this account.
    group: Option<String>,
}

/// The message queue of this machine. Read at the start only.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "broker"))]
struct Broker {
    /// Where clients connect; `127.0.0.1` stands for `::1`, too. The user `guest` comes from this machine alone.
    #[schemars(extend("default" = defaults::broker().to_string()))]
    bind: Option<Bind>,
    /// Publishers wait while the broker's process takes more memory than this; by default two fifths of the
    /// machine's.
    memory: Option<Size>,
    /// Publishers wait while the disk has less room than this.
    #[schemars(extend("default" = display_size(defaults::DISK_FREE)))]
    disk_free: Option<Size>,
    /// A second entry, with TLS.
    tls: Option<BrokerTls>,
    /// A consumer that keeps a delivery for longer without an acknowledgement loses its channel, and others get what it
    /// had; at least `"1s"`. Where one message is worked on for days, write for instance `"7d"`.
    #[schemars(extend("default" = display(defaults::CONSUMER_TIMEOUT)))]
    consumer_timeout: Option<Duration>,
    /// Queues that clients may declare in each virtual host; by default any number. What is there already stays, and
    /// operators and definitions are not held to it.
    #[schemars(range(min = 1, max = 1_000_000))]
    queues: Option<u32>,
    /// Where `/metrics` of the broker is, for Prometheus: a loopback address, or `"off"` for nowhere.
    #[schemars(extend("default" = defaults::broker_metrics().to_string()))]
    metrics: Option<BindOrOff>,
}

/// Clients of the broker that speak TLS 1.2 or 1.3. The files are looked at once a second: a certificate that was
/// renewed is shown to connections that come after it; one that cannot be used is told, and the one from before
/// stays. Relative paths begin at the directory of this file.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "broker.tls"))]
struct BrokerTls {
    /// Where clients connect; by default port 5671 beside `bind` in `[broker]`.
    bind: Option<Bind>,
    /// The certificate of this machine, and those between it and its authority, in PEM.
    certificate: String,
    /// Its key, in PEM, without a passphrase.
    key: String,
    /// Clients must show a certificate of one of these authorities, in PEM; they say their user and password all the
    /// same. By default they need none.
    client_ca: Option<String>,
}

/// Backups of what the node must not lose: what is declared, and the broker's queues with their messages. Each is verified
/// before an older one is removed. A change is in force with the next one.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "backup"))]
struct Backup {
    /// How often one is made, 10 seconds at least. One that is older than twice that is told by `mainstay status`.
    #[schemars(extend("default" = display(defaults::BACKUP_EVERY)))]
    every: Option<Duration>,
    /// How many are kept, up to 10,000.
    #[schemars(range(min = 1, max = 10_000), extend("default" = defaults::BACKUP_KEEP))]
    keep: Option<u32>,
    /// The directory into which they go, relative to that of the file. It has to be there, and not within `state`: name one
    /// below the mount point of a disk, so that it is missing while that is not mounted.
    to: String,
}

/// A server of names, for `SERVICE.mainstay.internal`; other names are asked of the servers that this
/// machine asked before. With the role `agent` only. A change is in force within a few seconds, and no
/// query is lost by it.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "names"))]
struct Names {
    /// Where names are answered, by UDP and TCP: one address of this machine, which programs and
    /// containers that are to ask can reach.
    listen: Bind,
    /// Up to three servers that are asked for other names, one after the other, as `"192.0.2.1"` or
    /// `"192.0.2.1:5353"`; `[]` for none. By default those of `/etc/resolv.conf`, without this one.
    upstream: Option<Vec<String>>,
    /// Up to 64 networks that are answered beside this machine itself, as `"172.17.0.0/16"`. Others get no
    /// answer at all.
    #[schemars(extend("default" = serde_json::json!([])))]
    allow: Option<Vec<String>>,
}

/// The entry of clients.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "gateway"))]
struct Gateway {
    /// Where clients enter.
    #[schemars(extend("default" = defaults::HTTP))]
    http: Option<Bind>,
    /// Where the statistics are shown; `"off"` for nowhere.
    #[schemars(extend("default" = defaults::STATS))]
    stats: Option<BindOrOff>,
    /// A name and a password of at least 8 characters, `"NAME:PASSWORD"`, that whoever looks at the
    /// statistics must know. Required if `stats` is no loopback address.
    stats_auth: Option<String>,
    /// How many threads serve; by default one for each processor. Their number is fixed when the
    /// sockets are made, so a change is in force after the next start.
    #[schemars(range(min = 1, max = 256))]
    workers: Option<u32>,
    /// Whether each request is a line of JSON in `logs/access.log` in the state directory.
    #[schemars(extend("default" = defaults::ACCESS_LOG))]
    access_log: Option<bool>,
    /// How long requests and upgraded connections that are under way may go on when the gateway
    /// ends, hands over to its successor, or lets the clients of a floating address go that is
    /// about to move. A change holds for gateways that start after it.
    #[schemars(extend("default" = display(model::DRAIN)))]
    drain: Option<Duration>,
    /// Whether clients are proxies that say for whom they connect.
    proxy: Option<Proxy>,
    /// What clients and instances may cost.
    limits: Option<Limits>,
}

/// What clients and instances may cost. A change holds for what begins after it.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "gateway.limits"))]
struct Limits {
    /// The longest head of a request, with its line and the ends of its lines, from 8KiB to 1MiB.
    /// Longer ones are answered 431.
    #[schemars(extend("default" = display_size(model::HEAD_LEN.into())))]
    head_len: Option<Size>,
    /// The most fields in a head. More are answered 431.
    #[schemars(
        range(min = *model::HEAD_FIELDS_RANGE.start(), max = *model::HEAD_FIELDS_RANGE.end()),
        extend("default" = model::HEAD_FIELDS)
    )]
    head_fields: Option<u32>,
    /// For a client to send a whole head, from its first byte; then 408.
    #[schemars(extend("default" = display(model::HEAD_TIME)))]
    head_time: Option<Duration>,
    /// Without a byte of a request's body; then 408.
    #[schemars(extend("default" = display(model::BODY_IDLE)))]
    body_idle: Option<Duration>,
    /// Without a byte that the client reads of its answer; then the connection ends.
    #[schemars(extend("default" = display(model::WRITE_IDLE)))]
    write_idle: Option<Duration>,
    /// For an instance, from the end of the request to the head of its answer; then 504.
    #[schemars(extend("default" = display(model::ANSWER_TIME)))]
    answer_time: Option<Duration>,
    /// From the head of a request to the end of its answer; not for upgraded connections
    /// (WebSocket).
    #[schemars(extend("default" = display(model::REQUEST_TIME)))]
    request_time: Option<Duration>,
    /// For a client's connection between two requests.
    #[schemars(extend("default" = display(model::IDLE_TIME)))]
    idle_time: Option<Duration>,
    /// Clients' connections at once. More wait in the kernel's queue.
    #[schemars(
        range(min = *model::CONNECTIONS_RANGE.start(), max = *model::CONNECTIONS_RANGE.end()),
        extend("default" = model::CONNECTIONS)
    )]
    connections: Option<u32>,
    /// Of them from one address (IPv6: from one /64), at most `connections`; by default a quarter
    /// of them.
    #[schemars(
        range(min = *model::CONNECTIONS_RANGE.start(), max = *model::CONNECTIONS_RANGE.end()),
        extend("default" = model::CONNECTIONS / model::CONNECTIONS_PER_ADDRESS_PART)
    )]
    connections_per_address: Option<u32>,
    /// After so many requests a connection ends in good order.
    #[schemars(
        range(
            min = *model::REQUESTS_PER_CONNECTION_RANGE.start(),
            max = *model::REQUESTS_PER_CONNECTION_RANGE.end()
        ),
        extend("default" = model::REQUESTS_PER_CONNECTION)
    )]
    requests_per_connection: Option<u32>,
    /// After this time a connection ends in good order.
    #[schemars(extend("default" = display(model::CONNECTION_AGE)))]
    connection_age: Option<Duration>,
    /// Requests of one service that wait for an instance. More are answered 503.
    #[schemars(
        range(min = *model::QUEUE_LEN_RANGE.start(), max = *model::QUEUE_LEN_RANGE.end()),
        extend("default" = model::QUEUE_LEN)
    )]
    queue_len: Option<u32>,
    /// How long each of them waits; then 503.
    #[schemars(extend("default" = display(model::QUEUE_TIME)))]
    queue_time: Option<Duration>,
    /// The longest body that is kept to be sent again to another instance, up to 16MiB.
    #[schemars(extend("default" = display_size(model::REPLAY_LEN.into())))]
    replay_len: Option<Size>,
    /// Requests at once on one connection of HTTP/2.
    #[schemars(
        range(min = *model::H2_STREAMS_RANGE.start(), max = *model::H2_STREAMS_RANGE.end()),
        extend("default" = model::H2_STREAMS)
    )]
    h2_streams: Option<u32>,
}

/// An IP address with a port, or a port alone for all IPv4 addresses. `[::]` is all addresses of
/// both kinds. Port 0 is one that the kernel picks.
#[derive(JsonSchema)]
#[schemars(extend(
    "pattern" = r"^[0-9a-fA-F:.\[\]]*:[0-9]{1,5}$|\$\{",
    "examples" = [":80", "127.0.0.1:8080", "[::]:80"]
))]
struct Bind(String);

/// An address as above, or `"off"`.
#[derive(JsonSchema)]
#[schemars(extend(
    "pattern" = r"^off$|^[0-9a-fA-F:.\[\]]*:[0-9]{1,5}$|\$\{",
    "examples" = [":8888", "off"]
))]
struct BindOrOff(String);

/// Whole numbers with units, one after the other; the units are `ms`, `s`, `m`, `h` and `d`.
#[derive(JsonSchema)]
#[schemars(extend(
    "pattern" = r"^([0-9]+(ms|s|m|h|d))+$|\$\{",
    "examples" = ["250ms", "10s", "1m30s"]
))]
struct Duration(String);

/// A whole number with `B`, `KB`, `MB`, `GB` (powers of 1000), `KiB`, `MiB` or `GiB` (of 1024).
#[derive(JsonSchema)]
#[schemars(extend(
    "pattern" = r"^[0-9]+([KMG]i?)?B$|\$\{",
    "examples" = ["64KiB", "256KB"]
))]
struct Size(String);
