//! The HTTP surface: exactly the table of [`mainstay_api::calls`].

mod admission;
mod connection;
mod endpoints;
mod patience;
mod refusal;
mod request;
mod secrets;
mod stream;

pub(crate) use admission::Admission;
pub use connection::ListenError;
pub(crate) use connection::Listener;
pub(crate) use endpoints::Api;
