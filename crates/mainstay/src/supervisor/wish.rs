//! What a front end may ask of the family while it keeps its processes.

use anyhow::Context;
use mainstay_api::node::{NodeFile, Role};
use rustix::process::Signal;
use std::convert::Infallible;
use tokio::sync::oneshot;

use super::claim;
use super::family::{Family, Member, State};
use super::kind::{GATEWAYS, Kind};
use super::listening::Moved;
use super::settings::Settings;
use crate::{outcome, output};

/// How many may wait: one of each kind, twice. The family takes them at once, so that it is full
/// only while a process is being started; then whoever wishes waits.
pub(crate) const WISHES: usize = 4;

/// One of them.
#[derive(Debug)]
pub(crate) enum Wish {
    /// What the node's file says now.
    Node(Box<NodeFile>),
    /// That the floating addresses go to other machines, for good; who wishes is told when they have gone, by the end of
    /// this.
    Addresses(oneshot::Sender<Infallible>),
}

impl Family {
    /// Does what is asked for. What cannot be done is told, and all stays as it was.
    pub(super) fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::Node(file) => {
                if let Err(error) = self.adapt(&file) {
                    outcome::report(&error);
                    output::warn("  what ran before goes on as it was");
                }
            }
            Wish::Addresses(told) => {
                if let Err(error) = self.give_addresses_away(told) {
                    outcome::report(&error);
                }
            }
        }
    }

    /// Ends the holder of the floating addresses, which offers them first, and starts it no more.
    fn give_addresses_away(&mut self, told: oneshot::Sender<Infallible>) -> anyhow::Result<()> {
        let holder = |member: &Member| member.kind == Kind::Vip;
        let Some(index) = self.members.iter().position(holder) else {
            return Ok(());
        };
        let until = self.now().after(self.patience(Kind::Vip));
        let member = &mut self.members[index];
        let State::Running { identity, .. } = &member.state else {
            member.state = State::Idle;
            return Ok(());
        };
        let identity = identity.clone();
        member.state = State::Leaving { identity, until };
        self.addresses_gone = Some(told);
        self.remember();
        self.signal(index, Signal::TERM)
    }

    /// Puts a changed node file in force, as far as that goes without an end of a process.
    fn adapt(&mut self, file: &NodeFile) -> anyhow::Result<()> {
        let wanted = Settings::of_node(file)?;
        let names = self.prepare_names(&wanted)?;
        let moved = self.move_gateway(&wanted)?;
        self.change_names(names, wanted.names.clone())?;
        for key in self.settings.fixed_differences(&wanted) {
            output::warn(format_args!(
                "{key} changed, which is in force after the next start of `mainstay run`"
            ));
        }
        if wanted.gateway.stats_auth != self.settings.gateway.stats_auth {
            // Read at a gateway's start alone.
            self.want_upgrade();
        }
        if wanted.gateway != self.settings.gateway {
            let before = std::mem::replace(&mut self.settings.gateway, wanted.gateway);
            if let Err(error) = self.save_settings() {
                self.settings.gateway = before;
                return Err(error);
            }
            self.tell_gateways_to_reread()?;
            output::warn("the gateway's changed settings are in force");
        }
        if self.settings.has(Role::Vip)
            && !wanted.vips.is_empty()
            && wanted.vips != self.settings.vips
        {
            let before = std::mem::replace(&mut self.settings.vips, wanted.vips);
            if let Err(error) = self.save_vips() {
                self.settings.vips = before;
                return Err(error);
            }
            output::warn("the floating addresses changed; what is held is offered to others first");
        }
        match moved {
            Moved::Nothing => {}
            Moved::Others => self.want_upgrade(),
            Moved::Entry => {
                self.want_upgrade();
                self.tell_server_the_entry()?;
            }
        }
        Ok(())
    }

    /// Makes the sockets that are wanted now. The gateway that has the old ones keeps them until
    /// another one has taken over.
    fn move_gateway(&mut self, wanted: &Settings) -> anyhow::Result<Moved> {
        if !self.settings.has(Role::Gateway) {
            return Ok(Moved::Nothing);
        }
        if !self.listening.has_gateway() {
            let runs = |member: &&Member| {
                GATEWAYS.contains(&member.kind) && matches!(member.state, State::Running { .. })
            };
            let Some(adopted) = self.members.iter().find(runs) else {
                // It is started in a moment, and its sockets are made then.
                return Ok(Moved::Nothing);
            };
            let hand = self.hand(adopted.kind);
            self.listening.take_back(&hand)?;
        }
        let moved = self
            .listening
            .move_gateway(wanted.addresses, &mut self.settings)?;
        if moved != Moved::Nothing {
            output::warn("the gateway listens elsewhere now; another one takes over");
        }
        Ok(moved)
    }

    /// The control centre shows where clients enter, which it is told at its start. It is back
    /// within a moment, and nobody waits for it.
    fn tell_server_the_entry(&self) -> anyhow::Result<()> {
        let server = |member: &Member| member.kind == Kind::Server;
        match self.members.iter().position(server) {
            Some(index) => self.signal(index, Signal::TERM),
            None => Ok(()),
        }
    }

    /// Has the gateway read its settings again. One that has not signed its claim yet reads them for
    /// the first time after this, and would be ended by the signal.
    fn tell_gateways_to_reread(&self) -> anyhow::Result<()> {
        let gateways = self.members.iter();
        for member in gateways.filter(|member| GATEWAYS.contains(&member.kind)) {
            let (State::Running { identity, .. } | State::Coming { identity, .. }) = &member.state
            else {
                continue;
            };
            let name = member.kind.name();
            let context = || format!("cannot tell the {name} that its settings changed");
            if claim::stage(&self.settings.state, name, member.incarnation)?.is_none() {
                continue;
            }
            if let Some(handle) = identity.open().with_context(context)? {
                handle.signal(Signal::HUP).with_context(context)?;
            }
        }
        Ok(())
    }
}
