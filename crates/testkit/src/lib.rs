//! What the tests and benches of all crates share: deadlines, free ports, directories, real programs
//! and processes that are ended whatever happens.
//!
//! It holds no test of Mainstay itself and no mock: where the real thing can run, tests run it.
//! Only `[dev-dependencies]` may name this crate (and `xtask`, which runs the benches).
//!
//! A system test reads like this:
//!
//! ```
//! use std::{process::Command, time::Duration};
//!
//! let dir = mainstay_testkit::TempDir::new("example");
//! let port = mainstay_testkit::free_port();
//! let mut command = Command::new(mainstay_testkit::program("python3"));
//! command.args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()]);
//! let server = mainstay_testkit::Spawned::start(&dir, "web", &mut command);
//! mainstay_testkit::wait_until(Duration::from_secs(20), "the web server listens", || {
//!     std::net::TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())
//! });
//! drop(server); // kills it, also when the test fails before this line
//! ```
//!
//! Start reading at [`wait_until`] and [`Spawned`].

mod authority;
pub mod census;
mod dir;
mod echo;
pub mod floating;
pub mod kills;
mod netns;
mod packages;
mod ports;
mod programs;
mod rabbitmq;
mod reach;
mod segment;
mod skip;
mod spawned;
mod sweep;
mod wait;

pub use authority::{Authority, Pair};
pub use dir::TempDir;
pub use echo::{Echo, Probe, Seen};
pub use netns::Netns;
pub use packages::Packages;
pub use ports::free_port;
pub use programs::{Need, Program, find, program, programs};
pub use rabbitmq::{RabbitMq, RabbitMqOptions};
pub use reach::service_file_in_reach;
pub use segment::{Carrier, Segment};
pub use skip::{SKIP_MARK, SKIPS_FILE, skip};
pub use spawned::{Ended, Spawned};
pub use sweep::{Swept, sweep};
pub use wait::{wait_until, wait_until_async};

/// Whether this process may do what only root may.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
