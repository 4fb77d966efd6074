//! Which back end a host gets.

use mainstay_model::forward::{BackEndKind, ForwardSettings};

use crate::back_end::{BackEnd, ForwardError};
use crate::iptables::{self, Iptables};
use crate::nft::{self, Nft};
use crate::router::Opened;
use crate::userspace::{self, Userspace};

/// A back end, and what would have been better.
pub struct Started {
    /// It forwards from now on.
    pub back_end: Box<dyn BackEnd>,
    /// Those that could not be had, with the reason, the better one first.
    pub refused: Vec<ForwardError>,
}

/// Starts the back end that the settings name, or the best that this host can have, in this thread's
/// network namespace. If there is none, why.
///
/// `opened`: for which versions of IP it was us who had the host forward; see [`BackEnd::limit`].
pub fn start(settings: &ForwardSettings, opened: Opened) -> Result<Started, Vec<ForwardError>> {
    let mut refused = Vec::new();
    let kinds = BackEndKind::ALL.into_iter();
    for kind in kinds.filter(|kind| settings.back_end.is_none_or(|wanted| wanted == *kind)) {
        match start_one(kind, settings, opened) {
            Ok(back_end) => return Ok(Started { back_end, refused }),
            Err(error) => refused.push(error),
        }
    }
    Err(refused)
}

fn start_one(
    kind: BackEndKind,
    settings: &ForwardSettings,
    opened: Opened,
) -> Result<Box<dyn BackEnd>, ForwardError> {
    let missing = |source| ForwardError::Missing {
        back_end: kind,
        source,
    };
    match kind {
        BackEndKind::Nft => {
            let settings = nft::Settings::of(settings).map_err(|error| missing(error.into()))?;
            Ok(Box::new(Nft::start(nft::Settings { opened, ..settings })?))
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
