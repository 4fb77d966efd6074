//! Identifiers, generations and time: the words of Mainstay.
#![no_std]
