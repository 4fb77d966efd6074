//! What a service wants of the gateway beside an endpoint: made ready once per table.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mainstay_control::balance::{
    self, Affinity, Bond, Hedging, IdempotencyKey, LineBounds, Priority, Side, Wish,
};
use mainstay_http1::{Known, Method, Request};
use mainstay_ids::Version;
use mainstay_model::listen::{Balance, CheckKind};
use mainstay_model::routing::{Handle, Split};
use mainstay_model::traffic::{Queue, Retry, Sticky, Timeouts, Trace};
use mainstay_model::{ListenSpec, PathPrefix, ServiceRoutes, Share};

use crate::matching::{Conditions, cookies, header_lines};
use crate::rewrite::RewritePlan;

/// How services fail that do not say otherwise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usual {
    /// As one worker has it.
    pub(crate) policy: balance::Policy,
    /// Among how many workers a service's own line is divided.
    pub(crate) workers: usize,
}

/// One worker's part of a line of so many; if there is to be one at all, at least one place.
pub(crate) fn part_of_line(len: u32, workers: usize) -> usize {
    match len as usize / workers.max(1) {
        0 => usize::from(len > 0),
        part => part,
    }
}

/// What a service wants of the gateway.
#[derive(Debug)]
pub(crate) struct Policy {
    retry: Retry,
    pub(crate) trace: Trace,
    pub(crate) timeouts: Timeouts,
    queue: Queue,
    /// How many requests an endpoint gets at once.
    requests: Option<u32>,
    sticky: Option<Sticky>,
    trial: Option<Trial>,
    rewrites: Box<[(Version, Arc<RewritePlan>)]>,
    /// The paths by which clients ask whether it lives; see [`Self::priority`].
    checks: Box<[Box<str>]>,
}

/// A version on trial.
#[derive(Debug)]
struct Trial {
    version: Version,
    share: Share,
    for_certain: Conditions,
}

impl Policy {
    pub(crate) fn of(routes: &ServiceRoutes) -> Self {
        let traffic = &routes.traffic;
        let trial = |split: &Split| Trial {
            version: split.version,
            share: split.traffic.weight,
            for_certain: Conditions::of(&split.traffic.headers, &split.traffic.cookies),
        };
        let rewrites = routes.rewrites.iter();
        let rewrites: Box<[_]> = rewrites
            .map(|one| (one.version, Arc::new(RewritePlan::of(&one.rewrite))))
            .collect();
        let health_path = routes.health_path.as_ref();
        Self {
            checks: health_path.map_or_else(Box::default, |path| checks(path, &rewrites)),
            retry: traffic.retry,
            trace: traffic.trace,
            timeouts: traffic.timeouts,
            queue: traffic.queue,
            requests: traffic.requests.map(std::num::NonZeroU32::get),
            sticky: traffic.sticky.clone(),
            trial: routes.split.as_ref().map(trial),
            rewrites,
        }
    }

