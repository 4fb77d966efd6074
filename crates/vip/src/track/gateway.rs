//! Whether the gateway of this node serves. It says so in its claim, the file that it holds open to its end, where its
//! identity stands, too; so its death is known at once, and there is nothing to be asked over a connection.

use std::fs;
use std::path::Path;
use std::time::Duration;

use mainstay_ids::Instant;
use mainstay_kernel::Identity;
use serde::Deserialize;

use super::namesake::Held;
use super::{Found, Works};
use crate::host::Host;

/// The claims of the two places of gateways, in the state directory.
const CLAIMS: [&str; 2] = ["processes/gateway.json", "processes/gateway-2.json"];
/// How often one that does not serve yet is looked for: two small files.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a claim says, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Claim {
    stage: Stage,
    #[serde(flatten)]
    identity: Identity,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Stage {
    Runs,
    Serves,
}

/// The gateway, whichever place it has.
#[derive(Debug, Default)]
pub(super) struct Gateway {
    held: Option<Held>,
    look: Instant,
}

impl Gateway {
    pub(super) fn turn(&mut self, host: &Host) -> Found {
        if let Some(held) = &mut self.held {
            if let Some(works) = held.look(host) {
                return Found::Surely(works);
            }
            // Another one may have taken over from it: looked for at once.
            self.held = None;
            self.look = host.now();
        }
        if host.now() < self.look {
            return Found::Nothing;
        }
        self.look = host.now().after(LOOK_EVERY);
        let serving = CLAIMS
            .iter()
            .find_map(|claim| serving(&host.state.join(claim), host));
        self.held = serving;
        match self.held {
            Some(_) => Found::Surely(Works::Yes),
            None => Found::Surely(Works::No),
        }
    }

    pub(super) fn next_deadline(&self) -> Instant {
        self.held.as_ref().map_or(self.look, Held::next_deadline)
    }
}

/// The process that signed this claim, if it lives and serves. One that is being signed is read again at the next look.
fn serving(claim: &Path, host: &Host) -> Option<Held> {
    let claim: Claim = serde_json::from_slice(&fs::read(claim).ok()?).ok()?;
    if claim.stage != Stage::Serves {
        return None;
    }
    let handle = claim.identity.open().ok()??;
    Some(Held::new(host, claim.identity, handle))
}
