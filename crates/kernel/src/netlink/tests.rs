//! What the tests of all parts use.

/// Takes all rights of root from this thread.
pub(super) fn drop_rights() {
    let none = rustix::thread::CapabilitySet::empty();
    let sets = rustix::thread::CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    rustix::thread::set_capabilities(None, sets).unwrap();
}
