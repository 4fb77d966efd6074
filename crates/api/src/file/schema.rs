//! The keys of a service file as types, from which editors get a JSON schema and people the
//! reference page. These types describe; what reads a file is `service`. A test holds the two
//! together, key by key.
#![expect(
    dead_code,
    reason = "the types are described by schemars and never built"
)]

use std::collections::BTreeMap;

use mainstay_ids::duration::display;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema};

use super::defaults;
use super::limits;
use super::units::display_size;

/// The JSON schema of the service file, for editors that complete and check TOML.
pub fn schema() -> serde_json::Value {
    schema_of::<ServiceFile>()
}

/// The schema of a file that is described by a type.
pub(crate) fn schema_of<T: JsonSchema>() -> serde_json::Value {
    let settings = SchemaSettings::draft2020_12().with_transform(NoNull);
    settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// TOML has no null: a key that need not be written is left out.
#[derive(Clone)]
struct NoNull;

impl Transform for NoNull {
    fn transform(&mut self, schema: &mut Schema) {
        let is_null = |value: &serde_json::Value| {
            value.is_null() || value == "null" || value["type"] == "null"
        };
        for key in ["type", "enum", "anyOf"] {
            let Some(alternatives) = schema.get_mut(key).and_then(|value| value.as_array_mut())
            else {
                continue;
            };
            alternatives.retain(|value| !is_null(value));
            let [only] = alternatives.as_slice() else {
                continue;
            };
            let only = only.clone();
            match (key, only) {
                ("anyOf", serde_json::Value::Object(only)) => {
                    schema.remove(key);
                    for (key, value) in only {
                        schema.insert(key, value);
                    }
                }
                (_, only) => {
                    schema.insert(key.to_owned(), only);
                }
            }
        }
        transform_subschemas(self, schema);
    }
}

/// A service file declares the services that Mainstay keeps available. It is TOML. `${NAME}` and
/// `${NAME:-default}` in any text are filled in from the environment of the command that reads the
/// file, and `$${NAME}` stands for `${NAME}` itself; a variable that is not set and has no default
/// is an error.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, title = "Mainstay service file")]
struct ServiceFile {
    /// The services by name. A name is a DNS label: a-z, 0-9 and `-`, up to 63 characters, and
    /// starts with a letter.
    #[schemars(extend("propertyNames" = serde_json::json!({
        "pattern": "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"
    })))]
    service: BTreeMap<String, Service>,
}

