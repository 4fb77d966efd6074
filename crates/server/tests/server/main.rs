//! The control centre as a whole, over its real API: with an agent and a gateway that only pretend
//! to have processes and requests.

mod api;
mod bounds;
mod callers;
mod centre;
mod contract;
mod disk;
mod history;
mod hostile;
mod http2;
mod kill;
mod lifecycle;
mod pretenders;
mod safekeeping;
mod secrets;
mod watches;
