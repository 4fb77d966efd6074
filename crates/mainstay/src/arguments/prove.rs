//! What `mainstay prove` is told.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use mainstay_ids::ServiceName;
use mainstay_prove::load::Request;
use mainstay_prove::scenario::ScenarioError;
use mainstay_prove::{Scenario, burst, floating};

use super::{ForwardSeams, Seams, VipSeams, parse_duration, parse_seams};

#[derive(Debug, Args)]
pub(crate) struct Prove {
    /// What to break: kill, stop, rollout, rollout-bad, scale, processes, freeze, blackhole, upgrade, forward-flush;
    /// several with commas. By default the first five; `blackhole` and `forward-flush` need root. Forwarding in a
    /// network of its own, as root: forward-crowd, forward-cut, forward-reuse; they need no Mainstay that runs. Or a
    /// floating address on two nodes that are started for it in network namespaces, as root, and nothing else then:
    /// vip-gateway-killed, vip-gateway-frozen, vip-host-gone, vip-link-cut, vip-upgrade, vip-move, vip-stop. Or, alone, `burst`: ten times the
    /// rate of messages for as long as --for says, through the broker, with a consumer whose rate does not change.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) scenario: Vec<Proved>,
    /// Test seam: what the gateways of those two nodes do without.
    #[arg(long, hide = true, default_value = "", value_parser = parse_seams::<Seams>)]
    pub(crate) unsafe_gateway_seams: String,
    /// Test seam: what the holders of the address on those two nodes leave out.
    #[arg(long, hide = true, default_value = "", value_parser = parse_seams::<VipSeams>)]
    pub(crate) unsafe_vip_seams: String,
    /// Load and faults for this service alone; by default load on all that clients outside can
    /// reach, and faults on every service.
    #[arg(long)]
    pub(crate) service: Option<ServiceName>,
    /// What is asked, for instance `GET /orders/7` or `POST /orders {}`; may be given several times.
    /// An n in braces becomes a number. By default a GET of each service's path.
    #[arg(long, value_name = "REQUEST")]
    pub(crate) request: Vec<Request>,
    /// Where the clients enter; by default where the gateway says that it listens.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) entry: Vec<SocketAddr>,
    /// Requests per second.
    #[arg(long, default_value = "300", value_name = "N")]
    pub(crate) rate: NonZeroU32,
    /// How long each scenario keeps breaking things.
    #[arg(long = "for", default_value = "10s", value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) duration: Duration,
    /// What the choice of requests is drawn from.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
    /// Test seam: what forwarding leaves out in a network of the proof's own.
    #[arg(long, hide = true, default_value = "")]
    pub(crate) unsafe_forward_seams: ForwardSeams,
}

/// What is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proved {
    /// On the system that runs.
    Running(Scenario),
    /// On two nodes that are started for it.
    Floating(floating::Scenario),
    /// On the broker that runs.
    Burst,
}

impl FromStr for Proved {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("vip-") {
            let scenario = text
                .parse()
                .map_err(|error: floating::ScenarioError| error.to_string());
            return scenario.map(Self::Floating);
        }
        if text == burst::NAME {
            return Ok(Self::Burst);
        }
        let scenario = text
            .parse()
            .map_err(|error: ScenarioError| error.to_string());
        scenario.map(Self::Running)
    }
}