/// One service.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "service.NAME"))]
struct Service {
    /// The program and its arguments, each a text of its own; no shell splits them. The program is
    /// an absolute path, a path relative to `dir` if it holds a `/`, or a bare name that is looked
    /// up in PATH.
    #[schemars(length(min = 1, max = limits::ARGV_MAX))]
    exec: Vec<Template>,
    /// The directory in which instances run, relative to that of the file, which is the default.
    dir: Option<String>,
    /// The account under which instances run. By default, when Mainstay runs as root, the account
    /// `mainstay-services` if there is one, else `nobody`, never root; otherwise the account that
    /// runs Mainstay. Another one takes root.
    user: Option<String>,
    /// Environment variables of the instances. They also get PATH, HOME and LANG of the agent, and
    /// HOST and PORT, where they are to listen, and of each service in `needs` that has an address,
    /// for instance PAYMENTS_ADDRESS, PAYMENTS_HOST and PAYMENTS_PORT, unless these are set here.
    /// HOST, PORT and names that start with MAINSTAY_ cannot be set. A value typed as `secret:NAME` is the secret that `mainstay secret set NAME`
    /// has set; the secret is the whole value.
    #[schemars(extend("default" = serde_json::json!({})))]
    env: Option<BTreeMap<String, Template>>,
    /// Where other services reach this one: `"auto"`, or an address and port. One of 127.0.0.0/8 is
    /// the gateway's; one in `range` of the node's `[forward]` is forwarded by the kernel, for every
    /// protocol on TCP and UDP. Without it the service has no address.
    address: Option<Address>,
    /// Which requests at the gateway's entry belong to the service; without it, none.
    http: Option<HttpMatches>,
    /// How to tell that an instance can serve.
    health: Option<Health>,
    /// How many instances are kept running.
    #[schemars(
        range(min = 0, max = mainstay_model::service::INSTANCES_MAX),
        extend("default" = defaults::INSTANCES)
    )]
    instances: Option<u32>,
    /// How one version replaces another.
    rollout: Option<Rollout>,
    /// How long an instance that is to stop may finish its requests.
    #[schemars(extend("default" = display(defaults::DRAIN)))]
    drain: Option<Duration>,
    /// How long an instance may take from SIGTERM to its end before SIGKILL.
    #[schemars(extend("default" = display(defaults::GRACE)))]
    grace: Option<Duration>,
    /// How much of each instance's output is kept.
    log: Option<Log>,
    /// The objective to which `mainstay prove` holds the service.
    slo: Option<Slo>,
    /// Services of the same file of which one instance must be ready before one of this is first
    /// started, and again after the machine was started anew.
    #[schemars(extend("default" = serde_json::json!([])))]
    needs: Option<Vec<String>>,
    /// A program and its arguments that runs once before each new version is rolled out, with the
    /// service's directory, account and environment: a migration. Only if it exits with 0 does the
    /// rollout begin. It does not run before a rollback.
    #[schemars(length(min = 1, max = limits::ARGV_MAX))]
    before: Option<Vec<Template>>,
    /// The program is no server: it is started at these times and ends by itself. A run is skipped
    /// while the one before goes on; of runs that were missed the last is made up for.
    schedule: Option<Schedule>,
    /// What each instance may use. A limit that cannot be kept keeps instances from starting:
    /// limits take root and cgroups.
    limits: Option<Limits>,
    /// Which requests the gateway sends again.
    retry: Option<Retry>,
    /// By what a client stays with an instance; without it, it does not.
    sticky: Option<Sticky>,
    /// What the gateway changes in requests and answers. It goes with the version: during a rollout
    /// each instance gets what its own version says.
    rewrite: Option<Rewrite>,
    /// Requests at the gateway's entry that are answered with another place to ask at.
    redirect: Option<Redirects>,
    /// In which headers an instance finds client, host and scheme: `x` is `X-Forwarded-For`,
    /// `X-Forwarded-Host` and `X-Forwarded-Proto`, `rfc7239` is `Forwarded`.
    #[schemars(extend("default" = defaults::FORWARDED))]
    forwarded: Option<Forwarded>,
    /// Whether an instance gets `Via: 1.1 mainstay`. Some servers compress nothing that has it.
    #[schemars(extend("default" = defaults::VIA))]
    via: Option<bool>,
    /// Deadlines of the gateway for this service; without a key, those of the gateway.
    timeouts: Option<Timeouts>,
    /// Requests that wait for an instance; without a key, as the gateway has it.
    queue: Option<Queue>,
}

/// Five fields as in crontab(5), in UTC: minute, hour, day of month, month, day of week.
#[derive(JsonSchema)]
#[schemars(extend("examples" = ["30 3 * * mon-fri", "*/15 * * * *"]))]
struct Cron(String);

/// The times alone, or with how long a run may take.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Schedule {
    Times(Cron),
    Table(ScheduleTable),
}

/// When a program that is no server runs.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "service.NAME.schedule"))]
struct ScheduleTable {
    /// The times.
    cron: Cron,
    /// A run that takes longer is stopped.
    #[schemars(extend("default" = display(defaults::SCHEDULE_DEADLINE)))]
    deadline: Option<Duration>,
}

