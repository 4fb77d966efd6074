//! Answers that go on: states as they change, events as they happen. One JSON document a line, and
//! an empty line for each second in which nothing happened.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::header;
use mainstay_api::wire::{After, EventLine, Gap, GapReason, WATCH_PULSE};
use mainstay_ids::{Generation, InstanceId, ServiceName, Timestamp};
use mainstay_model::Event;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::handle::Handle;
use crate::history::Page;
use crate::past::{PAGE_LEN, Past, Span};
use crate::publication::Published;

const PULSE: Bytes = Bytes::from_static(b"\n");

/// How many events go into one write: enough that a long history is quick, few enough that one
/// slow reader holds some 20 kB.
const EVENTS_PER_WRITE: usize = 100;

/// What every stream has: its end and its pulse.
pub(super) struct Beat {
    stop: CancellationToken,
    pulse: Interval,
    _place: OwnedSemaphorePermit,
}

impl Beat {
    pub(super) fn new(stop: CancellationToken, place: OwnedSemaphorePermit) -> Self {
        let mut pulse = tokio::time::interval(WATCH_PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            stop,
            pulse,
            _place: place,
        }
    }
}

/// A watch of states: the newest at once, unless the reader has it, then each one that is the newest
/// when the reader has room. A reader that does not read holds one line.
pub(super) fn states(
    beat: Beat,
    mut states: watch::Receiver<Option<Published>>,
    after: Option<After>,
) -> Response {
    states.mark_changed();
    let seen = after.map(|After(generation)| generation);
    let watching = Watching { beat, states, seen };
    respond(stream::unfold(watching, |mut watching| async move {
        watching.next().await.map(|line| (line, watching))
    }))
}

struct Watching {
    beat: Beat,
    states: watch::Receiver<Option<Published>>,
    /// What the reader has: it is not sent. One that is newer than all there is, is of another
    /// cluster or of a state that was lost, and what there is replaces it.
    seen: Option<Generation>,
}

impl Watching {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                biased;
                () = self.beat.stop.cancelled() => return None,
                changed = self.states.changed() => {
                    changed.ok()?;
                    if let Some(state) = &*self.states.borrow_and_update()
                        && self.seen != Some(state.generation)
                    {
                        self.seen = Some(state.generation);
                        self.beat.pulse.reset();
                        return Some(state.line.clone());
                    }
                }
                _ = self.beat.pulse.tick() => return Some(PULSE),
            }
        }
    }
}

/// Which events are asked for.
pub(super) struct Wanted {
    pub(super) after: Option<u64>,
    pub(super) service: Option<ServiceName>,
    pub(super) instance: Option<InstanceId>,
    pub(super) since: Timestamp,
    pub(super) follow: Follow,
}

impl Wanted {
    fn includes(&self, event: &Event) -> bool {
        let service = self.service.as_ref();
        let instance = self.instance.as_ref();
        event.at >= self.since
            && service.is_none_or(|service| event.service.as_ref() == Some(service))
            && instance.is_none_or(|instance| event.kind.instance() == Some(instance))
    }
}

/// Whether a stream of events goes on behind the last one that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follow {
    Yes,
    No,
}

/// The events behind a number, and those to come if they are to be followed.
pub(super) fn events(beat: Beat, handle: Handle, wanted: Wanted) -> Response {
    let doorbell = handle.events();
    let reading = Reading {
        beat,
        handle,
        doorbell,
        wanted,
        past: None,
        found: VecDeque::new(),
    };
    respond(stream::unfold(reading, |mut reading| async move {
        reading.next().await.map(|lines| (lines, reading))
    }))
}

struct Reading {
    beat: Beat,
    handle: Handle,
    /// The number of the newest event.
    doorbell: watch::Receiver<u64>,
    wanted: Wanted,
    /// Where it is in the history on disk, while it reads what memory no longer has.
    past: Option<Past>,
    /// Events that were fetched and not written yet; at most what memory holds, or a page of the disk.
    found: VecDeque<Found>,
}

/// What becomes a line.
enum Found {
    Event(Arc<Event>),
    Gap(Gap),
}

