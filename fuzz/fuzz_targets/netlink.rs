//! What the kernel answers by netlink, in any bytes: no panic, and no more messages and attributes than there is room
//! for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_kernel::netlink::driven::read_all;

/// What is in front of a message: its length, type, flags, number and port.
const HEADER_LEN: usize = 16;

fuzz_target!(|datagram: &[u8]| {
    let count = read_all(datagram);
    // A datagram that is cut has no messages but those that the whole one has.
    let cut = datagram.len() / 2;
    assert!(read_all(&datagram[..cut]) <= count);
    // Whole messages, one of a type that has what is read in another way, and one that says that a dump is over.
    for kind in [2_u16, 3, 20] {
        let mut message = vec![0; HEADER_LEN];
        let len = u32::try_from(HEADER_LEN + datagram.len()).expect("less than 4 GiB");
        message[..4].copy_from_slice(&len.to_ne_bytes());
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        // What is refused may have attributes behind it.
        message[6..8].copy_from_slice(&0x300_u16.to_ne_bytes());
        message.extend_from_slice(datagram);
        assert_eq!(read_all(&message), 1);
    }
});
