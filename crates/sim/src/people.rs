//! What people want: often at odds with itself, and several things at once.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use mainstay_control::{Apply, Input, IntakeWish, LastOne};
use mainstay_ids::{InstanceId, ServiceName, Version};
use mainstay_model::service::{AddressSpec, OnFailure, Schedule, Step};
use mainstay_model::{Cron, IntakeState, ServiceSpec, Template, Weight};

use crate::fixtures::{name, spec};
use crate::random::Random;

/// `orders` is reached by path, `pay` by an address picked for it, and `web` addresses `pay`.
/// `web` needs it, too. `report` runs each minute.
const SERVICES: [&str; 4] = ["orders", "pay", "web", "report"];

/// What an instance with a limit may use.
pub(crate) const MEMORY_BYTES: u64 = 256 << 20;

/// A service that people think of.
pub(crate) fn service(random: &mut Random) -> ServiceName {
    name(SERVICES[random.place(SERVICES.len())])
}

/// What somebody does now.
pub(crate) fn wish(random: &mut Random) -> Option<Input> {
    let service = service(random);
    Some(match random.below(16) {
        12 => Input::Pause { service },
        13 => Input::Resume { service },
        14 | 15 => Input::Promote { service },
        0..=4 => Input::Apply(Apply {
            services: vec![declared(&service, random)],
        }),
        5 => Input::Apply(Apply {
            services: SERVICES.map(|one| declared(&name(one), random)).to_vec(),
        }),
        6 | 7 => Input::Scale {
            service,
            instances: random.below(6) as u32,
        },
        8 => Input::Rollback { service, to: None },
        9 => Input::Rollback {
            service,
            to: Some(Version(1 + random.below(4) as u32)),
        },
        10 if random.one_in(2) => Input::Remove { service },
        10 => return None,
        _ if random.one_in(6) => Input::RemoveAll,
        _ => Input::DryRun(Apply {
            services: vec![declared(&service, random)],
        }),
    })
}

/// What somebody wants of an instance.
pub(crate) fn intake(instance: InstanceId, random: &mut Random) -> Input {
    let (state, weight) = match random.below(6) {
        0 | 1 => (Some(IntakeState::Drain), None),
        2 => (Some(IntakeState::Maintenance), None),
        3 => (None, Weight::new(random.below(3) as u16 * 50).ok()),
        _ => (Some(IntakeState::Ready), Some(Weight::ORDINARY)),
    };
    Input::SetIntake(IntakeWish {
        instance,
        state,
        weight,
        last: if random.one_in(3) {
            LastOne::Take
        } else {
            LastOne::Refuse
        },
        by: "somebody".into(),
    })
}

/// Several things at once that contradict each other.
pub(crate) fn burst(random: &mut Random) -> Vec<Input> {
    let service = service(random);
    let scale = |instances| Input::Scale {
        service: service.clone(),
        instances,
    };
    let back = Input::Rollback {
        service: service.clone(),
        to: None,
    };
    let remove = Input::Remove {
        service: service.clone(),
    };
    let mut apply = || {
        Input::Apply(Apply {
            services: vec![declared(&service, random)],
        })
    };
    let (one, other) = (apply(), apply());
    match random.below(5) {
        0 => vec![one, scale(random.below(6) as u32)],
        1 => vec![one, back.clone(), back],
        2 => vec![remove, one],
        3 => vec![one, other, scale(0), scale(3)],
        _ => vec![back, scale(1), one],
    }
}

fn declared(service: &ServiceName, random: &mut Random) -> ServiceSpec {
    let behaviour = match random.below(14) {
        0 => "crash-200",
        1 => "never",
        2 => "flap-300",
        3 => "late-900",
        4 => "good-2500",
        5 => "stubborn-150",
        6 => "flap-800",
        _ => "good-150",
    };
    let mut spec = good(service, 1 + random.below(4) as u32, behaviour);
    let content = random.below(3).to_string();
    let content = Template::parse(&content).expect("legal");
    spec.env.insert("CONTENT".into(), content);
    spec.rollout.step = match random.below(5) {
        0 => Step::Percent(NonZeroU32::new(50).expect("not zero")),
        count => Step::Count(NonZeroU32::new(1 + count as u32 % 2).expect("not zero")),
    };
    if random.one_in(6) {
        spec.rollout.on_failure = OnFailure::Pause;
    }
    if random.one_in(3) {
        spec.rollout.canary = Some(Step::Count(NonZeroU32::MIN));
    }
    if random.one_in(5) && spec.schedule.is_none() {
        let before = ["done-300", "done-300", "crash-200"][random.place(3)];
        spec.before = vec![Template::parse(before).expect("legal")];
    }
    if random.one_in(3) {
        spec.limits.memory_bytes = Some(MEMORY_BYTES);
    }
    if random.one_in(10) && spec.address.is_some() {
        let address = SocketAddr::from(([127, 0, 9, random.below(3) as u8 + 1], 80));
        spec.address = Some(AddressSpec::Fixed(address));
    }
    spec
}

/// A service with the addresses that its name stands for.
pub(crate) fn good(service: &ServiceName, instances: u32, behaviour: &str) -> ServiceSpec {
    let mut spec = spec(service.as_str(), instances, behaviour);
    spec.rollout.progress = Duration::from_secs(15);
    match service.as_str() {
        "pay" => {
            spec.http = None;
            spec.address = Some(AddressSpec::Auto);
        }
        "web" => {
            let peer = Template::parse("{address:pay}").expect("legal");
            spec.env.insert("PEER".into(), peer);
            spec.needs.insert(name("pay"));
        }
        "report" => {
            let cron = Cron::parse("* * * * *").expect("legal");
            let deadline = Duration::from_secs(3);
            spec.schedule = Some(Schedule { cron, deadline });
            let program = if behaviour.starts_with("good") {
                "done-400"
            } else {
                behaviour
            };
            spec.exec = vec![Template::parse(program).expect("legal")];
            spec.http = None;
            spec.instances = 0;
        }
        _ => {}
    }
    spec
}
