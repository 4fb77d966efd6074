//! The live values of the page: server-sent events (HTML standard, 9.2), one per second, with the
//! rows that have changed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{Stream, unfold};
use http_body::Frame;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};

use super::page::{self, View};
use super::rows::{Row, Snapshot};

/// How long one stream goes on. A browser asks for the next by itself; so a reader that is gone
/// without a word is let go.
pub(crate) const STREAM_TIME: Duration = Duration::from_mins(5);

/// What one reader has seen.
struct Reader {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    seen: Option<Arc<Snapshot>>,
    view: View,
    end: Instant,
    /// Its place among the streams.
    _place: OwnedSemaphorePermit,
}

/// The stream for one reader, from everything to whatever changes. A reader that does not read
/// skips what came meanwhile.
pub(crate) fn stream(
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    view: View,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    snapshots.mark_changed();
    let reader = Reader {
        snapshots,
        seen: None,
        view,
        end: Instant::now() + STREAM_TIME,
        _place: place,
    };
    unfold(reader, |mut reader| async move {
        // Either its time is over, or there will be no more.
        timeout_at(reader.end, reader.snapshots.changed())
            .await
            .ok()?
            .ok()?;
        let newest = Arc::clone(&reader.snapshots.borrow_and_update());
        let event = event(reader.seen.as_deref(), &newest, reader.view);
        reader.seen = Some(newest);
        Some((Ok(Frame::data(Bytes::from(event))), reader))
    })
}

fn event(seen: Option<&Snapshot>, newest: &Snapshot, view: View) -> String {
    let shown = |snapshot: &Snapshot| -> Vec<Row> {
        let rows = snapshot.rows.iter().filter(|row| view.shows(row));
        rows.cloned().collect()
    };
    let before = seen.map(shown).unwrap_or_default();
    let rows = shown(newest);
    let ids = |rows: &[Row]| rows.iter().map(Row::id).collect::<Vec<_>>();
    let order = (seen.is_none() || ids(&before) != ids(&rows)).then(|| ids(&rows));
    let changed = rows.iter().filter(|row| {
        let before = before.iter().find(|before| before.id() == row.id());
        before.is_none_or(|before| rendered(before) != rendered(row))
    });
    let changed: Vec<Value> = changed.map(rendered).collect();
    let own = page::own(&newest.own).map(|(_, value)| value);
    let event = json!({ "own": own, "order": order, "rows": changed });
    format!("data: {event}\n\n")
}

fn rendered(row: &Row) -> Value {
    let cells = page::cells(row).into_iter().map(|cell| {
        // Not a number: null, by which the text itself is sorted.
        json!([cell.text, cell.order])
    });
    json!({
        "id": row.id(),
        "class": page::class(row),
        "cells": cells.collect::<Vec<_>>(),
    })
}
