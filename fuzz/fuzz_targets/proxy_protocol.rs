//! A header of the PROXY protocol is read, or more is asked for, or it is refused: no panic, the same
//! for every cut and whatever comes after, and what was read is read again when it is written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_gateway::proxy_protocol::{Header, LEN_MAX, decode, encode};
use mainstay_model::listen::ProxyVersion;

fuzz_target!(|bytes: &[u8]| {
    let whole = decode(bytes);
    let mut verdict = None;
    for cut in 0..=bytes.len().min(LEN_MAX + 1) {
        match decode(&bytes[..cut]) {
            Ok(None) => {}
            now => {
                verdict = Some(now);
                break;
            }
        }
    }
    assert_eq!(verdict.unwrap_or(Ok(None)), whole);
    let Ok(Some((header, len))) = whole else {
        return;
    };
    assert!(len <= bytes.len() && len <= LEN_MAX);
    let Header::Tcp {
        source,
        destination,
    } = header
    else {
        return;
    };
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let written = encode(version, &header);
        let Ok(Some((
            Header::Tcp {
                source: from,
                destination: to,
            },
            len,
        ))) = decode(&written)
        else {
            panic!("what was written is not read: {written:?}");
        };
        assert_eq!(len, written.len());
        assert_eq!(from.ip().to_canonical(), source.ip().to_canonical());
        assert_eq!(to.ip().to_canonical(), destination.ip().to_canonical());
        assert_eq!(
            (from.port(), to.port()),
            (source.port(), destination.port())
        );
    }
});
