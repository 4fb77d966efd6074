//! "Did you mean": the nearest of the words that would be right.

/// A longer text is no mistyped word, and comparing costs length by length.
const TYPED_LEN_MAX: usize = 64;

/// Words of other tools for what we call otherwise.
const OTHER_WORDS: &[(&str, &str)] = &[
    ("command", "exec"),
    ("cmd", "exec"),
    ("entrypoint", "exec"),
    ("run", "exec"),
    ("replicas", "instances"),
    ("count", "instances"),
    ("environment", "env"),
    ("cwd", "dir"),
    ("workdir", "dir"),
    ("working_dir", "dir"),
    ("directory", "dir"),
    ("healthcheck", "health"),
    ("check", "health"),
    ("route", "http"),
    ("interval", "every"),
    ("retries", "fall"),
    ("http", "get"),
    ("hostname", "host"),
    ("domain", "host"),
    ("prefix", "path"),
    ("stop_timeout", "grace"),
    ("kill_timeout", "grace"),
    ("logs", "log"),
    ("update", "rollout"),
    ("max_parallel", "step"),
    ("min_healthy_time", "hold"),
    ("healthy_deadline", "deadline"),
    ("max_size", "size"),
    ("max_files", "keep"),
];

/// The one of `known` that was surely meant by `typed`.
pub(crate) fn closest<'k>(
    typed: &str,
    known: impl IntoIterator<Item = &'k str> + Clone,
) -> Option<&'k str> {
    if typed.len() > TYPED_LEN_MAX {
        return None;
    }
    let typed = typed.to_lowercase().replace('-', "_");
    let other = OTHER_WORDS.iter().find(|(other, _)| *other == typed);
    if let Some((_, ours)) = other
        && let Some(found) = known.clone().into_iter().find(|word| word == ours)
    {
        return Some(found);
    }
    let distance_max = match typed.chars().count() {
        0 => return None,
        1..=4 => 1,
        5..=7 => 2,
        _ => 3,
    };
    known
        .into_iter()
        .map(|word| {
            let plain = word.replace('-', "_");
            (strsim::damerau_levenshtein(&typed, &plain), word)
        })
        .filter(|(distance, word)| *distance <= distance_max && *distance < word.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_fingers_is_recognised_and_another_word_is_not() {
        let known = ["exec", "env", "health", "instances", "drain", "get", "tcp"];
        for (typed, meant) in [
            ("helth", Some("health")),
            ("evn", Some("env")),
            ("Instance", Some("instances")),
            ("replicas", Some("instances")),
            ("drian", Some("drain")),
            ("volumes", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(closest(typed, known), meant, "{typed}");
        }
        assert_eq!(closest(&"a".repeat(100_000), known), None);
    }
}
