//! Who keeps a delivery for too long loses its channel, and with it all that it has: else a consumer that hangs would
//! hold messages for ever.

use alloc::format;
use core::time::Duration;

use super::Broker;
use super::contract::Now;
use crate::code::{Code, Fault};
use crate::queue::ChannelKey;

impl Broker {
    /// How long a delivery may be kept without a word; [`crate::limits::CONSUMER_TIMEOUT`] without a word of it, `None` is
    /// for ever. It holds for channels that get something from then on.
    pub fn set_consumer_timeout(&mut self, timeout: Option<Duration>) {
        self.consumer_timeout = timeout;
    }

    /// A channel that has deliveries is looked at when the oldest is too old. Acknowledgements need not care: it is
    /// looked at for nothing at most once in that time.
    pub(super) fn watch(&mut self, key: ChannelKey) {
        let Some(timeout) = self.consumer_timeout else {
            return;
        };
        let Some(channel) = self.channels.get_mut(&key) else {
            return;
        };
        let Some((_, oldest)) = channel.unacked.first_key_value() else {
            return;
        };
        if channel.watch.is_none() {
            let at = oldest.since.after(timeout);
            channel.watch = Some(at);
            self.watched.insert((at, key));
        }
    }

    pub(super) fn look_at_oldest(&mut self, now: Now) {
        let Some((_, key)) = self.watched.pop_first() else {
            return;
        };
        let Some(channel) = self.channels.get_mut(&key) else {
            return;
        };
        channel.watch = None;
        let oldest = channel.unacked.first_key_value();
        let since = oldest.map(|(_, one)| one.since);
        let late = self
            .consumer_timeout
            .filter(|timeout| since.is_some_and(|since| since.after(*timeout) <= now.instant));
        match late {
            None => self.watch(key),
            Some(timeout) => {
                let text = format!(
                    "delivery acknowledgement on channel {} timed out. Timeout value used: {} ms. This timeout value can \
                     be configured, see consumers doc guide to learn more",
                    key.channel,
                    timeout.as_millis()
                );
                self.fault(now, key, Fault::new(Code::PreconditionFailed, text));
            }
        }
    }
}
