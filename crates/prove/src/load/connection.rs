//! One connection's task: takes a request, sends it, checks the answer, counts it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use tokio::net::TcpStream;

use super::report::Kind;
use super::tally::{Ended, Tally};
use super::wire::{Answer, NONCE_LEN, Stream, nonce, write_request};
use super::worker::{Job, Queue};
use super::{Connections, Expect, REQUEST_DEADLINE, Target};

pub(super) struct Connection {
    pub(super) target: Rc<Target>,
    /// Which target it is.
    pub(super) index: usize,
    /// Which of the target's connections this is.
    pub(super) number: usize,
    pub(super) connections: Connections,
    pub(super) queue: Rc<Queue>,
    pub(super) tally: Rc<RefCell<Tally>>,
}

impl Connection {
    pub(super) async fn run(self) {
        let mut stream = None;
        let mut bytes = Vec::new();
        while let Some(job) = self.queue.take().await {
            self.serve(&job, &mut stream, &mut bytes).await;
            if matches!(self.connections, Connections::PerRequest(_)) {
                stream = None;
            }
        }
    }

    /// Brings one request to its end, whatever that is, and counts it exactly once.
    async fn serve(&self, job: &Job, stream: &mut Option<Stream>, bytes: &mut Vec<u8>) {
        let request = &self.target.requests[job.request];
        let nonce = nonce(job.drawn);
        bytes.clear();
        write_request(
            bytes,
            request,
            &self.target.host,
            self.connections,
            &nonce,
            job.drawn,
        );
        let ended = Ended {
            target: self.index,
            request,
            nonce: &nonce,
            planned: job.planned,
            sent: Instant::now(),
        };
        let deadline = tokio::time::Instant::from_std(job.planned + REQUEST_DEADLINE);
        let exchanged = tokio::time::timeout_at(
            deadline,
            self.exchange(stream, bytes, &nonce, request.expect),
        )
        .await;
        let answer = match exchanged.unwrap_or(Err(Kind::TimedOut)) {
            Ok(answer) => answer,
            Err(kind) => {
                *stream = None;
                return self.tally.borrow_mut().failed(&ended, kind, None);
            }
        };
        if !answer.reusable {
            *stream = None;
        }
        match answer.verdict(request.expect) {
            Ok(()) => self.tally.borrow_mut().answered(&ended),
            Err(kind) => self
                .tally
                .borrow_mut()
                .failed(&ended, kind, answer.instance),
        }
    }

    async fn exchange(
        &self,
        stream: &mut Option<Stream>,
        bytes: &[u8],
        nonce: &[u8; NONCE_LEN],
        expect: Expect,
    ) -> Result<Answer, Kind> {
        if stream.as_ref().is_some_and(Stream::is_stale) {
            // Nothing was asked on it when it was closed, so nothing is lost with it.
            *stream = None;
        }
        let open = match stream {
            Some(open) => open,
            None => stream.insert(self.connect().await?),
        };
        open.exchange(bytes, nonce, Some(expect)).await
    }

    async fn connect(&self) -> Result<Stream, Kind> {
        let addresses = &self.target.addresses;
        let address = addresses[self.number % addresses.len()];
        let tcp = TcpStream::connect(address).await;
        tcp.map(Stream::new)
            .map_err(|error| Kind::of_connect(&error))
    }
}
