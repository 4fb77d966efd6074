//! `mainstay`: keeps microservices available on plain Linux machines.
//!
//! This crate is wiring: arguments, signals, the supervisor of our own processes and the output of
//! each command. Every decision about services is in `mainstay-control`; every event loop is in a
//! driver crate. Start reading at `main`, then `supervisor`.
// `println!` and its kin panic when nobody reads any more: see `output`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod arguments;
mod clock;
mod command;
mod follow;
mod node_file;
mod outcome;
mod output;
mod prompt;
mod role;
mod safekeeping;
mod service_file;
mod supervisor;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use mainstay_model::IntakeState;

use crate::arguments::{Arguments, Backup, Command, ExportTo, ImportFrom, Upgradable};
use crate::outcome::Outcome;

fn main() -> ExitCode {
    // The shim stays small for the life of its instance: no parser, no runtime, no threads.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == "internal")
        && words.next().is_some_and(|word| word == "shim")
    {
        return match words.next() {
            Some(spec) => mainstay_agent::shim_main(Path::new(&spec)),
            None => Outcome::WrongInput.into(),
        };
    }
    match run(Arguments::parse()) {
        Ok(outcome) => outcome.into(),
        Err(error) => outcome::report(&error).into(),
    }
}

fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let Arguments { place, command } = arguments;
    match command {
        Command::Internal(internal) => role::run(&place, internal),
        Command::Schema { api: true, .. } => {
            command::schema::print(&mainstay_api::openapi::document())
        }
        Command::Schema { node: true, .. } => command::schema::print(&mainstay_api::node::schema()),
        Command::Schema { .. } => command::schema::print(&mainstay_api::file::schema()),
        Command::Validate { file, node } => command::validate::run(&place, &file, node.into()),
        Command::Import {
            from: ImportFrom::Keepalived { file },
        } => command::keepalived::import(&place, &file),
        Command::Export {
            to: ExportTo::Keepalived { file },
        } => command::keepalived::export(&place, &file),
        Command::Purge(purge) => command::purge::run(&place, &purge),
        Command::Explain { code } => command::explain::run(&code),
        Command::Completions { shell } => {
            let mut parser = Arguments::command();
            // Into memory first: it panics where it cannot write.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut parser, "mainstay", &mut script);
            output::written(std::io::stdout().write_all(&script))?;
            Ok(Outcome::Holds)
        }
        other => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("cannot start the runtime")?;
            runtime.block_on(run_online(&place, other))
        }
    }
}

/// The commands that speak with running processes.
async fn run_online(place: &arguments::Place, command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Dev(dev) => supervisor::dev::run(place, dev).await,
        Command::Run(run) => supervisor::run::run(place, run).await,
        Command::Up(up) => command::up::run(place, &up).await,
        Command::Plan { file } => command::plan::run(place, &file).await,
        Command::Ps { service } => command::ps::run(place, service).await,
        Command::Status { service } => command::status::run(place, service).await,
        Command::Logs(logs) => command::logs::run(place, &logs).await,
        Command::Events(events) => command::events::run(place, &events).await,
        Command::Resolve(resolve) => command::resolve::run(place, &resolve).await,
        Command::Why(why) => command::why::run(place, why).await,
        Command::Scale {
            service,
            instances,
            waiting,
        } => command::scale::run(place, service, instances, waiting).await,
        Command::Drain {
            instance,
            maintenance,
            force,
        } => command::intake::drain(place, instance, maintenance, force.into()).await,
        Command::Undrain { instance } => {
            let (state, last) = (IntakeState::Ready, command::intake::LastOne::Refuse);
            command::intake::set_state(place, instance, state, last).await
        }
        Command::Weight {
            instance,
            percent,
            force,
        } => command::intake::set_weight(place, instance, percent, force.into()).await,
        Command::Rollback {
            service,
            to,
            waiting,
        } => command::rollback::run(place, service, to, waiting).await,
        Command::Pause { service } => command::rollout::pause(place, service).await,
        Command::Resume { service, waiting } => {
            command::rollout::resume(place, service, waiting).await
        }
        Command::Promote { service, waiting } => {
            command::rollout::promote(place, service, waiting).await
        }
        Command::Down {
            services,
            all: _,
            waiting,
        } => command::down::run(place, services, waiting).await,
        Command::Upgrade {
            what: Upgradable::Gateway,
        } => command::upgrade::run(place).await,
        Command::Forward(forward) => command::forward::run(place, forward).await,
        Command::Secret(secret) => command::secret::run(place, secret).await,
        Command::Backup(Backup { deed, directory }) => {
            command::backup::run(place, directory, deed).await
        }
        Command::Restore { backup } => command::restore::run(place, &backup).await,
        Command::Prove(prove) => command::prove::run(place, prove).await,
        Command::Vip { deed } => command::vip::run(place, deed).await,
        Command::Queue { deed } => command::queue::run(place, deed),
        Command::Internal(_)
        | Command::Schema { .. }
        | Command::Validate { .. }
        | Command::Import { .. }
        | Command::Export { .. }
        | Command::Explain { .. }
        | Command::Purge(_)
        | Command::Completions { .. } => unreachable!("handled without a runtime"),
    }
}
