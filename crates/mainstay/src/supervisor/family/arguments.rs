//! What each of our processes is told on its command line.

use mainstay_api::node::Role;
use mainstay_kernel::Spawn;
use mainstay_model::ForwardSettings;

use super::{Family, Origin, names};

impl Family {
    pub(super) fn broker_arguments<'a>(&'a self, spawn: Spawn<'a>) -> Spawn<'a> {
        let (limits, clients) = (self.settings.broker, &self.settings.broker_clients);
        let timeout = mainstay_ids::duration::display(clients.consumer_timeout);
        let mut spawn = spawn;
        if let Some(at) = self.settings.broker_metrics {
            spawn = spawn.argument("--metrics").argument(at.to_string());
        }
        let seams = self.settings.broker_seams.as_str();
        if !seams.is_empty() {
            spawn = spawn.arguments(["--unsafe-broker-seams", seams]);
        }
        spawn = spawn
            .argument("--memory-max")
            .argument(limits.memory_max.to_string())
            .argument("--disk-free-min")
            .argument(limits.disk_free_min.to_string())
            .arguments(["--consumer-timeout", &timeout]);
        if let Some(tls) = &self.settings.broker_tls {
            spawn = spawn
                .argument("--tls-certificate")
                .argument(&tls.certificate)
                .argument("--tls-key")
                .argument(&tls.key);
            if let Some(path) = &tls.client_ca {
                spawn = spawn.argument("--tls-client-ca").argument(path);
            }
        }
        match clients.queues_max {
            Some(max) => spawn.argument("--queues-max").argument(max.to_string()),
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
        let spawn = spawn.arguments(agent.then_some("--with-agent").iter());
        match self.settings.vip_seams.as_str() {
            "" => spawn,
            seams => spawn.arguments(["--unsafe-vip-seams", seams]),
        }
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
