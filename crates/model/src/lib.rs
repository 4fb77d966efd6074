//! Checked specifications and the values that Mainstay's processes exchange.
#![no_std]
