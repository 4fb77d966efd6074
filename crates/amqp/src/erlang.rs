//! How Erlang prints values, since RabbitMQ's reply texts hold them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// `~p` of a binary: text where all of it can be printed, numbers else.
pub(crate) fn binary(bytes: &[u8]) -> String {
    let printable = |byte: &u8| matches!(byte, 0x20..=0x7e | 0xa0..=0xff | 0x08..=0x0d | 0x1b);
    if !bytes.is_empty() && bytes.iter().all(printable) {
        let mut text = String::from("<<\"");
        for byte in bytes {
            match byte {
                b'"' => text.push_str("\\\""),
                b'\\' => text.push_str("\\\\"),
                8 => text.push_str("\\b"),
                b'\t' => text.push_str("\\t"),
                b'\n' => text.push_str("\\n"),
                11 => text.push_str("\\v"),
                12 => text.push_str("\\f"),
                b'\r' => text.push_str("\\r"),
                0x1b => text.push_str("\\e"),
                byte => text.push(char::from(*byte)),
            }
        }
        return text + "\">>";
    }
    numbers(bytes)
}

/// `~w` of a binary.
pub(crate) fn numbers(bytes: &[u8]) -> String {
    let numbers: Vec<String> = bytes.iter().map(ToString::to_string).collect();
    format!("<<{}>>", numbers.join(","))
}
