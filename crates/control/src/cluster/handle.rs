//! What names an instance to clients that stay with it.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::hash::Hasher as _;

use mainstay_ids::InstanceId;
use mainstay_model::routing::Handle;
use siphasher::sip::SipHasher24;

/// The secret with which handles are made. Clients see handles, so that without it nobody could
/// tell from those of one instance which another one has.
#[derive(Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StickyKey([u8; 16]);

/// The text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is 32 hexadecimal digits")]
pub struct StickyKeyError;

impl StickyKey {
    /// Takes 128 random bits.
    pub const fn new(random: [u8; 16]) -> Self {
        Self(random)
    }

    /// The instance's handle. It stays the same over restarts of the instance and of Mainstay:
    /// SipHash-2-4 is one function, in whatever version of whichever library.
    pub(super) fn handle(self, instance: &InstanceId) -> Handle {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(instance.service.as_str().as_bytes());
        // No name holds it, so that no two instances give the same bytes.
        hasher.write(&[0]);
        hasher.write(&instance.number.to_le_bytes());
        Handle(hasher.finish())
    }
}

impl fmt::Debug for StickyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StickyKey(..)")
    }
}

impl From<StickyKey> for String {
    fn from(key: StickyKey) -> Self {
        format!("{:032x}", u128::from_be_bytes(key.0))
    }
}

impl TryFrom<String> for StickyKey {
    type Error = StickyKeyError;
    fn try_from(text: String) -> Result<Self, StickyKeyError> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(StickyKeyError);
        }
        let number = u128::from_str_radix(&text, 16).map_err(|_| StickyKeyError)?;
        Ok(Self(number.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_ids::ServiceName;

    #[test]
    fn a_handle_is_the_same_for_ever_and_another_for_each_instance_and_key() {
        let id = |service: &str, number| InstanceId {
            service: ServiceName::parse(service).expect("legal"),
            number,
        };
        let key = StickyKey::new(*b"0123456789abcdef");
        let handle = key.handle(&id("orders", 1));
        assert_eq!(handle, key.handle(&id("orders", 1)));
        assert_eq!(String::from(handle), "af3773642fe23612");
        assert_ne!(handle, key.handle(&id("orders", 2)));
        assert_ne!(handle, key.handle(&id("order", 1)));
        assert_ne!(handle, StickyKey::default().handle(&id("orders", 1)));
        let text = String::from(key);
        assert_eq!(StickyKey::try_from(text), Ok(key));
        assert_eq!(StickyKey::try_from(String::from("+1")), Err(StickyKeyError));
    }
}
