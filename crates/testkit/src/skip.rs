//! Tests that cannot run here say so, and are counted.

use std::{env, fs::OpenOptions, io::Write as _, thread};

/// Each skip is one line that starts with this.
pub const SKIP_MARK: &str = "mainstay-skip:";

/// The environment variable that names the file to which skips are appended.
///
/// The test runner swallows what passing tests print, so the file is what counts.
pub const SKIPS_FILE: &str = "MAINSTAY_SKIPS";

/// Records that the calling test cannot run here and why; the test then returns.
///
/// ```
/// # fn test() {
/// if !mainstay_testkit::is_root() {
///     return mainstay_testkit::skip("needs root: makes network namespaces");
/// }
/// # }
/// ```
pub fn skip(reason: &str) {
    let thread = thread::current();
    let line = skip_line(thread.name().unwrap_or("a thread without a name"), reason);
    print!("{line}");
    let Some(path) = env::var_os(SKIPS_FILE) else {
        return;
    };
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .unwrap_or_else(|error| panic!("cannot record a skip in {}: {error}", path.display()));
}

/// One line whatever the reason contains: the file is read by lines, and written by many tests at once.
fn skip_line(test: &str, reason: &str) -> String {
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{SKIP_MARK} {test}: {reason}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_is_one_line_with_mark_test_and_reason() {
        assert_eq!(
            skip_line("a::b", "needs\n  root"),
            "mainstay-skip: a::b: needs root\n"
        );
    }
}
