//! Reads `smuggling.toml`. Other crates' tests include this file by its path, so that sockets see
//! the same bytes as the parser; they need `serde` and `toml` for it.

#![allow(dead_code, reason = "not every test reads all of it")]

use serde::Deserialize;

/// The whole file, as it is typed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Corpus {
    pub(crate) request: Vec<Case>,
    pub(crate) response: Vec<ResponseCase>,
    pub(crate) http2: Vec<Http2Case>,
}

/// What a client sends on one connection.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// Where it is known from.
    pub(crate) from: String,
    pub(crate) bytes: Escaped,
    /// What becomes of one message after the other.
    pub(crate) expect: Vec<String>,
}

/// What an instance answers on one connection.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResponseCase {
    pub(crate) name: String,
    pub(crate) from: String,
    /// The method of the request.
    pub(crate) to: String,
    pub(crate) bytes: Escaped,
    pub(crate) expect: Vec<String>,
}

/// What a client sends by HTTP/2.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Http2Case {
    pub(crate) name: String,
    pub(crate) from: String,
    pub(crate) method: Escaped,
    pub(crate) path: Escaped,
    #[serde(default)]
    pub(crate) authority: Option<Escaped>,
    /// Whether a body follows.
    #[serde(default)]
    pub(crate) content: bool,
    #[serde(default)]
    pub(crate) fields: Vec<(Escaped, Escaped)>,
    pub(crate) expect: String,
}

/// Bytes, written with `\r`, `\n`, `\t`, `\0`, `\\`, `\xHH` and `\{X*N}`, which is N times X. Line ends of the file itself count for nothing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Escaped(pub(crate) Vec<u8>);

impl TryFrom<String> for Escaped {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut bytes = Vec::new();
        let mut rest = text.as_str();
        while let Some(character) = rest.chars().next() {
            rest = &rest[character.len_utf8()..];
            match character {
                '\n' => {}
                '\\' => rest = unescape(rest, &mut bytes).ok_or(format!("\\{rest:.9}"))?,
                _ => bytes.extend(character.to_string().as_bytes()),
            }
        }
        Ok(Self(bytes))
    }
}

/// Reads one escape without its backslash, and gives back what follows.
fn unescape<'a>(text: &'a str, bytes: &mut Vec<u8>) -> Option<&'a str> {
    let (letter, rest) = text.split_at_checked(1)?;
    match letter {
        "r" => bytes.push(b'\r'),
        "n" => bytes.push(b'\n'),
        "t" => bytes.push(b'\t'),
        "0" => bytes.push(0),
        "\\" => bytes.push(b'\\'),
        "x" => {
            let (digits, rest) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            return Some(rest);
        }
        "{" => {
            let (inside, rest) = rest.split_once('}')?;
            let (repeated, times) = inside.split_once('*')?;
            let repeated = Escaped::try_from(repeated.to_owned()).ok()?;
            bytes.extend(repeated.0.repeat(times.parse().ok()?));
            return Some(rest);
        }
        _ => return None,
    }
    Some(rest)
}

/// Reads the file.
pub(crate) fn read() -> Corpus {
    toml::from_str(include_str!("../smuggling.toml")).expect("the corpus is well-formed")
}
