//! Patterns of a topic exchange: words between dots, `*` for one word, `#` for any number of them.

/// Whether the key fits the pattern. Time is bounded by the product of their words, whatever they say: of several `#`
/// only the last is ever tried anew, since what an earlier one could take, a later one can.
pub(super) fn matches(pattern: &[u8], key: &[u8]) -> bool {
    let mut pattern = Words::of(pattern);
    let mut key = Words::of(key);
    // After the last `#`: the pattern there, and the key from which it is tried next.
    let mut again: Option<(Words<'_>, Words<'_>)> = None;
    loop {
        let mut ahead = pattern;
        match ahead.next() {
            Some(b"#") => {
                pattern = ahead;
                again = Some((pattern, key));
                continue;
            }
            Some(word) => {
                let mut rest = key;
                match rest.next() {
                    Some(found) if word == b"*" || word == found => {
                        (pattern, key) = (ahead, rest);
                        continue;
                    }
                    Some(_) | None => {}
                }
            }
            None if key.is_done() => return true,
            None => {}
        }
        let Some((after, mut from)) = again else {
            return false;
        };
        if from.next().is_none() {
            return false;
        }
        (pattern, key, again) = (after, from, Some((after, from)));
    }
}

/// The words that are left; an empty key has one empty word in RabbitMQ only between dots, and none by itself.
#[derive(Clone, Copy)]
struct Words<'a>(Option<&'a [u8]>);

impl<'a> Words<'a> {
    fn of(text: &'a [u8]) -> Self {
        Self((!text.is_empty()).then_some(text))
    }

    fn is_done(self) -> bool {
        self.0.is_none()
    }

    fn next(&mut self) -> Option<&'a [u8]> {
        let text = self.0?;
        let Some(at) = text.iter().position(|byte| *byte == b'.') else {
            self.0 = None;
            return Some(text);
        };
        self.0 = Some(&text[at + 1..]);
        Some(&text[..at])
    }
}
