//! `${VARIABLE}` in texts, filled in after the file was parsed: what a variable holds can neither
//! end a text nor open a table.

use super::limits::TEXT_LEN_MAX;

/// What the filled text is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It stands as it is.
    Text,
    /// It is read as a template afterwards: braces that come from a variable, or that were written
    /// as `$${..}`, are doubled so that they stand for themselves.
    Template,
}

/// Why a text cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum VariableError {
    #[error("the environment variable `{name}` is not set")]
    Unset { name: String },
    #[error("`${{` is not closed")]
    Open,
    #[error("`${{{found}}}` does not name a variable")]
    Name { found: String },
    #[error("the default of `${{{name}:-..}}` must not hold a brace")]
    Brace { name: String },
    #[error("the text is longer than {TEXT_LEN_MAX} bytes once its variables are filled in")]
    TooLong,
}

impl VariableError {
    pub(super) fn help(&self) -> String {
        match self {
            Self::Unset { name } => {
                format!("set it (`export {name}=..`), or give a default: `${{{name}:-default}}`")
            }
            Self::Open | Self::Name { .. } => {
                "write `${NAME}` or `${NAME:-default}`; `$${NAME}` stands for `${NAME}` itself"
                    .to_owned()
            }
            Self::Brace { name } => {
                format!("write the default without braces: `${{{name}:-default}}`")
            }
            Self::TooLong => "hand the program a file instead".to_owned(),
        }
    }
}

/// Fills in every `${NAME}` and `${NAME:-default}`. All errors of the text are collected.
pub(super) fn fill(
    text: &str,
    usage: Use,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<String, Vec<VariableError>> {
    let mut filled = String::new();
    let mut errors = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let escaped = rest[..at].ends_with('$');
        filled.push_str(&rest[..at - usize::from(escaped)]);
        let Some((inner, after)) = rest[at + 2..].split_once('}') else {
            errors.push(VariableError::Open);
            rest = "";
            break;
        };
        rest = after;
        if escaped {
            push(&mut filled, &format!("${{{inner}}}"), usage);
            continue;
        }
        match value(inner, env) {
            Ok(Value::Set(value)) => push(&mut filled, &value, usage),
            Ok(Value::Default(typed)) => filled.push_str(typed),
            Err(error) => errors.push(error),
        }
        if filled.len() > TEXT_LEN_MAX {
            break;
        }
    }
    filled.push_str(rest);
    if filled.len() > TEXT_LEN_MAX {
        errors.push(VariableError::TooLong);
    }
    if errors.is_empty() {
        Ok(filled)
    } else {
        Err(errors)
    }
}

enum Value<'t> {
    Set(String),
    Default(&'t str),
}

/// As in a shell: with `:-` an empty variable counts as unset.
fn value<'t>(
    inner: &'t str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Value<'t>, VariableError> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    if !is_variable_name(name) {
        let found = inner.chars().take(40).collect();
        return Err(VariableError::Name { found });
    }
    let name = name.to_owned();
    if default.is_some_and(|default| default.contains('{')) {
        return Err(VariableError::Brace { name });
    }
    match (env(&name), default) {
        (Some(value), Some(default)) if value.is_empty() => Ok(Value::Default(default)),
        (Some(value), _) => Ok(Value::Set(value)),
        (None, Some(default)) => Ok(Value::Default(default)),
        (None, None) => Err(VariableError::Unset { name }),
    }
}

fn push(filled: &mut String, value: &str, usage: Use) {
    match usage {
        Use::Text => filled.push_str(value),
        Use::Template => filled.push_str(&braces_doubled(value)),
    }
}

/// The text as a template in which every brace stands for itself.
pub(super) fn braces_doubled(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

/// A name as POSIX has it.
pub(super) fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "A" => Some("one".into()),
            "EMPTY" => Some(String::new()),
            "JSON" => Some(r#"{"k":1}"#.into()),
            "BIG" => Some("x".repeat(20_000)),
            _ => None,
        }
    }

    fn text(text: &str) -> Result<String, Vec<VariableError>> {
        fill(text, Use::Text, &env)
    }

    #[test]
    fn variables_and_defaults_are_filled_in_as_a_shell_does() {
        for (typed, filled) in [
            ("", ""),
            ("plain $A $ {A}", "plain $A $ {A}"),
            ("${A}", "one"),
            ("<${A}${A}>", "<oneone>"),
            ("${NO:-two}", "two"),
            ("${NO:-}", ""),
            ("${EMPTY}", ""),
            ("${EMPTY:-two}", "two"),
            ("${A:-two}", "one"),
            ("$${A} ${A}", "${A} one"),
        ] {
            assert_eq!(text(typed).as_deref(), Ok(filled), "{typed}");
        }
    }

    #[test]
    fn all_that_is_wrong_in_one_text_is_told() {
        let unset = |name: &str| VariableError::Unset { name: name.into() };
        assert_eq!(text("${X} ${A} ${Y}"), Err(vec![unset("X"), unset("Y")]));
        assert_eq!(text("a${A"), Err(vec![VariableError::Open]));
        let name = VariableError::Name {
            found: "a b".into(),
        };
        assert_eq!(text("${a b}"), Err(vec![name]));
        let brace = VariableError::Brace { name: "X".into() };
        assert_eq!(text("${X:-{port}}"), Err(vec![brace]));
        assert_eq!(text("${BIG}${BIG}"), Err(vec![VariableError::TooLong]));
    }

    #[test]
    fn a_brace_from_a_variable_never_opens_a_place_of_a_template() {
        let filled = fill("${JSON} $${A} {port}", Use::Template, &env).expect("all is set");
        assert_eq!(filled, r#"{{"k":1}} ${{A}} {port}"#);
        assert!(mainstay_model::Template::parse(&filled).is_ok());
    }
}
