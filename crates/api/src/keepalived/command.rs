//! Commands: a script of keepalived is a text in quotes in which words are quoted once more.

/// The longest line that keepalived reads whole, with room for the word before the command (`MAXBUF`, 1024).
const LINE_LEN_MAX: usize = 900;

/// The words of `text`, by keepalived's quotes and backslashes. `None`: a quote or a backslash is left open.
fn unquote(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (_, '\\') => {
                let escaped = escaped(&mut chars)?;
                word.get_or_insert_default().push(escaped);
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return None;
    }
    words.extend(word);
    Some(words)
}

/// The character for which a backslash and what follows it stand.
fn escaped(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    let digits = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>, radix: u32, most: usize| {
        let mut value = 0;
        for _ in 0..most {
            let Some(digit) = chars.peek().and_then(|c| c.to_digit(radix)) else {
                break;
            };
            chars.next();
            value = value * radix + digit;
        }
        char::from_u32(value)
    };
    if chars.peek().is_some_and(|c| c.is_digit(8)) {
        return digits(chars, 8, 3);
    }
    match chars.next()? {
        'x' => digits(chars, 16, 2),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'E' => Some('\u{1b}'),
        'a' => Some('\u{7}'),
        'b' => Some('\u{8}'),
        'f' => Some('\u{c}'),
        'v' => Some('\u{b}'),
        other => Some(other),
    }
}

/// The command of a line such as `script "/usr/bin/check 80"`, and the words behind it, which are no part of it.
/// `None`: there is none, or it cannot be read.
pub(super) fn read(line: &str) -> Option<(Vec<String>, Vec<String>)> {
    // The line is read once, and the word behind the key once more, as keepalived does.
    let mut whole = unquote(line)?.into_iter().skip(1);
    let command = unquote(&whole.next()?)?;
    let nul = command.iter().any(|word| word.contains('\0'));
    (!command.is_empty() && !nul).then(|| (command, whole.collect()))
}

/// The command as keepalived reads it back, in quotes. `None`: it cannot be written there.
pub(super) fn write(command: &[String]) -> Option<String> {
    let plain = |c: char| !c.is_control() && !matches!(c, '"' | '\'' | '\\');
    // These are definitions and their uses (`lines::refuse_macros`).
    let macros = ["${_", "$_", "~SEQ", "~LST"];
    let sayable =
        |word: &String| word.chars().all(plain) && !macros.iter().any(|m| word.contains(m));
    if command.is_empty() || !command.iter().all(sayable) {
        return None;
    }
    let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    let text = format!("\"{}\"", words.join(" "));
    (text.len() <= LINE_LEN_MAX).then_some(text)
}

fn quoted(word: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "/._-:=,+%@".contains(c);
    if !word.is_empty() && word.chars().all(bare) {
        word.to_owned()
    } else {
        format!("'{word}'")
    }
}
