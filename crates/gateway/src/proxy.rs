//! What happens to one request: checked, brought to an instance, answered.

use std::rc::Rc;

use bytes::Bytes;
use mainstay_http1::{Known, Method, Request};

use crate::answer::{Answer, AnswerHead, Content, Relay, Visit};
use crate::connection::Client;
use crate::early::Early;
use crate::errand::{Delivered, Errand};
use crate::exchange::Source;
use crate::headers::Alterations;
use crate::inbound::Inbound;
use crate::metrics::recorded::Ended;
use crate::refusal::{Reason, Refusal};
use crate::rewrite;

const SWITCHING_PROTOCOLS: u16 = 101;

/// Answers one request of `client`, whose body is in `source`. Interim answers go to `inbound`.
pub(crate) async fn answer(
    client: Rc<Client>,
    request: Box<Request>,
    source: Source,
    inbound: Option<&Inbound>,
) -> Answer {
    let mut visit = begin(client, request);
    if let Some(redirection) = redirect(&mut visit) {
        return redirection.answer(visit);
    }
    let early = Early::new(&visit.request, inbound);
    let mut errand = match Errand::new(&mut visit, source, early) {
        Ok(errand) => errand,
        Err(refusal) => return refuse(visit, &refusal),
    };
    match errand.run(&mut visit).await {
        Ok(delivered) => relay(visit, *delivered),
        Err(refusal) => refuse(visit, &refusal),
    }
}

fn begin(client: Rc<Client>, request: Box<Request>) -> Visit {
    Visit {
        started: client.begin_request(),
        id: client.worker.ids.of(&request.fields),
        request,
        status: None,
        reason: None,
        service: None,
        counts: None,
        first_byte: None,
        ending: Ended::ClientLeft,
        endpoint: None,
        alterations: Alterations::default(),
        tries: 0,
        hedge: None,
        bytes: 0,
        client,
    }
}

/// Where a request is sent instead of being answered.
struct Redirection {
    status: u16,
    location: Vec<u8>,
}

/// Whether the request is to be asked elsewhere.
fn redirect(visit: &mut Visit) -> Option<Redirection> {
    let view = visit.client.worker.view();
    let (label, redirect) = view.find_redirect(visit.client.scope, &visit.request)?;
    visit.service = Some(Rc::clone(label));
    Some(Redirection {
        status: redirect.status.code(),
        location: rewrite::location(redirect, visit.values()),
    })
}

impl Redirection {
    fn answer(self, mut visit: Visit) -> Answer {
        let Self { status, location } = self;
        visit.status = Some(status);
        visit.client.begin_answer();
        // RFC 9110, 15.4: a short note for whoever does not follow.
        let phrase = mainstay_http1::reason(status).as_bytes();
        let text = Bytes::from([phrase, b": ", &location, b"\n"].concat());
        let kind = Bytes::from_static(b"text/plain; charset=utf-8");
        let fields = vec![("location", Bytes::from(location)), ("content-type", kind)];
        own_answer(visit, status, fields, text)
    }
}

/// An answer of our own.
pub(crate) fn refuse(mut visit: Visit, refusal: &Refusal) -> Answer {
    visit.reason = Some(refusal.reason);
    let status = refusal.reason.status();
    visit.status = Some(status);
    visit.client.begin_answer();
    let text = refusal.text(&visit.id);
    own_answer(visit, status, refusal.fields(), text)
}

fn own_answer(
    mut visit: Visit,
    status: u16,
    mut fields: Vec<(&'static str, Bytes)>,
    text: Bytes,
) -> Answer {
    let is_head = visit.request.method == Method::Head;
    let content = if is_head {
        fields.push(("content-length", Bytes::from(text.len().to_string())));
        visit.ending = Ended::Whole;
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