/// A table of `http`, or a list of such tables: a request belongs to the service if any of them
/// holds.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = serde_json::json!([
    { "host": "shop.example.com" },
    [{ "host": "*.example.com", "path": "/shop" }, { "path": "/shop", "headers": { "X-Beta": true } }]
])))]
enum HttpMatches {
    One(Http),
    Many(#[schemars(length(min = 1, max = mainstay_model::route::MATCHES_MAX))] Vec<Http>),
}

/// Requests at the gateway's entry. Of several that hold, one with a host wins over one with `*.`,
/// of these the longer one, and both over one without a host; then the longer path; then the one
/// with more conditions. No two services may have the same.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "service.NAME.http"))]
struct Http {
    /// The host name asked for, without port; `*.example.com` is every host below `example.com`;
    /// without it, any.
    host: Option<String>,
    /// Where the path begins, matched by whole segments.
    #[schemars(extend("default" = defaults::HTTP_PATH))]
    path: Option<String>,
    /// Any of these methods.
    #[schemars(length(min = 1, max = mainstay_model::route::CONDITIONS_MAX))]
    methods: Option<Vec<String>>,
    /// All of these headers, each with this value.
    headers: Option<BTreeMap<String, MatchValue>>,
    /// All of these cookies, each with this value.
    cookies: Option<BTreeMap<String, MatchValue>>,
}

/// A value that a header or a cookie must have, or `true`: it only has to be there.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = serde_json::json!(["2", true])))]
enum MatchValue {
    Text(String),
    Any(#[schemars(extend("const" = true))] bool),
}

/// A table of `redirect`, or a list of such tables.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Redirects {
    One(Redirect),
    Many(#[schemars(length(min = 1, max = mainstay_model::rewrite::REDIRECTS_MAX))] Vec<Redirect>),
}

/// Requests are matched as those of `http`, and against them.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "service.NAME.redirect"))]
struct Redirect {
    /// As in `http`.
    host: Option<String>,
    /// As in `http`.
    #[schemars(extend("default" = defaults::HTTP_PATH))]
    path: Option<String>,
    /// As in `http`.
    #[schemars(length(min = 1, max = mainstay_model::route::CONDITIONS_MAX))]
    methods: Option<Vec<String>>,
    /// As in `http`.
    headers: Option<BTreeMap<String, MatchValue>>,
    /// As in `http`.
    cookies: Option<BTreeMap<String, MatchValue>>,
    /// Where to: begins with `/`, or with `http://` or `https://` and a host.
    to: HeaderText,
    /// 301 and 308 are for ever, 302 and 307 for now; 307 and 308 keep the method.
    #[schemars(
        range(min = 301, max = 308),
        extend("default" = defaults::REDIRECT_STATUS.code())
    )]
    status: Option<u16>,
}

/// Requests without an effect are sent again where that is safe, whatever stands here.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "service.NAME.retry"))]
struct Retry {
    /// The service does what a request with the header `Idempotency-Key` asks for once only,
    /// however often it comes, so that it may be sent again like one without an effect.
    #[schemars(extend("default" = defaults::RETRY_IDEMPOTENCY_KEY))]
    idempotency_key: Option<bool>,
    /// A request without an effect that takes unusually long is sent to a second instance, too, and
    /// the first answer counts.
    #[schemars(extend("default" = defaults::RETRY_HEDGE))]
    hedge: Option<bool>,
}

/// One of `cookie`, `header` and `source`. A client whose instance drains, ends or is ejected is
/// sent to another one at once.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "service.NAME.sticky"))]
struct Sticky {
    /// The gateway gives each client a cookie of this name that names its instance. An instance
    /// more moves nobody.
    cookie: Option<String>,
    /// How long a client keeps the cookie, 1s to 400d; without it, as long as it runs.
    ttl: Option<Duration>,
    /// The value of this header decides. An instance more or less moves only its own share.
    header: Option<String>,
    /// `true`: the client's address decides. An instance more or less moves only its own share.
    #[schemars(extend("const" = true))]
    source: Option<bool>,
}