impl Reading {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.found.is_empty() {
                return Some(self.write());
            }
            // Also where the reader is ahead: it is told so.
            if Some(*self.doorbell.borrow_and_update()) != self.wanted.after {
                self.fetch().await?;
                continue;
            }
            if self.wanted.follow == Follow::No {
                return None;
            }
            tokio::select! {
                biased;
                () = self.beat.stop.cancelled() => return None,
                changed = self.doorbell.changed() => changed.ok()?,
                _ = self.beat.pulse.tick() => return Some(PULSE),
            }
        }
    }

    /// Gets the next events: from memory, or, if it no longer has them, from the disk.
    async fn fetch(&mut self) -> Option<()> {
        let after = self.wanted.after.unwrap_or(0);
        let page = self.handle.read(move |view| view.history.page(after));
        let Page {
            oldest,
            last,
            events,
        } = page.await.ok()?;
        if after > last {
            self.wanted.after = Some(last);
            self.found.push_back(Found::Gap(Gap {
                from: last + 1,
                to: after,
                reason: GapReason::Renumbered,
            }));
            return Some(());
        }
        if after + 1 < oldest {
            let older = self.fetch_older(after, oldest).await?;
            if !older.is_empty() {
                for event in older {
                    self.take(Arc::new(event));
                }
                return Some(());
            }
        }
        for event in events {
            self.take(event);
        }
        self.tell_forgotten(last + 1);
        self.wanted.after = Some(last);
        // What happens from now on is wanted, whatever becomes of the clock.
        self.wanted.since = Timestamp(0);
        Some(())
    }

    /// The next events behind number `after` that are older than number `before`; none: the disk
    /// has no more of them.
    async fn fetch_older(&mut self, after: u64, before: u64) -> Option<Vec<Event>> {
        let Some(outline) = self.handle.outline() else {
            return Some(Vec::new());
        };
        let span = Span {
            after,
            before,
            since: self.wanted.since,
        };
        let past = self.past.take();
        let read = move || {
            let resumed = past.is_some();
            let mut past = past.unwrap_or_else(|| Past::find(&outline, span));
            let mut events = past.page(span);
            if events.is_empty() && resumed {
                // Its end may be behind that of the history by now.
                past = Past::find(&outline, span);
                events = past.page(span);
            }
            (past, events)
        };
        // There is no deadline: a read cannot be called back. It holds up this stream alone.
        let (past, events) = tokio::task::spawn_blocking(read).await.ok()?;
        self.past = (events.len() == PAGE_LEN).then_some(past);
        Some(events)
    }

    /// Takes the next event if it is asked for, and tells of those that are missing before it.
    fn take(&mut self, event: Arc<Event>) {
        if event.at >= self.wanted.since {
            self.wanted.since = Timestamp(0); // it says where to begin
            self.tell_forgotten(event.number);
        }
        self.wanted.after = Some(event.number);
        if self.wanted.includes(&event) {
            self.found.push_back(Found::Event(event));
        }
    }

    /// Tells the gap between what the reader has and the number that comes next.
    fn tell_forgotten(&mut self, comes: u64) {
        if let Some(after) = self.wanted.after
            && after + 1 < comes
        {
            self.found.push_back(Found::Gap(Gap {
                from: after + 1,
                to: comes - 1,
                reason: GapReason::Forgotten,
            }));
        }
    }

    fn write(&mut self) -> Bytes {
        let mut lines = Vec::new();
        let count = self.found.len().min(EVENTS_PER_WRITE);
        for found in self.found.drain(..count) {
            let written = match found {
                Found::Event(event) => serde_json::to_writer(&mut lines, &*event),
                Found::Gap(gap) => serde_json::to_writer(&mut lines, &EventLine::Gap { gap }),
            };
            written.expect("an event is JSON");
            lines.push(b'\n');
        }
        lines.into()
    }
}

fn respond(lines: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    use futures_util::StreamExt as _;
    let body = Body::from_stream(lines.map(Ok::<_, Infallible>));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}
