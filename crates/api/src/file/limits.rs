//! Where a service file is surely a mistake, or would cost more than it may.

pub use mainstay_model::limits::{
    ARGV_MAX, CPU_THOUSANDTHS, ENV_MAX, HEALTH_COUNT, HEALTH_EVERY_MIN, LOG_KEEP, LOG_SIZE, MEMORY,
    PIDS, TEXT_LEN_MAX, USER_LEN_MAX,
};

/// The longest file in bytes. 500 services in full are below 400 KiB, and the API takes 4 MiB.
pub const FILE_LEN_MAX: u64 = 1024 * 1024;
/// The most services of one file: as many as one machine is meant to hold.
pub const SERVICES_MAX: usize = 500;
/// Problems that are kept; a file with more is no service file, and more are only counted.
pub const PROBLEMS_KEPT_MAX: usize = 1000;
/// Problems that are shown: more than anybody reads before mending the first. The rest is counted.
pub const PROBLEMS_SHOWN_MAX: usize = 50;
/// A line longer than this is not shown with its problem: it would fill the screen.
pub const SHOWN_LINE_LEN_MAX: usize = 240;

// The nesting of tables and lists is bounded by the TOML parser (80), which then reports it.
