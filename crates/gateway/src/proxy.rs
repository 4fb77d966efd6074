//! What happens to one request: checked, brought to an instance, answered.

use std::rc::Rc;

use bytes::Bytes;
use mainstay_http1::{Known, Method, Request};

use crate::answer::{Answer, AnswerHead, Content, Relay, Visit};
use crate::connection::Client;
use crate::errand::{self, Delivered};
use crate::exchange::Source;
use crate::refusal::{Reason, Refusal};

const SWITCHING_PROTOCOLS: u16 = 101;

/// Answers one request of `client`, whose body is in `source`.
pub(crate) async fn answer(client: Rc<Client>, request: Box<Request>, source: Source) -> Answer {
    let mut visit = begin(client, request);
    match errand::run(&mut visit, source).await {
        Ok(delivered) => relay(visit, *delivered),
        Err(refusal) => refuse(visit, &refusal),
    }
}

fn begin(client: Rc<Client>, request: Box<Request>) -> Visit {
    client.worker.counters.requests.add(1);
    Visit {
        started: client.begin_request(),
        id: client.worker.ids.of(&request.fields),
        request,
        status: None,
        reason: None,
        service: None,
        endpoint: None,
        tries: 0,
        bytes: 0,
        client,
    }
}

/// An answer of our own.
pub(crate) fn refuse(mut visit: Visit, refusal: &Refusal) -> Answer {
    visit.client.worker.counters.refusals.add(1);
    visit.reason = Some(refusal.reason);
    let status = refusal.reason.status();
    visit.status = Some(status);
    visit.client.begin_answer();
    let is_head = visit.request.method == Method::Head;
    let text = refusal.text(&visit.id);
    let mut fields = refusal.fields();
    let content = if is_head {
        fields.push(("content-length", Bytes::from(text.len().to_string())));
        Content::Empty
    } else {
        Content::Text(text)
    };
    Answer {
        status,
        head: AnswerHead::Ours(fields),
        content,
        visit,
    }
}

/// The instance's answer.
fn relay(mut visit: Visit, delivered: Delivered) -> Answer {
    let Delivered {
        response,
        exchange,
        flight,
    } = delivered;
    let status = response.status;
    let relay = Box::new(Relay::new(exchange, Rc::clone(&visit.client), flight));
    let content = if status == SWITCHING_PROTOCOLS {
        if visit.request.upgrade().is_none() || response.fields.get(Known::Upgrade).is_none() {
            let what = "the instance changed the protocol without being asked".to_owned();
            let mut refusal = Refusal::unrouted(Reason::BadUpgrade, what);
            let endpoint = visit.endpoint.as_ref();
            refusal.instance = endpoint.map(|endpoint| endpoint.shared.label.clone());
            return refuse(visit, &refusal);
        }
        Content::Tunnel(relay)
    } else {
        Content::Relayed(relay)
    };
    visit.status = Some(status);
    visit.client.begin_answer();
    Answer {
        status,
        head: AnswerHead::Instance(response),
        content,
        visit,
    }
}
