//! Where a service file is surely a mistake, or would cost more than it may.

use std::ops::RangeInclusive;
use std::time::Duration;

/// The longest file in bytes. 500 services in full are below 400 KiB, and the API takes 4 MiB.
pub const FILE_LEN_MAX: u64 = 1024 * 1024;
/// The most services of one file: as many as one machine is meant to hold.
pub const SERVICES_MAX: usize = 500;
/// The most variables of one service's environment. Programs with more read a file.
pub const ENV_MAX: usize = 256;
/// The most elements of an argument list.
pub const ARGV_MAX: usize = 256;
/// The longest text after `${VARIABLE}` was filled in. Linux hands no single argument of 128 KiB
/// to a program, and a variable repeated in a file must not fill the memory.
pub const TEXT_LEN_MAX: usize = 32 * 1024;
/// Problems that are kept; a file with more is no service file, and more are only counted.
pub const PROBLEMS_KEPT_MAX: usize = 1000;
/// Problems that are shown: more than anybody reads before mending the first. The rest is counted.
pub const PROBLEMS_SHOWN_MAX: usize = 50;
/// A line longer than this is not shown with its problem: it would fill the screen.
pub const SHOWN_LINE_LEN_MAX: usize = 240;

/// The shortest `health.every`: below it, probing 500 instances costs a core.
pub const HEALTH_EVERY_MIN: Duration = Duration::from_millis(10);
/// `health.fall` and `health.rise`. Above it an ill instance would be used for minutes.
pub const HEALTH_COUNT: RangeInclusive<u32> = 1..=100;
/// `log.size` in bytes. Below it, files rotate faster than they can be read; above it, one file is
/// more than an editor opens.
pub const LOG_SIZE: RangeInclusive<u64> = 4 * 1024..=4 * 1024 * 1024 * 1024;
/// `log.keep`: each rotation renames that many files.
pub const LOG_KEEP: RangeInclusive<u32> = 0..=100;
/// `limits.cpu` in thousandths of a processor. The kernel's shortest quota is a millisecond of each
/// 100; more than 1024 processors are surely a mistake.
pub const CPU_THOUSANDTHS: RangeInclusive<u32> = 10..=1_024_000;
/// `limits.memory` in bytes. With less, the kernel kills a program before it has said a word; more
/// is surely a mistake.
pub const MEMORY: RangeInclusive<u64> = 4 * 1024 * 1024..=4096 * 1024 * 1024 * 1024;
/// `limits.pids`: from the program alone to as many as Linux numbers.
pub const PIDS: RangeInclusive<u32> = 1..=4_194_304;
/// The longest name of an account that Linux's tools make.
pub const USER_LEN_MAX: usize = 32;

// The nesting of tables and lists is bounded by the TOML parser (80), which then reports it.
