//! TCP ports that nobody else takes while a test runs.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    sync::Mutex,
};

/// Below the range from which Linux gives ports to outgoing connections (32768 and up), so that none of those takes it.
const RANGE: Range<u16> = 20_000..32_000;

/// The claims of this process: locked files, one per port, which the kernel unlocks when the process ends.
static CLAIMS: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A TCP port on loopback that is free now and that no other test is given while this process lives.
///
/// Give programs port 0 where they can say which port they got: that needs no luck at all.
pub fn free_port() -> u16 {
    let claims = crate::dir::of_user("mainstay-ports");
    fs::create_dir_all(&claims).expect("the temporary directory is writable");
    let size = RANGE.end - RANGE.start;
    let first = fastrand::u16(0..size);
    for step in 0..size {
        let port = RANGE.start + (first + step) % size;
        let Ok(claim) = File::create(claims.join(port.to_string())) else {
            continue;
        };
        if claim.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            CLAIMS
                .lock()
                .expect("no code panics while it holds this")
                .push(claim);
            return port;
        }
    }
    panic!("no free port between {} and {}", RANGE.start, RANGE.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_port_is_given_once_and_can_be_bound() {
        let ports: HashSet<u16> = (0..200).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 200);
        for port in ports {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }
}
