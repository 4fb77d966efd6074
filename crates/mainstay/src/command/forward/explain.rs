//! `mainstay forward explain ADDRESS`: how a connection would go, or the rules as others would load
//! them.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;
use mainstay_control::forward::Slots;
use mainstay_forward::explain::{self, Effect, Question, Rules, Step, text};
use mainstay_forward::{nft, router};
use mainstay_kernel::netlink::Prefix;
use mainstay_kernel::netlink::route::Routes;
use serde::Serialize;

use super::known::Known;
use super::table;
use crate::arguments::{Dialect, ForwardExplain, Place, Target};
use crate::outcome::{Failure, Outcome};
use crate::output;

/// What is written with `--as` and `--json`.
#[derive(Serialize)]
struct Text {
    rules: String,
}

pub(crate) async fn run(place: &Place, asked: &ForwardExplain) -> anyhow::Result<Outcome> {
    if let Some(dialect) = asked.dialect {
        return print_rules(place, asked.address, dialect).await;
    }
    let Target { address, port } = asked.address;
    if let Some(from) = asked
        .from
        .filter(|from| from.is_ipv4() != address.is_ipv4())
    {
        let message = format!("{from} and {address} are not of one version of IP");
        return Err(Failure::new(Outcome::WrongInput, message).into());
    }
    let question = Question {
        to: address,
        port,
        from: asked.from,
    };
    // Without the state directory it is not known who switched it on.
    let opened = router::opened(&router::file(&place.state)).unwrap_or_default();
    let facts = explain::gather(question, &table()?, opened)
        .context("cannot look at this machine's network")?;
    let explanation = explain::explain(&facts);
    if place.json {
        output::json(&explanation)?;
    } else {
        for step in &explanation.steps {
            print(step)?;
        }
        output::line(summary(explanation.verdict))?;
    }
    Ok(match explanation.verdict {
        Effect::Passes | Effect::Remark => Outcome::Holds,
        Effect::Refused | Effect::Diverted | Effect::Blocked | Effect::Unknown => {
            Outcome::DoesNotHold
        }
    })
}

fn print(step: &Step) -> anyhow::Result<()> {
    let mark = match step.effect {
        Effect::Passes => "ok     ",
        Effect::Refused => "refused",
        Effect::Diverted => "not us ",
        Effect::Blocked => "blocked",
        Effect::Unknown => "unknown",
        Effect::Remark => "note   ",
    };
    output::line(format_args!("{mark}  {}", step.what))?;
    if let Some(remedy) = &step.remedy {
        output::line(format_args!("         help: {remedy}"))?;
    }
    Ok(())
}

fn summary(verdict: Effect) -> &'static str {
    match verdict {
        Effect::Passes | Effect::Remark => "A connection goes to an instance.",
        Effect::Unknown => "What becomes of a connection cannot be told.",
        Effect::Refused => "A connection is refused at once, or may be.",
        Effect::Diverted => "A connection is not forwarded by Mainstay.",
        Effect::Blocked => "A connection does not arrive, or may not: its client waits in vain.",
    }
}

async fn print_rules(place: &Place, target: Target, dialect: Dialect) -> anyhow::Result<Outcome> {
    let (address, slots, shares) = served(place, target).await?;
    let rules = match dialect {
        Dialect::Nft => text::nft(nft::TABLE, range(address.ip())?, address, &slots),
        Dialect::Iptables => text::iptables(address, slots.class().draw(), &shares),
    };
    if place.json {
        output::json(&Text { rules })?;
    } else {
        output::line(rules.trim_end())?;
    }
    Ok(Outcome::Holds)
}

/// The service of an address, from the kernel, or else from the control centre.
async fn served(
    place: &Place,
    target: Target,
) -> anyhow::Result<(SocketAddr, Slots, Vec<(SocketAddr, u64)>)> {
    let is_asked = |address: SocketAddr| {
        address.ip() == target.address && target.port.is_none_or(|port| port == address.port())
    };
    let rules = Rules::read(&table()?);
    let services = rules.reading().map_or(&[][..], |reading| &reading.services);
    let mut found = services.iter().filter(|service| is_asked(service.address));
    if let Some(service) = found.next()
        && let Some(slots) = &service.slots
    {
        return Ok((service.address, slots.clone(), service.counts()));
    }
    let known = Known::ask(place).await;
    let asked = known.as_ref().ok().and_then(|known| {
        let (service, address) = known.addressed().find(|(_, address)| is_asked(*address))?;
        Some((address, known.slots(service)?, known.spread(service)))
    });
    if let Some((address, slots, spread)) = asked {
        let shares = spread.shares.iter().map(|share| (share.to, share.weight));
        return Ok((address, slots, shares.collect()));
    }
    let kernel = match rules {
        Rules::Unreadable(why) => why,
        Rules::Read(_) | Rules::None => "the kernel has none".to_owned(),
    };
    let centre = known.err();
    let centre =
        centre.unwrap_or_else(|| "the control centre has none with an instance".to_owned());
    let message = format!("no service is known at {target}: {kernel}, and {centre}");
    Err(Failure::new(Outcome::DoesNotHold, message)
        .remedy("`mainstay forward ls` lists them")
        .into())
}

/// The range in which a service address lies: that of our route, or the address alone.
fn range(address: IpAddr) -> anyhow::Result<Prefix> {
    let routes = Routes::open().and_then(|routes| routes.locals());
    let routes = routes.context("cannot list the routes of this machine")?;
    let mut ranges = routes.iter().map(|route| route.prefix);
    let own = ranges.find(|range| range.contains(address));
    Ok(own.unwrap_or_else(|| Prefix::of(address)))
}
