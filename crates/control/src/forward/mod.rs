//! How connections to a service address are spread over instances by the kernel, which knows no
//! load and no latency: by weights alone.
//!
//! [`Spread::of`] says which instance gets which share; [`Slots::of`] turns shares into slots, of
//! which the kernel draws one for each connection. Every program that forwards, on every node, comes
//! to the same shares from the same routes. [`Course::follow`] says what a new routing state changes.

mod course;
mod difference;
mod slots;
mod spread;

pub use course::{Batch, Course, Place, PlacesChange, Step, Turn};
pub use slots::{Class, Draw, Slots};
pub use spread::{Share, Spread, Staying};
