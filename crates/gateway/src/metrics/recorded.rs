//! A finished request, counted in one call.

use std::time::Duration;

use mainstay_ids::Instant;

use super::{FrontendCounts, ServiceCounts};
use crate::endpoint::EndpointState;
use crate::refusal::Reason;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Its answer is complete.
    Whole,
    /// Its connection was upgraded, carried bytes both ways and has ended: how long says nothing
    /// about the service.
    Tunnel,
    /// The client went away before the answer was complete.
    ClientLeft,
    /// The instance broke the answer off after its head.
    InstanceBroke,
}

/// A request from its first byte to its end, as far as it is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recorded<'a> {
    /// Where it came in.
    pub(crate) frontend: &'a FrontendCounts,
    /// To whom it belonged, if to anybody.
    pub(crate) service: Option<&'a ServiceCounts>,
    /// Who was asked last.
    pub(crate) endpoint: Option<&'a EndpointState>,
    /// What the client got; `None`: it went away before.
    pub(crate) status: Option<u16>,
    /// Why the gateway answered itself, if it did.
    pub(crate) reason: Option<Reason>,
    /// How many instances were tried.
    pub(crate) tries: u32,
    /// Of the request's body.
    pub(crate) bytes_in: u64,
    /// Of the answer's body.
    pub(crate) bytes_out: u64,
    /// When its first byte came.
    pub(crate) started: Instant,
    /// When the head of an instance's answer was there, if one answered.
    pub(crate) first_byte: Option<Instant>,
    /// When it ended.
    pub(crate) ended: Instant,
    /// How it ended.
    pub(crate) ending: Ended,
}