/// What the gateway changes before an instance sees a request and before a client sees the answer.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "service.NAME.rewrite"))]
struct Rewrite {
    /// The host that the instance sees.
    host: Option<String>,
    /// What becomes of the path.
    path: Option<RewritePath>,
    /// What becomes of the request's headers.
    request: Option<Changes>,
    /// What becomes of the answer's headers; the same keys as `rewrite.request`.
    response: Option<Changes>,
}

/// One of the two. Paths that begin otherwise, by whole segments, stay as they are.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "service.NAME.rewrite.path"))]
struct RewritePath {
    /// This beginning is taken away: with `/shop`, `/shop/7` becomes `/7` and `/shop` becomes `/`.
    strip: Option<String>,
    /// The first of two becomes the second: with `["/old", "/new"]`, `/old/7` becomes `/new/7`.
    #[schemars(length(min = 2, max = 2))]
    replace: Option<Vec<String>>,
}

/// First headers are removed, then set, then added; 32 in all. What frames a message, concerns one
/// connection only or tells the way that it came is the gateway's alone: `Content-Length`,
/// `Transfer-Encoding`, `Connection` and those like it, `Host`, `Via`, `Forwarded`, `X-Forwarded-*`,
/// `X-Request-Id`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "service.NAME.rewrite.request"))]
struct Changes {
    /// These headers are taken out.
    remove: Option<Vec<String>>,
    /// These headers stand there once, with this value, whatever was there.
    set: Option<BTreeMap<String, HeaderText>>,
    /// These headers stand there once more.
    add: Option<BTreeMap<String, HeaderText>>,
}

/// Deadlines, each at least 10ms.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "service.NAME.timeouts"))]
struct Timeouts {
    /// For a connection to an instance, at most 2m; then another instance.
    connect: Option<Duration>,
    /// For an instance, from the last byte sent to it to the head of its answer; then 504.
    answer: Option<Duration>,
    /// From the head of a request to the end of its answer; not for upgraded connections.
    request: Option<Duration>,
}

/// Requests for which there is no instance at the moment, or none that takes one more.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "service.NAME.queue"))]
struct Queue {
    /// How many wait at most; more get 503.
    #[schemars(range(
        min = *mainstay_model::traffic::QUEUE_LEN.start(),
        max = *mainstay_model::traffic::QUEUE_LEN.end()
    ))]
    len: Option<u32>,
    /// How long each waits at most, up to 1m; then 503.
    time: Option<Duration>,
}

/// One of `get`, `tcp` and `exec`, and how often. Without any of the three the check is `tcp`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "service.NAME.health"))]
struct Health {
    /// GET of this path on the instance's port answers 200 to 399.
    get: Option<String>,
    /// `true`: the instance's port accepts a connection.
    #[schemars(extend("const" = true))]
    tcp: Option<bool>,
    /// This program, run in `dir` with the service's environment, exits with 0.
    #[schemars(length(min = 1, max = limits::ARGV_MAX))]
    exec: Option<Vec<Template>>,
    /// The time between two probes, at least 10ms.
    #[schemars(extend("default" = display(defaults::HEALTH_EVERY)))]
    every: Option<Duration>,
    /// How long a probe may take before it counts as failed.
    #[schemars(extend("default" = display(defaults::HEALTH_TIMEOUT)))]
    timeout: Option<Duration>,
    /// How many failed probes in a row take an instance out of traffic.
    #[schemars(
        range(min = *limits::HEALTH_COUNT.start(), max = *limits::HEALTH_COUNT.end()),
        extend("default" = defaults::HEALTH_FALL.get())
    )]
    fall: Option<u32>,
    /// How many passed probes in a row bring it back. The first pass after a start is enough.
    #[schemars(
        range(min = *limits::HEALTH_COUNT.start(), max = *limits::HEALTH_COUNT.end()),
        extend("default" = defaults::HEALTH_RISE.get())
    )]
    rise: Option<u32>,
    /// How long a start may take to its first passed probe before it is ended and tried again;
    /// `"never"` waits for ever.
    #[schemars(extend("default" = display(defaults::HEALTH_START)))]
    start: Option<DurationOrNever>,
    /// An instance whose probes fail for so long without one that passes is ended and started
    /// again; `"never"` only takes it out of traffic.
    #[schemars(extend("default" = display(defaults::HEALTH_RESTART)))]
    restart: Option<DurationOrNever>,
}

