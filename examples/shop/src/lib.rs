//! A small shop of three services, made to be killed, replaced and counted: `shop-orders` asks
//! `shop-payments` and `shop-inventory` for each order.
//!
//! It is an example of a well-behaved service and of nothing else: it keeps nothing, and knows
//! Mainstay only by the environment variables that any program gets. Start reading at
//! `bin/shop-orders.rs`, then [`server`] for how it ends without losing a request.

pub mod dependency;
pub mod server;
pub mod settings;

pub use dependency::{Dependency, Failed};
pub use server::{Answer, Asked, run};
pub use settings::Settings;

/// A request's mark. It is answered in the same header and in the body, so that a client can tell
/// that the answer is its own.
pub const NONCE_HEADER: &str = "x-prove-nonce";

/// The gateway's headers that say why a request came to nothing, and on which instance. Whoever
/// fails because of a dependency passes them on.
pub const BLAME_HEADERS: [&str; 2] = ["mainstay-reason", "mainstay-instance"];
