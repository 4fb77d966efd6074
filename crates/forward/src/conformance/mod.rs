//! What every back end must do: the same tests over all of them, in network namespaces, with real
//! programs on both ends.

mod host;
mod tests;

pub(crate) use host::{
    DEADLINE, Host, Kind, NEEDS_ROOT, address, answer, connect, even, instances, is_alive,
    is_refused, is_reset, network, ranges, run, serve, shares, weighed,
};
