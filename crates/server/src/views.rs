//! The machine's read models as the API shows them.

use std::net::SocketAddr;

use mainstay_api::wire::{
    Accepted, Applied, AppliedService, Change, ConsumerStatus, InstanceStatus, LastRun, NodeStatus,
    ScheduleStatus, ServiceStatus, Status,
};
use mainstay_control::why::Past;
use mainstay_control::{self as control, Clock, Control, Reply};
use mainstay_ids::{InstanceId, NodeName, ServiceName, Timestamp};
use mainstay_model::{Event, HttpMatch, Outlook, ServiceSpec, Why};

use crate::history::History;

/// What a reader may look at.
pub(crate) struct View<'a> {
    pub(crate) control: &'a Control,
    pub(crate) history: &'a History,
    pub(crate) clock: Clock,
    pub(crate) since: Timestamp,
    pub(crate) node: &'a NodeName,
    pub(crate) entry: &'a [SocketAddr],
    pub(crate) stats: Option<SocketAddr>,
}

/// Everything at a glance.
pub(crate) fn status(view: &View<'_>) -> Status {
    let millis =
        |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let consumer = |consumer: control::ConsumerView| ConsumerStatus {
        consumer: consumer.consumer,
        acknowledged: consumer.acknowledged,
        silent_ms: millis(consumer.silent),
        unbound: consumer.unbound,
    };
    let node = view.control.node(view.clock.now);
    Status {
        mainstay: env!("CARGO_PKG_VERSION").to_owned(),
        since: view.since,
        generation: view.control.routing().generation,
        entry: view.entry.to_vec(),
        stats: view.stats,
        consumers: view
            .control
            .consumers(view.clock.now)
            .filter(|consumer| consumer.presence != control::Presence::Gone)
            .map(consumer)
            .collect(),
        nodes: vec![NodeStatus {
            node: node.node,
            silent_ms: node.silent.map(millis),
            instances: node.instances,
        }],
        services: services(view),
    }
}

/// The services by name.
pub(crate) fn services(view: &View<'_>) -> Vec<ServiceStatus> {
    view.control.services().map(service_status).collect()
}

/// What is wanted of a service, as it would have to be declared: with the number that a scaling set.
pub(crate) fn spec(view: &View<'_>, name: &ServiceName) -> Option<ServiceSpec> {
    let service = view.control.service(name)?;
    let mut spec = service.spec.clone();
    spec.instances = service.wanted;
    Some(spec)
}

fn service_status(service: control::ServiceView<'_>) -> ServiceStatus {
    let control::ServiceView {
        service,
        spec,
        version,
        stable,
        wanted,
        ready,
        withheld,
        state,
        address,
        unavailable,
        versions,
        wait,
        schedule,
    } = service;
    ServiceStatus {
        service: service.clone(),
        version,
        stable,
        wanted,
        ready,
        withheld,
        state,
        address,
        http: spec.http.as_ref().map(|http| {
            // By one with conditions, only some clients would reach it.
            let plain = http.iter().find(|one| one.conditions() == 0);
            let HttpMatch { host, path, .. } = plain.unwrap_or(http.first());
            let host = host.as_ref().map_or("*".to_owned(), ToString::to_string);
            format!("{host}{path}")
        }),
        routes: spec.matches().map(ToString::to_string).collect(),
        unavailable,
        slo: spec.slo,
        versions,
        wait,
        schedule: schedule.map(schedule_status),
    }
}

fn schedule_status(schedule: control::ScheduleView) -> ScheduleStatus {
    let control::ScheduleView { cron, next, last } = schedule;
    ScheduleStatus {
        cron,
        next,
        last: last.map(|last| {
            let control::LastRun {
                instance,
                exit,
                ended,
            } = last;
            LastRun {
                instance,
                exit,
                ended,
            }
        }),
    }
}

/// The instances by id.
pub(crate) fn instances(view: &View<'_>) -> Vec<InstanceStatus> {
    let instances = view.control.instances();
    instances
        .map(|instance| instance_status(instance, view.node))
        .collect()
}

fn instance_status(instance: control::InstanceView, node: &NodeName) -> InstanceStatus {
    let control::InstanceView {
        instance,
        version,
        state,
        attempt,
        pid,
        address,
        since,
        last_exit,
        again_at,
        probe_failure,
        wait,
        intake,
        drain: _,       // told by `why`
        log_dropped: _, // told by the log itself
    } = instance;
    InstanceStatus {
        service: instance.service.clone(),
        instance,
        version,
        node: node.clone(),
        attempt,
        state,
        pid,
        address,
        since,
        last_exit,
        probe_failure,
        again_at,
        wait,
        intake,
    }
}

/// Why a service is as it is, or how it was at that moment.
pub(crate) fn why_service(
    view: &View<'_>,
    name: &ServiceName,
    at: Option<Timestamp>,
) -> Option<Why> {
    with_past(view, |past| match at {
        Some(at) => view.control.why_service_then(name, past, at),
        None => view.control.why_service(name, past, view.clock.at),
    })
}

/// Why an instance is as it is.
pub(crate) fn why_instance(view: &View<'_>, id: &InstanceId) -> Option<Why> {
    with_past(view, |past| {
        view.control.why_instance(id, past, view.clock.at)
    })
}

fn with_past<T>(view: &View<'_>, answer: impl FnOnce(Past<'_>) -> T) -> T {
    let events = view.history.page(0).events;
    let events: Vec<&Event> = events.iter().map(AsRef::as_ref).collect();
    answer(Past {
        events: &events,
        last: view.history.last(),
    })
}

/// A change was taken over.
pub(crate) fn accepted(reply: &Reply) -> Accepted {
    Accepted {
        event: reply.event,
        notes: reply.notes.iter().map(ToString::to_string).collect(),
    }
}

/// What became of a declaration.
pub(crate) fn applied(reply: Reply) -> Applied {
    let Accepted { event, notes } = accepted(&reply);
    let (outlooks, memory) = match reply.outlook {
        Some(Outlook { services, memory }) => (services, Some(memory)),
        None => (Vec::new(), None),
    };
    let outlooks = outlooks
        .into_iter()
        .map(Some)
        .chain(std::iter::repeat(None));
    let applied = |(service, outlook): (control::ServiceChange, _)| AppliedService {
        service: service.service,
        version: service.version,
        change: match service.change {
            control::Change::Created => Change::Created,
            control::Change::Updated => Change::Updated,
            control::Change::Scaled => Change::Scaled,
            control::Change::Unchanged => Change::Unchanged,
        },
        outlook,
    };
    Applied {
        services: reply
            .services
            .into_iter()
            .zip(outlooks)
            .map(applied)
            .collect(),
        event,
        notes,
        memory,
    }
}
