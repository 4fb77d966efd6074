//! `mainstay resolve`: where a service is found, as the control centre has it and as the server of names
//! says it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::str::FromStr;

use mainstay_agent::names::{LookError, LookedUp, RecordKind, look_up};
use mainstay_api::wire::{InstanceStatus, ServiceStatus};
use mainstay_ids::{InstanceId, ServiceName};
use mainstay_model::directory::ZONE;
use mainstay_model::routing::Unavailable;
use mainstay_model::{InstanceState, Intake};
use serde::Serialize;

use super::{client, must_exist, print_table, table, word};
use crate::arguments::{Place, Resolve};
use crate::outcome::Outcome;
use crate::output;
use crate::supervisor::record::Record;

/// What is asked for: a name of the zone, and which records of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResolveName {
    service: ServiceName,
    /// The one that is meant, by `orders-2.orders`.
    instance: Option<InstanceId>,
    kinds: Vec<RecordKind>,
}

impl FromStr for ResolveName {
    /// What is wrong, for whoever typed it.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, kinds) = match text.rsplit_once(':') {
            None => (text, RecordKind::ALL.to_vec()),
            Some((name, kind)) => {
                let mut all = RecordKind::ALL.into_iter();
                let found = all.find(|known| known.as_str().eq_ignore_ascii_case(kind));
                let found = found.ok_or_else(|| {
                    format!("a type is a, aaaa or srv, as in `payments:srv`; found `{kind}`")
                })?;
                (name, vec![found])
            }
        };
        let wrong = || {
            format!(
                "`{name}` is no name of a service; expected `payments`, `payments.{ZONE}` or, of a \
                 service without an address, `payments-1.payments`"
            )
        };
        let lower = name.to_ascii_lowercase();
        let bare = lower.strip_suffix('.').unwrap_or(&lower);
        let bare = bare.strip_suffix(&format!(".{ZONE}")).unwrap_or(bare);
        let (instance, service) = match bare.split_once('.') {
            None => (None, bare),
            Some((instance, service)) => {
                let instance: InstanceId = instance.parse().map_err(|_| wrong())?;
                (Some(instance), service)
            }
        };
        let service = ServiceName::parse(service).map_err(|_| wrong())?;
        if instance.as_ref().is_some_and(|one| one.service != service) {
            return Err(wrong());
        }
        Ok(Self {
            service,
            instance,
            kinds,
        })
    }
}

impl ResolveName {
    /// The whole name.
    fn whole(&self) -> String {
        let service = &self.service;
        match &self.instance {
            Some(instance) => format!("{instance}.{service}.{ZONE}"),
            None => format!("{service}.{ZONE}"),
        }
    }
}

/// What is found.
#[derive(Debug, Serialize)]
struct Resolved {
    name: String,
    service: ServiceName,
    /// The service address.
    address: Option<SocketAddr>,
    instances: Vec<Behind>,
    /// Why there is no instance to go to.
    unavailable: Option<Unavailable>,
    /// `None`: no names are answered on this machine.
    names: Option<Said>,
}

/// An instance behind the name.
#[derive(Debug, Serialize)]
struct Behind {
    instance: InstanceId,
    address: Option<SocketAddr>,
    state: InstanceState,
    intake: Intake,
}

/// What the server of names says.
#[derive(Debug, Serialize)]
struct Said {
    server: SocketAddr,
    records: BTreeMap<&'static str, Records>,
}

/// Its word on one type.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Records {
    Answer {
        code: String,
        ttl: Option<u32>,
        records: Vec<String>,
    },
    Failure {
        error: String,
    },
}

