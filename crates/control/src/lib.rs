//! The decisions: health, restart, rollout, drain and routing, without input or output.
#![no_std]