    /// Whether an overload spares a request: one that asks at the service's health path whether it
    /// lives, and nothing else. How many are spared at once is the balancer's decision: anybody can
    /// ask for that path.
    pub(crate) fn priority(&self, request: &Request) -> Priority {
        let target = request.target();
        let asks = |check: &str| {
            let rest = target.strip_prefix(check);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('?'))
        };
        let is_check = self.checks.iter().any(|check| asks(check))
            && matches!(request.method, Method::Get | Method::Head)
            && request.framing.is_empty()
            && request.upgrade().is_none();
        if is_check {
            Priority::Spared
        } else {
            Priority::Normal
        }
    }

    /// What a listener in HTTP mode wants: what the gateway does anyway, with its own times.
    pub(crate) fn of_listen(spec: &ListenSpec) -> Self {
        let sticky = match spec.balance {
            Balance::Source => Some(Sticky::Source),
            Balance::LeastConnections | Balance::RoundRobin | Balance::Random => None,
        };
        let kind = spec.check.as_ref().map(|check| &check.kind);
        Self {
            checks: match kind {
                Some(CheckKind::Http { path, .. }) => checks(path, &[]),
                Some(CheckKind::Tcp | CheckKind::Amqp) | None => Box::default(),
            },
            retry: Retry::default(),
            trace: Trace::default(),
            timeouts: Timeouts {
                connect: Some(spec.timeouts.connect),
                ..Timeouts::default()
            },
            queue: Queue {
                time: Some(spec.timeouts.connect),
                ..Queue::default()
            },
            requests: None,
            sticky,
            trial: None,
            rewrites: Box::default(),
        }
    }

    /// How its requests fail: as `usual`, unless the service says otherwise.
    pub(crate) fn of_failures(&self, usual: Usual) -> balance::Policy {
        let Usual {
            policy: usual,
            workers,
        } = usual;
        let (len, time) = (self.queue.len, self.queue.time);
        balance::Policy {
            hedging: match (self.retry.hedge, usual.hedging) {
                (true, Hedging::On) => Hedging::On,
                (false, _) | (_, Hedging::Off) => Hedging::Off,
            },
            key: if self.retry.idempotency_key {
                IdempotencyKey::Heeded
            } else {
                IdempotencyKey::Ignored
            },
            most: self.requests,
            line: LineBounds {
                len: len.map_or(usual.line.len, |len| part_of_line(len, workers)),
                time: time.unwrap_or(usual.line.time),
            },
            ..usual
        }
    }

    /// What is changed for an instance of this version.
    pub(crate) fn rewrite(&self, version: Version) -> Option<&Arc<RewritePlan>> {
        let mut rewrites = self.rewrites.iter();
        let found = rewrites.find(|(of, _)| *of == version);
        found.map(|(_, plan)| plan)
    }

    /// What a request wants beside an endpoint that works. `client` gives its address, if that is
    /// known; `draw` is evenly distributed.
    pub(crate) fn wish(
        &self,
        request: &Request,
        client: impl FnOnce() -> Option<IpAddr>,
        draw: u64,
    ) -> Wish {
        if self.sticky.is_none() && self.trial.is_none() {
            return Wish::NONE;
        }
        let bond = self.bond(request, client);
        let side = self.trial.as_ref().map_or(Side::Any, |trial| {
            if trial.for_certain.any_holds(&request.fields) {
                return Side::Asked(trial.version);
            }
            let draw = match bond {
                // A client that stays with an instance stays with its version, too.
                Bond::By(affinity) => affinity.draw(),
                Bond::Free | Bond::Held(_) => draw,
            };
            Side::of(trial.version, trial.share, draw)
        });
        Wish { side, bond }
    }

    fn bond(&self, request: &Request, client: impl FnOnce() -> Option<IpAddr>) -> Bond {
        match &self.sticky {
            None => Bond::Free,
            Some(Sticky::Cookie { name, .. }) => {
                let mut values = cookies(&request.fields, name.as_str().as_bytes());
                let handle = values.find_map(|value| Handle::parse(value).ok());
                handle.map_or(Bond::Free, Bond::Held)
            }
            Some(Sticky::Header(name)) => {
                let name = name.as_str().as_bytes();
                let mut lines = header_lines(&request.fields, Known::of(name), name);
                let value = lines.next();
                value.map_or(Bond::Free, |value| Bond::By(Affinity::of_value(value)))
            }
            Some(Sticky::Source) => {
                client().map_or(Bond::Free, |ip| Bond::By(Affinity::of_address(ip)))
            }
        }
    }

    /// The value of `Set-Cookie` for a client that was sent to the endpoint with this handle,
    /// unless it has named it itself. `Secure` follows with TLS: without it, the browser would keep
    /// such a cookie to itself.
    pub(crate) fn cookie(&self, bond: Bond, handle: Option<Handle>) -> Option<String> {
        let (Some(Sticky::Cookie { name, ttl }), Some(handle)) = (&self.sticky, handle) else {
            return None;
        };
        if bond == Bond::Held(handle) {
            return None;
        }
        let age = ttl.as_ref().map(Duration::as_secs);
        let age = age.map_or_else(String::new, |age| format!("; Max-Age={age}"));
        Some(format!(
            "{name}={handle}; Path=/; HttpOnly; SameSite=Lax{age}"
        ))
    }
}

