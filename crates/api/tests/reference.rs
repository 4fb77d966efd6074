//! The page of the API holds the table of its calls, made anew with `MAINSTAY_REWRITE=1`.

use std::fs;
use std::path::Path;

use mainstay_api::calls;

const START: &str = "<!-- The table is made from crates/api/src/calls.rs. -->\n\n";
const END: &str = "\n<!-- End of the table. -->\n";

#[test]
fn the_page_of_the_api_has_the_table_of_calls() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api.md");
    let page = fs::read_to_string(&path).expect("is there");
    let (before, rest) = page.split_once(START).expect("the table begins");
    let (table, after) = rest.split_once(END).expect("the table ends");
    let expected = calls::table();
    if std::env::var_os("MAINSTAY_REWRITE").is_some() {
        let page = [before, START, &expected, END, after].concat();
        return fs::write(&path, page).expect("is writable");
    }
    for (is, should) in table.lines().zip(expected.lines()) {
        assert_eq!(is, should, "write it anew: MAINSTAY_REWRITE=1");
    }
    assert_eq!(table, expected);
}
