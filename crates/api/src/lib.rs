//! The outer surface: the service file as users type it, the HTTP API's requests and answers, and
//! the client with which the command line, the agent and the gateway speak to the control centre.
//!
//! It decides nothing about services and knows no store. Start reading at [`calls`] for the table of
//! what can be called, at [`wire`] for what goes over the API, at [`mod@file`] and [`node`] for what a user
//! types, at [`keepalived`] for what comes from there and goes there, at [`client`] for how to call.

pub mod calls;
pub mod client;
pub mod consumer;
pub mod file;
pub mod keepalived;
pub mod node;
pub mod openapi;
pub mod wire;
