//! What a front end may ask of the family while it keeps its processes.

use anyhow::Context;
use mainstay_api::node::NodeFile;
use rustix::process::Signal;

use super::claim;
use super::family::{Family, State};
use super::kind::GATEWAYS;
use super::settings::Settings;
use crate::output;

/// How many may wait: one of each kind, twice. The family takes them at once, so that it is full
/// only while a process is being started; then whoever wishes waits.
pub(crate) const WISHES: usize = 4;

/// One of them.
#[derive(Debug)]
pub(crate) enum Wish {
    /// What the node's file says now.
    Node(Box<NodeFile>),
}

impl Family {
    /// Does what is asked for. What cannot be done is told, and all stays as it was.
    pub(super) fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::Node(file) => {
                if let Err(error) = self.adapt(&file) {
                    output::warn(format_args!("error: {error:#}"));
                    output::warn("  what ran before goes on as it was");
                }
            }
        }
    }

    /// Puts a changed node file in force, as far as that goes without an end of a process.
    fn adapt(&mut self, file: &NodeFile) -> anyhow::Result<()> {
        let wanted = Settings::of_node(file)?;
        for key in self.settings.fixed_differences(&wanted) {
            output::warn(format_args!(
                "{key} changed, which is in force after the next start of `mainstay run`"
            ));
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
        Ok(())
    }

    /// Has the gateway read its settings again. One that has not signed its claim yet reads them for
    /// the first time after this, and would be ended by the signal.
    fn tell_gateways_to_reread(&self) -> anyhow::Result<()> {
        let gateways = self.members.iter();
        for member in gateways.filter(|member| GATEWAYS.contains(&member.kind)) {
            let State::Running { identity, .. } = &member.state else {
                continue;
            };
            let name = member.kind.name();
            let context = || format!("cannot tell the {name} that its settings changed");
            if !claim::is_signed(&self.settings.state, name, member.incarnation)? {
                continue;
            }
            if let Some(handle) = identity.open().with_context(context)? {
                handle.signal(Signal::HUP).with_context(context)?;
            }
        }
        Ok(())
    }
}