pub(crate) async fn run(place: &Place, resolve: &Resolve) -> anyhow::Result<Outcome> {
    let asked = &resolve.name;
    let client = client(place);
    must_exist(&client, &asked.service).await?;
    let services: Vec<ServiceStatus> = client.get("/v1/services").await?;
    let instances: Vec<InstanceStatus> = client.get("/v1/instances").await?;
    let service = services
        .into_iter()
        .find(|one| one.service == asked.service);
    let behind = instances.into_iter().filter(|one| {
        one.service == asked.service && asked.instance.iter().all(|only| *only == one.instance)
    });
    let server = Record::load(&place.state)?.and_then(|record| record.names);
    let said = match server {
        Some(server) => Some(said(server, asked).await),
        None => None,
    };
    let resolved = Resolved {
        name: asked.whole(),
        service: asked.service.clone(),
        address: service.as_ref().and_then(|service| service.address),
        unavailable: service.and_then(|service| service.unavailable),
        instances: behind
            .map(|one| Behind {
                instance: one.instance,
                address: one.address,
                state: one.state,
                intake: one.intake,
            })
            .collect(),
        names: said,
    };
    if place.json {
        output::json(&resolved)?;
    } else {
        print(&resolved)?;
    }
    let found = resolved.unavailable.is_none() && !resolved.instances.is_empty();
    Ok(if found {
        Outcome::Holds
    } else {
        Outcome::DoesNotHold
    })
}

async fn said(server: SocketAddr, asked: &ResolveName) -> Said {
    let mut records = BTreeMap::new();
    for kind in &asked.kinds {
        let told = look_up(server, &asked.whole(), *kind).await;
        records.insert(kind.as_str(), told.into());
    }
    Said { server, records }
}

impl From<Result<LookedUp, LookError>> for Records {
    fn from(told: Result<LookedUp, LookError>) -> Self {
        match told {
            Ok(LookedUp { code, ttl, records }) => Self::Answer { code, ttl, records },
            Err(error) => Self::Failure {
                error: format!("{:#}", anyhow::Error::from(error)),
            },
        }
    }
}

fn print(resolved: &Resolved) -> anyhow::Result<()> {
    output::line(&resolved.name)?;
    match resolved.address {
        Some(address) => output::line(format_args!("address   {address}"))?,
        None => output::line("address   none; it is found at its instances")?,
    }
    if let Some(why) = resolved.unavailable {
        output::line(format_args!(
            "instances none that can be reached: {why}; `mainstay why {}` tells more",
            resolved.service
        ))?;
    }
    if !resolved.instances.is_empty() {
        let mut rows = table(&["INSTANCE", "ADDRESS", "STATE", "NOTE"]);
        for one in &resolved.instances {
            let intake = (!one.intake.is_ordinary()).then(|| one.intake.to_string());
            rows.add_row([
                one.instance.to_string(),
                super::or_dash(one.address),
                word(&one.state),
                super::or_dash(intake),
            ]);
        }
        print_table(&rows)?;
    }
    let Some(said) = &resolved.names else {
        return output::line(
            "names     not answered on this machine; write `[names]` in the node file, or start \
             `mainstay dev` with --names 127.0.0.1:5353",
        );
    };
    for (kind, records) in &said.records {
        output::line(format_args!(
            "{kind:<9} {}, says {}",
            told(records),
            said.server
        ))?;
    }
    Ok(())
}

fn told(records: &Records) -> String {
    match records {
        Records::Failure { error } => error.clone(),
        Records::Answer { code, records, .. } if records.is_empty() && code == "NOERROR" => {
            "none".to_owned()
        }
        Records::Answer { code, records, .. } if records.is_empty() => format!("none ({code})"),
        Records::Answer { ttl, records, .. } => {
            let for_long = ttl.map_or(String::new(), |ttl| format!(" for {ttl} s"));
            format!("{}{for_long}", records.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_in_short_and_in_whole_and_what_is_no_name_is_told() {
        for text in ["pay", "pay.mainstay.internal", "Pay.Mainstay.Internal."] {
            let name: ResolveName = text.parse().expect(text);
            assert_eq!(name.whole(), "pay.mainstay.internal", "{text}");
            assert_eq!(name.kinds, RecordKind::ALL);
        }
        let name: ResolveName = "pay-2.pay:SRV".parse().expect("an instance");
        assert_eq!(name.whole(), "pay-2.pay.mainstay.internal");
        assert_eq!(name.kinds, [RecordKind::Srv]);
        let kind = "pay:mx".parse::<ResolveName>();
        assert!(kind.is_err_and(|told| told.contains("found `mx`")));
        for text in ["", "example.com", "pay-1.orders", "a.b.c", "p_y"] {
            let wrong = text.parse::<ResolveName>();
            assert!(wrong.is_err_and(|told| told.contains("no name")), "{text}");
        }
    }
}
