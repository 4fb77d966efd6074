//! Names that are not ours: asked of the upstreams, one after the other, and never in a circle.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::choice::{Asking, Choice, ECHO_NAME, echo_label};
use super::reply::{self, Others, Transport};
use super::system::ResolvConf;
use super::upstream::{self, Answer};
use super::wire::{self, Code, Question};
use crate::context::Clock;

/// How often resolv.conf is looked at: DHCP and people change it, and nobody tells.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Of whom names are asked that are not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstreams {
    /// Of those that the node's file names.
    These(Vec<SocketAddr>),
    /// Of those that this machine asked before.
    Of(ResolvConf),
}

/// The way to others, for each task that has a query for them.
#[derive(Debug, Clone)]
pub(super) struct Way {
    /// Tasks of several queries choose and tell at once. It is held for some instructions, and over no
    /// await.
    choice: Arc<Mutex<Choice>>,
    clock: Clock,
}

impl Way {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            choice: Arc::default(),
            clock,
        }
    }

    fn choose<T>(&self, deed: impl FnOnce(&mut Choice) -> T) -> T {
        // Whoever panicked with it has left nothing half done that matters: at worst a count too high.
        deed(&mut self.choice.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there is anybody to ask.
    pub(super) fn others(&self) -> Others {
        if self.choose(|choice| choice.is_empty()) {
            Others::Refused
        } else {
            Others::Asked
        }
    }

    /// Whether this query is our own, come back: then whoever it was asked of is not asked any more.
    pub(super) fn comes_back(&self, query: &[u8]) -> Option<Vec<u8>> {
        let question = Question::read(query).ok()?;
        let now = self.clock.now();
        let upstream = self.choose(|choice| choice.recognise(question.labels(), now))?;
        tracing::error!(%upstream, "asks us for what we ask it: a circle; it is not asked for a while. Write another `upstream` in `[names]`, or let it ask us for `mainstay.internal` alone");
        Some(question.refuse(Code::Refused))
    }

    /// The answer to a query; a failure is one, too.
    pub(super) async fn ask(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let question = Question::read(query).ok()?;
        let asking = self.choose(|choice| choice.begin(question.bytes));
        if asking == Asking::TooOften {
            return Some(question.refuse(Code::ServerFailure));
        }
        let _ends = Ends {
            way: self,
            question: question.bytes,
        };
        let answer = self.ask_each(query, &question, transport);
        if asking == Asking::Yes {
            return Some(answer.await);
        }
        // Beside the question itself: most often two programs want to know the same.
        let look = async {
            self.look_for_loops().await;
            std::future::pending().await
        };
        tokio::select! {
            answer = answer => Some(answer),
            never = look => never,
        }
    }

    /// Asks one upstream after the other.
    async fn ask_each(
        &self,
        query: &[u8],
        question: &Question<'_>,
        transport: Transport,
    ) -> Vec<u8> {
        let mut at_worst = question.refuse(Code::ServerFailure);
        for upstream in self.choose(|choice| choice.order(self.clock.now())) {
            match upstream::ask(upstream, query, question.bytes, transport).await {
                Ok(answer) => {
                    let failed = wire::is_failure(answer.bytes());
                    let answer = fitting(query, question, answer, transport);
                    if !failed {
                        self.choose(|choice| choice.answered(upstream));
                        return answer;
                    }
                    // As C libraries do; if all say so, it is what the client is told.
                    at_worst = answer;
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::debug!(%upstream, error = %crate::chain(error), "the next one is asked");
                }
            }
        }
        at_worst
    }

    /// Asks each upstream for a name that only we know, unless that was just done. What it answers means
    /// nothing; if it asks us, [`Way::comes_back`] sees it.
    async fn look_for_loops(&self) {
        let now = self.clock.now();
        let looks = self.choose(|choice| choice.looks(now, || fastrand::u64(..)));
        let mut asked = JoinSet::new();
        for (address, nonce) in looks {
            asked.spawn(async move {
                let label = echo_label(nonce);
                let [one, two, three] = ECHO_NAME;
                let query = wire::query(0, &[&label, one, two, three]);
                let Ok(question) = Question::read(&query) else {
                    return;
                };
                let asked = upstream::ask(address, &query, question.bytes, Transport::Udp);
                // Whoever gives no answer is found out by the queries that he leaves unanswered.
                asked.await.ok();
            });
        }
        while asked.join_next().await.is_some() {}
    }

    /// Takes over whom this machine asks now.
    fn take(&self, servers: &[SocketAddr]) {
        self.choose(|choice| choice.replace(servers));
    }
}

/// The end of a question, however its task ends.
struct Ends<'a> {
    way: &'a Way,
    question: &'a [u8],
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.way.choose(|choice| choice.end(self.question));
    }
}

/// An answer as it came, or the word that it is too long.
fn fitting(query: &[u8], question: &Question<'_>, answer: Answer, transport: Transport) -> Vec<u8> {
    match (answer, transport) {
        (Answer::Whole(answer), Transport::Tcp) => answer,
        (Answer::Whole(answer), Transport::Udp) if answer.len() <= reply::room_of(query) => answer,
        (Answer::Whole(answer) | Answer::Begun(answer), _) => question.truncated(&answer),
    }
}

/// Keeps the way's upstreams up to date until `stop`. `own`: where we listen ourselves.
pub(super) async fn keep(way: Way, upstreams: Upstreams, own: SocketAddr, stop: CancellationToken) {
    let mut known: Option<Vec<SocketAddr>> = None;
    loop {
        if let Some(servers) = servers(&upstreams, own).await
            && known.as_ref() != Some(&servers)
        {
            tell(&servers);
            way.take(&servers);
            known = Some(servers);
            way.look_for_loops().await;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

async fn servers(upstreams: &Upstreams, own: SocketAddr) -> Option<Vec<SocketAddr>> {
    let conf = match upstreams {
        Upstreams::These(servers) => return Some(servers.clone()),
        Upstreams::Of(conf) => conf.clone(),
    };
    let path = conf.path.clone();
    let read = tokio::task::spawn_blocking(move || conf.servers(own)).await;
    match read {
        Ok(Ok(servers)) => Some(servers),
        Ok(Err(error)) => {
            tracing::debug!(path = %path.display(), %error, "cannot be read; whom we ask stays as it is");
            None
        }
        Err(error) => {
            tracing::error!(%error, "the look at resolv.conf failed");
            None
        }
    }
}

fn tell(servers: &[SocketAddr]) {
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    if servers.is_empty() {
        tracing::warn!(
            "no server but ourselves is known: names that are not ours are refused; write `upstream` in `[names]`"
        );
    } else {
        let servers = servers.join(", ");
        tracing::info!(servers, "names that are not ours are asked of these");
    }
}
