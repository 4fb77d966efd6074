//! Interim answers of instances (1xx, RFC 9110, 15.2) on their way to the client.
//!
//! They are words in passing: nothing is decided by one, so that a request of which one was passed on
//! may still be sent again, and answered by another instance. "100 Continue" is not among them: we
//! say it ourselves, when the instance takes the body.

use std::cell::Cell;
use std::task::Context;

use mainstay_http1::{Request, Response, Version};

use crate::headers;
use crate::inbound::Inbound;
use crate::limits::{EARLY_LEN_MAX, INTERIM_MAX};
use crate::rewrite::RewritePlan;

const CONTINUE: u16 = 100;

/// Where the interim answers to one request go.
pub(crate) struct Early<'a> {
    /// `None`: nowhere. HTTP/1.0 knows none, and the library for HTTP/2 sends none.
    client: Option<&'a Inbound>,
    passed: Cell<u32>,
}

impl<'a> Early<'a> {
    pub(crate) fn new(request: &Request, inbound: Option<&'a Inbound>) -> Self {
        Self {
            client: inbound.filter(|_| request.version == Version::Http11),
            passed: Cell::new(0),
        }
    }

    /// Puts one on its way, unless there were too many, or the client does not read.
    pub(crate) fn pass(&self, response: &Response, rewrite: Option<&RewritePlan>) {
        let Some(inbound) = self.client else { return };
        if response.status == CONTINUE || self.passed.get() >= INTERIM_MAX {
            return;
        }
        self.passed.set(self.passed.get() + 1);
        inbound.say_early(EARLY_LEN_MAX, |out| {
            headers::write_interim(out, response, rewrite);
        });
    }

    /// Writes what is on its way. If the client is gone, whoever waits for that notices.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) {
        if let (Some(inbound), 1..) = (self.client, self.passed.get()) {
            let _ = inbound.poll_early(cx);
        }
    }
}
