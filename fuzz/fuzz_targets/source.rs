//! The scanner of `cargo xtask tidy` reads any text: no panic, and every line of it is still there.
#![no_main]
#![expect(dead_code, reason = "of the scanner only what reads is called")]

#[path = "../../xtask/src/source.rs"]
mod source;

use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    let source = source::Source::parse(Path::new("crates/x/src/lib.rs"), text);
    assert_eq!(source.code().len(), text.chars().count());
    for line in source.lines() {
        assert!(!source.code_line(line).contains('\n'));
    }
    source.functions();
    source.test_module_files();
});