/// New instances are started first, and an old one is drained for each new one that is ready.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "service.NAME.rollout"))]
struct Rollout {
    /// How many instances are replaced at a time: a number, or a percentage, rounded up.
    #[schemars(extend("default" = shown_step()))]
    step: Option<Step>,
    /// How long a new instance must be healthy without interruption before it counts as ready.
    /// Shorter than `deadline`.
    #[schemars(extend("default" = display(defaults::ROLLOUT_HOLD)))]
    hold: Option<Duration>,
    /// A new instance that is not ready this long after its start fails the rollout.
    #[schemars(extend("default" = display(defaults::ROLLOUT_DEADLINE)))]
    deadline: Option<Duration>,
    /// A rollout in which for so long no further instance got ready has failed. Not shorter than
    /// `deadline`, and by default as long if that is longer than ten minutes.
    #[schemars(extend("default" = display(defaults::ROLLOUT_PROGRESS)))]
    progress: Option<Duration>,
    /// So many instances of a new version run beside all of the old until `mainstay promote`; a
    /// number, a percentage, rounded up, or a table that says which requests they get. Without it
    /// nobody is asked.
    canary: Option<Canary>,
    /// What a failed rollout leads to: back to the last version that was wholly healthy, or
    /// leaving things as they are.
    #[schemars(extend("default" = defaults::ROLLOUT_ON_FAILURE))]
    on_failure: Option<OnFailure>,
}

/// A number of instances or a percentage of them, each of which gets as much as any other; or a
/// table.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = serde_json::json!([1, "10%", { "weight": "0.1%" }])))]
enum Canary {
    Step(Step),
    Table(CanaryTable),
}

/// Which requests the canaries get, whatever the number of instances; at least one of `weight`,
/// `header` and `cookie`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "service.NAME.rollout.canary"))]
struct CanaryTable {
    /// Their share of all other requests, from `0%` in steps of 0.0001%; without it, none.
    weight: Option<Share>,
    /// How many there are.
    #[schemars(extend("default" = 1))]
    instances: Option<Step>,
    /// A request with any of these headers goes to them for certain.
    header: Option<BTreeMap<String, MatchValue>>,
    /// A request with any of these cookies goes to them for certain.
    cookie: Option<BTreeMap<String, MatchValue>>,
}

/// The output of an instance is written to files that are rotated by size.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "service.NAME.log"))]
struct Log {
    /// The size at which a file is rotated.
    #[schemars(extend("default" = display_size(defaults::LOG_SIZE)))]
    size: Option<Size>,
    /// How many rotated files are kept beside the current one.
    #[schemars(
        range(min = *limits::LOG_KEEP.start(), max = *limits::LOG_KEEP.end()),
        extend("default" = defaults::LOG_KEEP)
    )]
    keep: Option<u32>,
}

/// What one instance may use, with everything that it starts. Without a key it may use as much as
/// there is.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "service.NAME.limits"))]
struct Limits {
    /// Processors, with up to three decimals, from 0.01. An instance that wants more waits.
    #[schemars(range(min = 0.01, max = 1024))]
    cpu: Option<f64>,
    /// Memory, swapped out or not, at least 4MiB. An instance that takes more is killed by the
    /// kernel, and started again.
    memory: Option<Size>,
    /// Processes and threads. An instance that makes more is refused them by the kernel.
    #[schemars(range(min = *limits::PIDS.start(), max = *limits::PIDS.end()))]
    pids: Option<u32>,
    /// Requests that the gateway sends to an instance at once; more wait. Without it, as many as it
    /// answers quickly.
    #[schemars(range(
        min = *mainstay_model::traffic::REQUESTS.start(),
        max = *mainstay_model::traffic::REQUESTS.end()
    ))]
    requests: Option<u32>,
}

