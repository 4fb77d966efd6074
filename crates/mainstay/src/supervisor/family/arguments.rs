//! What each of our processes is told on its command line.

use mainstay_api::node::Role;
use mainstay_kernel::Spawn;
use mainstay_model::ForwardSettings;

use super::{Family, Origin, names};

impl Family {
    pub(super) fn broker_arguments<'a>(&'a self, spawn: Spawn<'a>) -> Spawn<'a> {
        let limits = self.settings.broker;
        let spawn = spawn
            .argument("--memory-max")
            .argument(limits.memory_max.to_string())
            .argument("--disk-free-min")
            .argument(limits.disk_free_min.to_string());
        let Some(tls) = &self.settings.broker_tls else {
            return spawn;
        };
        let spawn = spawn
            .argument("--tls-certificate")
            .argument(&tls.certificate)
            .argument("--tls-key")
            .argument(&tls.key);
        match &tls.client_ca {
            Some(path) => spawn.argument("--tls-client-ca").argument(path),
            None => spawn,
        }
    }

    pub(super) fn server_arguments<'a>(&'a self, spawn: Spawn<'a>, origin: Origin) -> Spawn<'a> {
        // A stop of everything is this supervisor's own, and outlives the control centre.
        let over = match origin {
            Origin::New => Some("--earlier-stop-is-over"),
            Origin::Known => None,
        };
        let mut spawn = spawn
            .arguments(over.iter())
            .arguments(self.settings.server_flags.iter());
        if self.settings.has(Role::Gateway) {
            let entry = self.settings.addresses.entry.to_string();
            spawn = spawn.argument("--entry").argument(entry);
            if let Some(stats) = self.settings.addresses.stats {
                spawn = spawn.argument("--stats").argument(stats.to_string());
            }
        }
        if let Some(forward) = &self.settings.forward {
            for range in forward.ranges.networks() {
                spawn = spawn.argument("--range").argument(range.to_string());
            }
        }
        if let Some(group) = self.settings.api_group {
            spawn = spawn.argument("--api-group").argument(group.to_string());
        }
        spawn
    }

    pub(super) fn vip_arguments<'a>(&'a self, spawn: Spawn<'a>) -> Spawn<'a> {
        let agent = self.settings.has(Role::Agent);
        spawn.arguments(agent.then_some("--with-agent").iter())
    }

    pub(super) fn agent_arguments<'a>(&'a self, spawn: Spawn<'a>) -> Spawn<'a> {
        let address = self.settings.address.to_string();
        let mut spawn = spawn
            .arguments(self.settings.agent_flags.iter())
            .argument("--address")
            .argument(address);
        let seams = self.settings.forward_seams.as_str();
        if !seams.is_empty() {
            spawn = spawn.arguments(["--unsafe-forward-seams", seams]);
        }
        if let Some(names) = &self.settings.names {
            spawn = names::arguments(names, spawn);
        }
        if let Some(forward) = self.settings.forward.clone() {
            let names = self.settings.addresses.names.into_iter();
            let forward = ForwardSettings {
                own: names
                    .filter(|address| forward.ranges.contain(address.ip()))
                    .collect(),
                ..forward
            };
            let text = serde_json::to_string(&forward);
            let text = text.expect("networks and words are JSON");
            spawn = spawn.argument("--forward").argument(text);
        }
        spawn
    }
}
