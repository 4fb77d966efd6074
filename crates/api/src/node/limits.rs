//! The keys of `[gateway.limits]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use mainstay_model::GatewayLimits;
use mainstay_model::gateway as model;
use toml::de::DeValue;

use crate::file::problem::Code;
use crate::file::refusal::{Refused, quoted};
use crate::file::service::span;
use crate::file::units::{display_size, parse_size};
use crate::file::walk::{Entry, Section};

use super::later;

pub(super) fn limits(entry: &Entry<'_, '_>) -> Option<GatewayLimits> {
    let help = Some("write for instance `[gateway.limits]` with `head_time = \"10s\"`".to_owned());
    entry
        .section("a table", help, later::LIMITS, keys)
        .flatten()
}

/// The order is that of the list in messages.
fn keys(s: &mut Section<'_, '_>) -> Option<GatewayLimits> {
    let default = GatewayLimits::default();
    let head_len = s.or("head_len", default.head_len, |e| {
        size(e, model::HEAD_LEN_RANGE)
    });
    let head_fields = s.or("head_fields", default.head_fields, |e| {
        e.integer(model::HEAD_FIELDS_RANGE)
    });
    let head_time = s.or("head_time", default.head_time, time);
    let body_idle = s.or("body_idle", default.body_idle, time);
    let write_idle = s.or("write_idle", default.write_idle, time);
    let answer_time = s.or("answer_time", default.answer_time, time);
    let request_time = s.or("request_time", default.request_time, time);
    let idle_time = s.or("idle_time", default.idle_time, time);
    let (connections, connections_per_address) = connections(s);
    let requests_per_connection = s.or(
        "requests_per_connection",
        default.requests_per_connection,
        |e| e.integer(model::REQUESTS_PER_CONNECTION_RANGE),
    );
    let connection_age = s.or("connection_age", default.connection_age, time);
    let queue_len = s.or("queue_len", default.queue_len, |e| {
        e.integer(model::QUEUE_LEN_RANGE)
    });
    let queue_time = s.or("queue_time", default.queue_time, time);
    let replay_len = s.or("replay_len", default.replay_len, |e| {
        size(e, model::REPLAY_LEN_RANGE)
    });
    let h2_streams = s.or("h2_streams", default.h2_streams, |e| {
        e.integer(model::H2_STREAMS_RANGE)
    });
    Some(GatewayLimits {
        head_len: head_len?,
        head_fields: head_fields?,
        head_time: head_time?,
        body_idle: body_idle?,
        write_idle: write_idle?,
        answer_time: answer_time?,
        request_time: request_time?,
        idle_time: idle_time?,
        connections: connections?,
        connections_per_address: connections_per_address?,
        requests_per_connection: requests_per_connection?,
        connection_age: connection_age?,
        queue_len: queue_len?,
        queue_time: queue_time?,
        replay_len: replay_len?,
        h2_streams: h2_streams?,
    })
}

/// In all and per address, of which the second is a part of the first.
fn connections(s: &mut Section<'_, '_>) -> (Option<u32>, Option<u32>) {
    let all = s.or("connections", model::CONNECTIONS, |e| {
        e.integer(model::CONNECTIONS_RANGE)
    });
    let each = s.take("connections_per_address");
    // One that was refused is no reason to refuse the other.
    let most = all.unwrap_or(*model::CONNECTIONS_RANGE.end());
    let default = (most / model::CONNECTIONS_PER_ADDRESS_PART).max(1);
    let each = each.map_or(Some(default), |e| {
        let each = e.integer(model::CONNECTIONS_RANGE)?;
        if each > most {
            let message = format!("one address cannot have more than all together; found {each}");
            let refused = Refused::new(Code::Conflict, message);
            e.refuse(refused.help(format!("write at most {most}, or raise `connections`")));
            return None;
        }
        Some(each)
    });
    (all, each)
}

fn time(entry: &Entry<'_, '_>) -> Option<Duration> {
    span(entry, model::TIME_MIN)
}

/// A size in bytes.
fn size(entry: &Entry<'_, '_>, range: RangeInclusive<u32>) -> Option<u32> {
    let key = entry.name();
    let example = match entry.value() {
        DeValue::Integer(number) => format!("`{key} = \"{number}B\"`"),
        _ => format!("`{key} = \"64KiB\"`"),
    };
    entry.text("a size, as in `64KiB`", &example, |text| {
        let size = parse_size(text)?;
        let fits = u32::try_from(size).ok();
        fits.filter(|size| range.contains(size)).ok_or_else(|| {
            Refused::value(format!(
                "`{key}` is from {} to {}; found {}",
                display_size((*range.start()).into()),
                display_size((*range.end()).into()),
                quoted(text)
            ))
        })
    })
}