/// The health path as clients write it: as it stands, and as what a rewriting makes it of.
fn checks(path: &PathPrefix, rewrites: &[(Version, Arc<RewritePlan>)]) -> Box<[Box<str>]> {
    let outside = rewrites.iter().filter_map(|(_, plan)| plan.outside(path));
    let mut all: Vec<Box<str>> = vec![path.as_str().into()];
    for one in outside {
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::tests::request;
    use mainstay_ids::ServiceName;
    use mainstay_model::Traffic;
    use mainstay_model::listen::{CheckSpec, ListenDraft, Mode, ServerSpec};
    use mainstay_model::route::{CookieName, FieldName, MatchValue};
    use mainstay_model::traffic::CanaryTraffic;

    const TRIAL: Version = Version(2);

    fn policy(sticky: Option<Sticky>, split: Option<CanaryTraffic>) -> Policy {
        Policy::of(&routes(sticky, split))
    }

    fn routes(sticky: Option<Sticky>, split: Option<CanaryTraffic>) -> ServiceRoutes {
        ServiceRoutes {
            service: ServiceName::parse("orders").unwrap(),
            http: None,
            address: None,
            health_path: None,
            endpoints: Vec::new(),
            unavailable: None,
            dead: Vec::new(),
            traffic: Traffic {
                sticky,
                ..Traffic::default()
            },
            rewrites: Vec::new(),
            split: split.map(|traffic| Split {
                version: TRIAL,
                traffic,
            }),
        }
    }

    fn by_cookie(ttl: Option<Duration>) -> Sticky {
        let name = CookieName::parse("instance").unwrap();
        Sticky::Cookie { name, ttl }
    }

    #[test]
    fn a_cookie_binds_to_the_instance_that_it_names_and_is_set_when_it_names_another() {
        let policy = policy(Some(by_cookie(Some(Duration::from_mins(1)))), None);
        let bond = |lines: &str| policy.wish(&request("GET /", lines), || None, 0).bond;
        let handle = Handle(0xab);
        assert_eq!(
            bond("host: a\r\ncookie: x=1; instance=00000000000000ab\r\n"),
            Bond::Held(handle)
        );
        for lines in ["host: a\r\n", "host: a\r\ncookie: instance=nonsense\r\n"] {
            assert_eq!(bond(lines), Bond::Free, "{lines}");
        }
        let expected = "instance=00000000000000ab; Path=/; HttpOnly; SameSite=Lax; Max-Age=60";
        assert_eq!(
            policy.cookie(Bond::Free, Some(handle)).as_deref(),
            Some(expected)
        );
        let other = Bond::Held(Handle(1));
        assert_eq!(
            policy.cookie(other, Some(handle)).as_deref(),
            Some(expected)
        );
        assert_eq!(policy.cookie(Bond::Held(handle), Some(handle)), None);
        assert_eq!(policy.cookie(Bond::Free, None), None);
    }

    #[test]
    fn a_header_or_a_cookie_leads_to_the_version_on_trial_for_certain() {
        let value = MatchValue::parse("1").unwrap();
        let canary = CanaryTraffic {
            weight: Share::NONE,
            headers: [(FieldName::parse("X-Beta").unwrap(), None)].into(),
            cookies: [(CookieName::parse("beta").unwrap(), Some(value))].into(),
        };
        let policy = policy(None, Some(canary));
        let side = |lines: &str| policy.wish(&request("GET /", lines), || None, 0).side;
        assert_eq!(side("host: a\r\nx-beta: 0\r\n"), Side::Asked(TRIAL));
        assert_eq!(side("host: a\r\ncookie: beta=1\r\n"), Side::Asked(TRIAL));
        assert_eq!(side("host: a\r\ncookie: beta=2\r\n"), Side::Rest(TRIAL));
        assert_eq!(side("host: a\r\n"), Side::Rest(TRIAL), "a share of nothing");
    }

    #[test]
    fn a_check_is_known_by_the_path_that_becomes_the_health_path() {
        use mainstay_model::rewrite::{PathRewrite, Rewrite};
        use mainstay_model::routing::VersionRewrite;
        let path = |text: &str| PathPrefix::parse(text).unwrap();
        let priority = |rewrite: Option<PathRewrite>, head: &str, lines: &str| {
            let mut routes = routes(None, None);
            routes.health_path = Some(path("/api/health"));
            routes.rewrites.extend(rewrite.map(|path| VersionRewrite {
                version: Version::FIRST,
                rewrite: Rewrite {
                    path: Some(path),
                    ..Rewrite::default()
                },
            }));
            Policy::of(&routes).priority(&request(head, &format!("host: a\r\n{lines}")))
        };
        let strip = || Some(PathRewrite::Strip(path("/shop")));
        let replace = || Some(PathRewrite::Replace(path("/shop"), path("/api")));
        for (rewrite, head) in [
            (None, "GET /api/health"),
            (None, "HEAD /api/health?all"),
            (strip(), "GET /shop/api/health"),
            (replace(), "GET /shop/health"),
        ] {
            assert_eq!(priority(rewrite, head, ""), Priority::Spared, "{head}");
        }
        for (rewrite, head, lines) in [
            (None, "POST /api/health", ""),
            (None, "GET /api/health/", ""),
            (None, "GET /api", ""),
            (None, "GET /shop/api/health", ""),
            (strip(), "GET /shop/health", ""),
            (None, "GET /api/health", "content-length: 1\r\n"),
            (
                None,
                "GET /api/health",
                "connection: upgrade\r\nupgrade: chat\r\n",
            ),
        ] {
            assert_eq!(priority(rewrite, head, lines), Priority::Normal, "{head}");
        }
        let nowhere = Policy::of(&routes(None, None));
        let asked = request("GET /api/health", "host: a\r\n");
        assert_eq!(nowhere.priority(&asked), Priority::Normal);
    }

    #[test]
    fn a_client_with_an_affinity_keeps_its_version() {
        let canary = CanaryTraffic {
            weight: Share::from_ppm(500_000).unwrap(),
            headers: [].into(),
            cookies: [].into(),
        };
        let policy = policy(Some(Sticky::Source), Some(canary));
        let request = request("GET /", "host: a\r\n");
        let mut on_trial = 0;
        for last in 0..200 {
            let client = Some(IpAddr::from([192, 0, 2, last]));
            let first = policy.wish(&request, || client, 0);
            assert_eq!(
                first,
                policy.wish(&request, || client, u64::MAX),
                "whatever is drawn"
            );
            on_trial += u32::from(first.side == Side::Trial(TRIAL));
        }
        assert!((60..140).contains(&on_trial), "{on_trial}");
    }

    #[test]
    fn a_listener_spares_the_path_of_its_check_and_no_other() {
        let address = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let path = PathPrefix::parse("/health").unwrap();
        let kind = CheckKind::Http { path, expect: None };
        let name = mainstay_ids::ListenName::parse("web").unwrap();
        let draft = ListenDraft {
            mode: Mode::Http,
            check: Some(CheckSpec::of(kind)),
            ..ListenDraft::tcp(name, vec![address(80)], vec![ServerSpec::at(address(81))])
        };
        let policy = Policy::of_listen(&ListenSpec::new(draft).unwrap());
        let priority = |first: &str| policy.priority(&request(first, "host: a\r\n"));
        assert_eq!(priority("GET /health?full"), Priority::Spared);
        assert_eq!(priority("POST /health"), Priority::Normal);
        assert_eq!(priority("GET /healthy"), Priority::Normal);
    }
}