/// A service level objective, counted at the client.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-key" = "service.NAME.slo"))]
struct Slo {
    /// The share of requests that must succeed.
    success: Share,
    /// The 99th percentile of latency stays at or below this.
    p99: Duration,
}

/// A text in which `{host}` and `{port}` become the address on which the instance is to listen,
/// and `{address:NAME}` the address of service NAME of the same file. `{{` and `}}` stand for
/// braces. Braces that come out of a `${VARIABLE}` stand for themselves.
#[derive(JsonSchema)]
#[schemars(extend("examples" = ["--port={port}", "http://{address:payments}/"]))]
struct Template(String);

/// The value of a header, in which `{client}` is the client's address, `{request_id}` the request's
/// id, `{host}` the host that was asked for, `{path}` the path and `{query}` the query with its `?`;
/// in a redirect also `{rest}`, the path behind the part that matched. `{{` and `}}` stand for
/// braces. Up to 1024 characters with up to 8 variables.
#[derive(JsonSchema)]
#[schemars(extend("examples" = ["{client}", "https://{host}{path}{query}"]))]
struct HeaderText(String);

/// Whole numbers with units, one after the other; the units are `ms`, `s`, `m`, `h` and `d`.
#[derive(JsonSchema)]
#[schemars(extend(
    "pattern" = r"^([0-9]+(ms|s|m|h|d))+$|\$\{",
    "examples" = ["250ms", "10s", "1m30s"]
))]
struct Duration(String);

/// A duration, or `"never"`.
#[derive(JsonSchema)]
#[schemars(extend(
    "pattern" = r"^never$|^([0-9]+(ms|s|m|h|d))+$|\$\{",
    "examples" = ["30s", "never"]
))]
struct DurationOrNever(String);

/// A whole number with `B`, `KB`, `MB`, `GB` (powers of 1000), `KiB`, `MiB` or `GiB` (of 1024).
#[derive(JsonSchema)]
#[schemars(extend(
    "pattern" = r"^[0-9]+([KMG]i?)?B$|\$\{",
    "examples" = ["10MiB", "256KB"]
))]
struct Size(String);

/// A percentage up to 100 with up to four decimals; of `slo`, above 0.
#[derive(JsonSchema)]
#[schemars(extend(
    "pattern" = r"^[0-9]+(\.[0-9]{1,4})?%$|\$\{",
    "examples" = ["99.95%"]
))]
struct Share(String);

/// `"auto"` lets Mainstay pick an address and keep it for the life of the service. An address is
/// one of 127.0.0.0/8, or of a range that the node forwards, with a port.
#[derive(JsonSchema)]
#[schemars(extend(
    "pattern" = r"^auto$|^[0-9a-fA-F:.\[\]]+:[0-9]{1,5}$|\$\{",
    "examples" = ["auto", "127.96.0.10:8080", "10.96.0.10:8080", "[fd96::10]:8080"]
))]
struct Address(String);

/// A number of instances, or a whole percentage from `"1%"` to `"100%"` of the wanted ones.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = serde_json::json!(["25%", 2])))]
enum Step {
    Count(#[schemars(range(min = 1, max = mainstay_model::service::INSTANCES_MAX))] u32),
    Percent(#[schemars(regex(pattern = r"^[0-9]+%$|\$\{"))] String),
}

#[derive(JsonSchema)]
#[schemars(inline, rename_all = "snake_case")]
enum Forwarded {
    X,
    Rfc7239,
    Both,
}

#[derive(JsonSchema)]
#[schemars(inline, rename_all = "snake_case")]
enum OnFailure {
    Rollback,
    Pause,
}

fn shown_step() -> serde_json::Value {
    use mainstay_model::service::Step;
    match defaults::ROLLOUT_STEP {
        Step::Percent(percent) => format!("{percent}%").into(),
        Step::Count(count) => count.get().into(),
    }
}
