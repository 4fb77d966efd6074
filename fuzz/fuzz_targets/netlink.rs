//! What the kernel answers by netlink, in any bytes: no panic, and no more messages and attributes than there is room
//! for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_kernel::netlink::driven::read_all;

fuzz_target!(|datagram: &[u8]| {
    let count = read_all(datagram);
    // A datagram that is cut has no messages but those that the whole one has.
    let cut = datagram.len() / 2;
    assert!(read_all(&datagram[..cut]) <= count);
});
