//! The reader of keepalived's configuration takes any text: no panic, and what it made is a node file, and comes back
//! from what is written of it but for what is told.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mainstay_api::{keepalived, node};

fuzz_target!(|text: &str| {
    match keepalived::parse(text, "fuzz.conf") {
        Ok(imported) => {
            let tables = node::vip_tables(&imported.vips);
            let roles = "roles = [\"gateway\"]\n";
            let read = node::parse(
                &format!("{roles}{tables}"),
                "fuzz.toml",
                Path::new("/srv"),
                &|_| None,
            );
            let read = read.unwrap_or_else(|problems| panic!("{problems}\n{tables}"));
            assert_eq!(read.vips.len(), imported.vips.len());
            let exported = keepalived::export(&imported.vips);
            let again = keepalived::parse(&exported.text, "again.conf");
            let again = again.unwrap_or_else(|problems| panic!("{problems}\n{}", exported.text));
            if exported.left.is_empty() {
                assert_eq!(again.vips.len(), imported.vips.len());
            }
        }
        Err(problems) => assert!(!problems.0.is_empty()),
    }
});
