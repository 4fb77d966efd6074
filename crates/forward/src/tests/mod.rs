//! In network namespaces, with real programs on both ends.

mod conformance;
mod host;

pub(crate) use host::{
    DEADLINE, Host, Kind, NEEDS_ROOT, OWN, address, answer, connect, even, instances, is_alive,
    is_refused, is_reset, network, ranges, run, serve, shares, weighed,
};
