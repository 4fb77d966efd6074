//! The back ends that are measured: all that this version has, made as a node makes them.

use super::field::ranges;
use anyhow::{Result, bail};
use mainstay_forward::BackEnd;
use mainstay_forward::router::Opened;
use mainstay_model::forward::{BackEndKind, Counting, ForwardSettings};

/// Makes one in this thread's network namespace.
pub(super) fn start(kind: BackEndKind, counting: Counting) -> Result<Box<dyn BackEnd>> {
    let settings = ForwardSettings {
        back_end: Some(kind),
        counting,
        ..ForwardSettings::new(ranges()?)
    };
    match mainstay_forward::start(&settings, Opened::default()) {
        Ok(started) => Ok(started.back_end),
        Err(reasons) => {
            let mut reasons = reasons.into_iter();
            let Some(reason) = reasons.next() else {
                bail!("{kind} was not tried");
            };
            Err(reason.into())
        }
    }
}

/// The default, which has all bars but one for itself.
pub(super) fn nft(counting: Counting) -> Result<Box<dyn BackEnd>> {
    start(BackEndKind::Nft, counting)
}