impl Recorded<'_> {
    /// Counts it, for the frontend, the service and the endpoint: some twenty stores into cells of
    /// this worker. To be called once, by a worker, when the request has ended.
    #[inline]
    pub(crate) fn count(&self) {
        let took = self.ended.since(self.started);
        let first_byte = self.first_byte.map(|at| at.since(self.started));
        let frontend = self.frontend.tallies().mine();
        frontend.responses.count(self.status);
        frontend.bytes_in.add(self.bytes_in);
        frontend.bytes_out.add(self.bytes_out);
        if let Some(reason) = self.reason {
            frontend.refusals.count(reason);
        }
        if let Some(service) = self.service {
            self.count_service(service, took, first_byte);
        }
        if let Some(endpoint) = self.endpoint
            && self.reason.is_none()
        {
            self.count_endpoint(endpoint, took, first_byte);
        }
    }

    #[inline]
    fn count_service(&self, service: &ServiceCounts, took: Duration, first_byte: Option<Duration>) {
        let tally = service.tallies().mine();
        tally.responses.count(self.status);
        tally.bytes_in.add(self.bytes_in);
        tally.bytes_out.add(self.bytes_out);
        if let Some(reason) = self.reason {
            tally.refusals.count(reason);
        }
        if self.tries > 1 {
            tally.retries.add(u64::from(self.tries - 1));
            tally.retried.add(1);
        }
        if let Some(first_byte) = first_byte {
            tally.first_byte.record(first_byte);
        }
        match self.ending {
            Ended::Whole => tally.total.record(took),
            Ended::Tunnel => {}
            Ended::ClientLeft => tally.client_aborts.add(1),
            Ended::InstanceBroke => tally.broken_answers.add(1),
        }
    }

    #[inline]
    fn count_endpoint(
        &self,
        endpoint: &EndpointState,
        took: Duration,
        first_byte: Option<Duration>,
    ) {
        let tally = endpoint.counters.mine();
        tally.bytes_in.add(self.bytes_in);
        tally.bytes_out.add(self.bytes_out);
        // A head came: it was an answer of this endpoint, whoever broke off afterwards.
        if let Some(first_byte) = first_byte {
            tally.responses.count(self.status);
            tally.first_byte.record(first_byte);
        }
        match self.ending {
            Ended::Whole => tally.total.record(took),
            Ended::Tunnel => {}
            Ended::ClientLeft => tally.client_aborts.add(1),
            Ended::InstanceBroke => tally.broken_answers.add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Registry;
    use crate::metrics::{FrontendKey, GatewayCounters, this_thread_is};
    use crate::worker::WorkerIndex;
    use mainstay_ids::{Attempt, InstanceId, ServiceName, Version};
    use mainstay_model::Endpoint;
    use mainstay_model::routing::EndpointHealth;
    use std::sync::Arc;
    use tokio::sync::Notify;

    struct Counted {
        frontend: Arc<FrontendCounts>,
        service: Arc<ServiceCounts>,
        endpoint: Arc<EndpointState>,
    }

    fn counted() -> Counted {
        let mut registry = Registry::new(Arc::new(Notify::new()), 1);
        let name = ServiceName::parse("orders").unwrap();
        Counted {
            frontend: GatewayCounters::new(1).frontend(FrontendKey::Entry),
            service: registry.admit_service(&name),
            endpoint: registry.admit(&Endpoint {
                instance: InstanceId {
                    service: name,
                    number: 1,
                },
                attempt: Attempt::FIRST,
                version: Version::FIRST,
                address: ([127, 0, 0, 1], 1).into(),
                health: EndpointHealth::Passing,
                handle: None,
                intake: mainstay_model::Intake::default(),
            }),
        }
    }

    impl Counted {
        /// Answered by its only instance at the second try.
        fn answered(&self) -> Recorded<'_> {
            let started = Instant::from_start(Duration::from_secs(1));
            Recorded {
                frontend: &self.frontend,
                service: Some(&self.service),
                endpoint: Some(&self.endpoint),
                status: Some(200),
                reason: None,
                tries: 2,
                bytes_in: 3,
                bytes_out: 5,
                started,
                first_byte: Some(started.after(Duration::from_millis(10))),
                ended: started.after(Duration::from_millis(20)),
                ending: Ended::Whole,
            }
        }
    }

    #[test]
    fn an_answer_counts_for_the_frontend_the_service_and_the_instance() {
        let counted = counted();
        counted.answered().count();
        let service = counted.service.tallies().mine();
        assert_eq!(service.responses.of(2).get(), 1);
        assert_eq!((service.retries.get(), service.retried.get()), (1, 1));
        assert_eq!((service.bytes_in.get(), service.bytes_out.get()), (3, 5));
        let endpoint = counted.endpoint.counters.mine();
        assert_eq!(endpoint.responses.of(2).get(), 1);
        assert_eq!(endpoint.bytes_out.get(), 5);
        let frontend = counted.frontend.tallies().mine();
        assert_eq!(frontend.responses.of(2).get(), 1);
        let count = |histogram| super::super::Counts::of(std::iter::once(histogram)).count();
        assert_eq!((count(&service.total), count(&service.first_byte)), (1, 1));
        assert_eq!(
            (count(&endpoint.total), count(&endpoint.first_byte)),
            (1, 1)
        );
    }

    #[test]
    fn a_refusal_is_not_the_answer_of_the_instance_that_was_asked_last() {
        let counted = counted();
        let refused = Recorded {
            status: Some(502),
            reason: Some(Reason::LostInFlight),
            first_byte: None,
            ..counted.answered()
        };
        refused.count();
        let service = counted.service.tallies().mine();
        assert_eq!(service.refusals.of(Reason::LostInFlight).get(), 1);
        assert_eq!(service.responses.of(5).get(), 1);
        assert_eq!(counted.endpoint.counters.mine().responses.of(5).get(), 0);
        assert_eq!(counted.endpoint.counters.mine().bytes_out.get(), 0);
    }

    #[test]
    fn who_went_away_and_what_was_a_tunnel_says_nothing_about_the_time_that_answers_take() {
        let counted = counted();
        for ending in [Ended::ClientLeft, Ended::Tunnel, Ended::InstanceBroke] {
            Recorded {
                ending,
                ..counted.answered()
            }
            .count();
        }
        let service = counted.service.tallies().mine();
        let total = super::super::Counts::of(std::iter::once(&service.total));
        assert_eq!(total.count(), 0);
        assert_eq!(service.client_aborts.get(), 1);
        assert_eq!(service.broken_answers.get(), 1);
    }

    /// Some 20 ns in release on the machine where it was written. The bound is far above, so that
    /// only a lock or an allocation per request is found by it, on whatever machine this runs.
    #[test]
    fn recording_a_request_costs_nanoseconds() {
        const ROUNDS: u32 = 20;
        const EACH: u32 = 10_000;
        this_thread_is(WorkerIndex(0));
        let counted = counted();
        let fastest = (0..ROUNDS).map(|_| {
            let began = std::time::Instant::now();
            for _ in 0..EACH {
                std::hint::black_box(&counted.answered()).count();
            }
            began.elapsed() / EACH
        });
        let fastest = fastest.min().unwrap();
        println!("recording a request: {fastest:?}");
        assert!(fastest < Duration::from_micros(5), "{fastest:?}");
    }
}
