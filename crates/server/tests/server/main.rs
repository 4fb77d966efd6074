//! The control centre as a whole, over its real API: with an agent and a gateway that only pretend
//! to have processes and requests.

mod api;
mod bounds;
mod centre;
mod disk;
mod kill;
mod lifecycle;
mod pretenders;
mod secrets;
