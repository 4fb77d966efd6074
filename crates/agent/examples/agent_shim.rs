//! The shim as a program of its own, for the tests of this crate. In the product it is a hidden
//! command of the one binary; this is not shipped. Start reading at `mainstay_agent::shim_main`.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args_os().nth(1).map(PathBuf::from) {
        Some(spec) => mainstay_agent::shim_main(&spec),
        None => ExitCode::FAILURE,
    }
}
