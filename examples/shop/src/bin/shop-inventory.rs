//! Inventory: has everything in stock.

use std::process::ExitCode;

use http::StatusCode;
use serde_json::json;
use shop::Answer;

fn main() -> ExitCode {
    shop::run("inventory", || {
        Ok(|_asked| async { Answer::new(StatusCode::OK, [("in_stock", json!(true))]) })
    })
}
