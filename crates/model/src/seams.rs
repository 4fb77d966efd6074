//! Seams: what a process leaves out when a hidden option says so, as `retries=off,verdicts=ignored`, so that a claim that
//! rests on it is seen to fail. One way to write them and one to read them, for every process that has some.
//!
//! A process with seams has a struct whose `Default` leaves nothing out, and a table of words for it:
//!
//! ```
//! use mainstay_model::seams::{self, Seams, Word};
//!
//! #[derive(Debug, Clone, Copy, PartialEq, Default)]
//! struct Mine {
//!     deaf: bool,
//! }
//!
//! impl Seams for Mine {
//!     const OF: &'static str = "the listener";
//!     const WORDS: &'static [Word<Self>] = &[("ears=off", |seams| seams.deaf = true)];
//! }
//!
//! assert_eq!(seams::parse::<Mine>("ears=off"), Ok(Mine { deaf: true }));
//! assert!(seams::parse::<Mine>("eyes=off").is_err());
//! ```

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use alloc::vec::Vec;

/// A word, and what it leaves out.
pub type Word<S> = (&'static str, fn(&mut S));

/// What a process may leave out: by itself nothing.
pub trait Seams: Default + 'static {
    /// Whose they are, for the message about a word that is none of them.
    const OF: &'static str;
    /// All words that there are.
    const WORDS: &'static [Word<Self>];
}

/// A word that names no seam.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is no seam of {of}; expected {expected}, several with commas")]
pub struct SeamError {
    word: String,
    of: &'static str,
    expected: String,
}

/// Reads words with commas between them; none is nothing left out.
pub fn parse<S: Seams>(text: &str) -> Result<S, SeamError> {
    let mut seams = S::default();
    for word in text.split(',').filter(|word| !word.is_empty()) {
        let known = S::WORDS.iter().find(|(name, _)| *name == word);
        let (_, leave_out) = known.ok_or_else(|| unknown::<S>(word))?;
        leave_out(&mut seams);
    }
    Ok(seams)
}

fn unknown<S: Seams>(word: &str) -> SeamError {
    let words: Vec<&str> = S::WORDS.iter().map(|(name, _)| *name).collect();
    let expected = match words.split_last() {
        Some((last, others)) if !others.is_empty() => {
            alloc::format!("{} or {last}", others.join(", "))
        }
        Some(_) | None => words.concat(),
    };
    SeamError {
        word: word.to_owned(),
        of: S::OF,
        expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    struct Two {
        first: u8,
        second: u8,
    }

    impl Seams for Two {
        const OF: &'static str = "a test";
        const WORDS: &'static [Word<Self>] = &[
            ("first=off", |seams| seams.first = 1),
            ("second=off", |seams| seams.second = 2),
        ];
    }

    #[test]
    fn words_are_read_with_commas_and_one_that_names_nothing_is_refused_with_all_that_there_are() {
        assert_eq!(parse::<Two>(""), Ok(Two::default()));
        let both = Two {
            first: 1,
            second: 2,
        };
        assert_eq!(parse::<Two>("second=off,first=off"), Ok(both));
        let refused = parse::<Two>("first=of").unwrap_err().to_string();
        assert_eq!(
            refused,
            "`first=of` is no seam of a test; expected first=off or second=off, several with commas"
        );
    }
}
