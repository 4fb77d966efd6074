//! The characters that names are made of, and lists of them (RFC 9110, 5.6).

/// RFC 9110, 5.6.2.
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte))
}

pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A control character that no value may have; a tab is none.
pub(crate) fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

/// The elements of a list that are not empty (RFC 9110, 5.6.1.2), without the white space around.
pub(crate) fn elements(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let all = list.split(|byte| *byte == b',').map(trim);
    all.filter(|element| !element.is_empty())
}

/// Without the white space around: spaces and tabs, nothing else.
pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}
