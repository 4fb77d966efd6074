//! The keys of `[forward]`.

use std::net::SocketAddr;

use mainstay_model::Network;
use mainstay_model::forward::{Answering, BackEndKind, Counting, ForwardSettings, Opening, Ranges};
use toml::de::DeValue;

use crate::file::refusal::{Refused, quoted};
use crate::file::suggest::closest;
use crate::file::walk::{Entry, Section};

use super::address::bind;
use super::{defaults, later};

const HELP: &str = "write `[forward]` with `range = \"10.96.0.0/16\"`";

/// The word for the best that the host can have.
const AUTO: &str = "auto";

pub(super) fn forward(entry: &Entry<'_, '_>) -> Option<ForwardSettings> {
    entry
        .section("a table", Some(HELP.to_owned()), later::FORWARD, keys)
        .flatten()
}

/// The order is that of the list in messages.
fn keys(s: &mut Section<'_, '_>) -> Option<ForwardSettings> {
    let ranges = s.required("range", HELP).and_then(|e| ranges(&e));
    let back_end = s.or("back_end", None, |e| {
        e.text("a back end", "`back_end = \"nft\"`", back_end)
    });
    let count = s.or("count", defaults::COUNT, Entry::boolean);
    let answer_arp = s.or("answer_arp", defaults::ANSWER_ARP, Entry::boolean);
    let ip_forward = s.or("ip_forward", defaults::IP_FORWARD, Entry::boolean);
    let metrics = s.or("metrics", Some(defaults::METRICS), |e| {
        metrics(e, "forwarding", "8889")
    });
    Some(ForwardSettings {
        ranges: ranges?,
        back_end: back_end?,
        counting: if count? { Counting::On } else { Counting::Off },
        answering: if answer_arp? {
            Answering::On
        } else {
            Answering::Off
        },
        opening: if ip_forward? {
            Opening::WhenNeeded
        } else {
            Opening::Never
        },
        metrics: metrics?,
        // Where names are answered, which whoever starts the agent puts in.
        own: Vec::new(),
    })
}

/// An address of loopback, or `"off"`: where metrics of this are shown, at this port usually.
#[expect(clippy::option_option, reason = "refused and off are two things")]
pub(super) fn metrics(
    entry: &Entry<'_, '_>,
    of: &'static str,
    port: &str,
) -> Option<Option<SocketAddr>> {
    if let DeValue::String(text) = entry.value()
        && text.as_ref() == "off"
    {
        return Some(None);
    }
    let address = bind(entry)?;
    if address.ip().is_loopback() {
        return Some(Some(address));
    }
    let message = format!("metrics of {of} are shown on a loopback address, and {address} is none");
    let help = format!(
        "collectors on other machines come by an entry of the gateway's, as `[listen.metrics]` with \
         `bind = \":9100\"` and `servers = [\"127.0.0.1:{port}\"]`"
    );
    entry.refuse(Refused::value(message).help(help));
    None
}

/// One network, or a list of networks.
fn ranges(entry: &Entry<'_, '_>) -> Option<Ranges> {
    let networks = if let DeValue::String(_) = entry.value() {
        vec![network(entry)]
    } else {
        let listed = entry.list("a network, or a list of networks", Some(HELP.to_owned()))?;
        listed.iter().map(network).collect()
    };
    let networks: Option<Vec<Network>> = networks.into_iter().collect();
    match Ranges::new(networks?) {
        Ok(ranges) => Some(ranges),
        Err(error) => {
            entry.refuse(Refused::value(error.to_string()));
            None
        }
    }
}

fn network(entry: &Entry<'_, '_>) -> Option<Network> {
    entry.text("a network", "`\"10.96.0.0/16\"`", |text| {
        let network = Network::parse(text).map_err(|error| Refused::value(error.to_string()))?;
        let address = network.address();
        if network.prefix() == 0 || address.is_multicast() || address.is_unspecified() {
            let refused = Refused::value(format!("{network} cannot be service addresses"));
            return Err(refused.help("take one of a private network that nothing else uses"));
        }
        Ok(network)
    })
}

fn back_end(text: &str) -> Result<Option<BackEndKind>, Refused> {
    if text == AUTO {
        return Ok(None);
    }
    let known = BackEndKind::ALL;
    if let Some(kind) = known.into_iter().find(|kind| kind.as_str() == text) {
        return Ok(Some(kind));
    }
    let words = || known.map(BackEndKind::as_str).into_iter().chain([AUTO]);
    let refused = Refused::value(format!("there is no back end {}", quoted(text)));
    Err(match closest(text, words()) {
        Some(meant) => refused.help(format!("did you mean `{meant}`?")),
        None => refused.help(format!(
            "back ends are {}",
            words().collect::<Vec<_>>().join(", ")
        )),
    })
}
