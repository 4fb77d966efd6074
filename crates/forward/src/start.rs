//! Which back end a host gets.

use mainstay_model::forward::{BackEndKind, ForwardSettings};

use crate::back_end::{BackEnd, ForwardError};
use crate::iptables::{self, Iptables};
use crate::nft::{self, Nft};
use crate::userspace::{self, Userspace};

/// Starts the back end that the settings name, or the best that this host can have, in this thread's
/// network namespace. What could not be had is given with its reason, the better one first.
pub fn start(
    settings: &ForwardSettings,
) -> Result<(Box<dyn BackEnd>, Vec<ForwardError>), Vec<ForwardError>> {
    let mut refused = Vec::new();
    let kinds = BackEndKind::ALL.into_iter();
    for kind in kinds.filter(|kind| settings.back_end.is_none_or(|wanted| wanted == *kind)) {
        match start_one(kind, settings) {
            Ok(back_end) => return Ok((back_end, refused)),
            Err(error) => refused.push(error),
        }
    }
    Err(refused)
}

fn start_one(
    kind: BackEndKind,
    settings: &ForwardSettings,
) -> Result<Box<dyn BackEnd>, ForwardError> {
    let missing = |source| ForwardError::Missing {
        back_end: kind,
        source,
    };
    match kind {
        BackEndKind::Nft => {
            let settings = nft::Settings::of(settings).map_err(|error| missing(error.into()))?;
            Ok(Box::new(Nft::start(settings)?))
        }
        BackEndKind::Iptables => {
            let settings = iptables::Settings::of(settings);
            Ok(Box::new(Iptables::start(settings)?))
        }
        BackEndKind::Userspace => {
            let settings = userspace::Settings::of(settings);
            Ok(Box::new(Userspace::start(settings)))
        }
    }
}
