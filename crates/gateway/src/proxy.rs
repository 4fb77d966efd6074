//! What happens to one request: checked, brought to an instance, answered.

use std::rc::Rc;

use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, response};
use hyper::body::Incoming;

use crate::answer::{Answer, Answered, Content, Relay, Visit};
use crate::connection::Client;
use crate::errand::{Delivered, Errand};
use crate::headers;
use crate::limits::UPGRADE_TIMEOUT;
use crate::refusal::{Reason, Refusal};
use crate::request_id::X_REQUEST_ID;
use crate::tunnel::Tunnel;

/// Answers one request of `client`.
pub(crate) async fn answer(client: Rc<Client>, mut request: Request<Incoming>) -> Answered {
    client.worker.counters.requests.add(1);
    let mut visit = Visit {
        started: client.begin_request(),
        id: client.worker.ids.of(request.headers()),
        method: request.method().clone(),
        version: request.version(),
        uri: request.uri().clone(),
        host: None,
        status: None,
        reason: None,
        service: None,
        endpoint: None,
        tries: 0,
        bytes: 0,
        client,
    };
    if let Err(why) = headers::check(&mut request) {
        let refusal = Refusal::unrouted(Reason::BadRequest, why.to_string());
        return Ok(refuse(visit, &refusal));
    }
    visit.uri.clone_from(request.uri());
    visit.host = request.headers().get(HOST).cloned();
    let mut errand = Errand::new(&visit, request);
    Ok(match errand.run(&mut visit).await {
        Ok(delivered) => relay(visit, *delivered, errand).await,
        Err(refusal) => refuse(visit, &refusal),
    })
}

/// An answer of our own.
fn refuse(mut visit: Visit, refusal: &Refusal) -> Response<Answer> {
    visit.client.worker.counters.refusals.add(1);
    visit.reason = Some(refusal.reason);
    let mut headers = refusal.headers();
    if refusal.reason == Reason::BadRequest {
        // What follows on this connection may not be what it seems to be.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let text = refusal.text(&visit.id);
    respond(visit, refusal.reason.status(), headers, Content::Text(text))
}

fn respond(
    mut visit: Visit,
    status: StatusCode,
    mut headers: HeaderMap,
    content: Content,
) -> Response<Answer> {
    visit.status = Some(status.as_u16());
    visit.client.begin_answer();
    headers.insert(X_REQUEST_ID, visit.id.clone());
    let mut response = Response::new(Answer {
        content,
        visit: Some(visit),
    });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The instance's answer.
async fn relay(visit: Visit, delivered: Delivered, errand: Errand) -> Response<Answer> {
    if delivered.response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switch(visit, delivered, errand.upgrade).await;
    }
    let Delivered {
        response,
        mut upstream,
        flight,
    } = delivered;
    let (mut parts, body) = response.into_parts();
    headers::to_client(&mut parts.headers, None);
    let driver = if errand.is_uploading() {
        // The client may read nothing before it has sent everything, and then nobody would drive
        // the upload. The task has nothing to tell; it ends when the upload does, and that ends
        // with the client's connection at the latest.
        let endpoint = Rc::clone(flight.endpoint());
        tokio::task::spawn_local(async move {
            upstream.settle().await;
            if upstream.is_idle() {
                endpoint.park(upstream);
            }
        });
        None
    } else {
        Some(upstream)
    };
    let content = Relay::start(body, driver, flight);
    respond(visit, parts.status, parts.headers, content)
}

/// The instance changes the protocol: afterwards bytes are carried both ways.
async fn switch(
    mut visit: Visit,
    delivered: Delivered,
    asked: Option<HeaderValue>,
) -> Response<Answer> {
    let Delivered {
        response,
        upstream,
        flight,
    } = delivered;
    let (
        response::Parts {
            status,
            mut headers,
            ..
        },
        _,
    ) = response.into_parts();
    let protocol = asked.and_then(|_| headers.get(UPGRADE).cloned());
    let socket = upstream.into_upgraded(UPGRADE_TIMEOUT).await;
    let (Some(protocol), Some((instance, early))) = (protocol, socket) else {
        let what = "the instance changed the protocol without being asked".to_owned();
        let mut refusal = Refusal::unrouted(Reason::BadUpgrade, what);
        refusal.instance = Some(flight.endpoint().shared.label.clone());
        return refuse(visit, &refusal);
    };
    headers::to_client(&mut headers, Some(protocol));
    headers.insert(X_REQUEST_ID, visit.id.clone());
    visit.status = Some(status.as_u16());
    let client = Rc::clone(&visit.client);
    client.begin_answer();
    client.tunnel_through(Tunnel {
        instance,
        early,
        flight,
        visit,
    });
    let mut response = Response::new(Answer {
        content: Content::Empty,
        visit: None,
    });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
