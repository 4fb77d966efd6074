//! Walking a parsed file: tables are read key by key, everything that is wrong is collected with
//! its place, and nothing stops the walk.

use std::cell::RefCell;
use std::fmt::Write;
use std::ops::{Range, RangeInclusive};

use mainstay_ids::ServiceName;
use mainstay_model::Template;
use mainstay_model::template::TemplateError;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Environment;
use super::later::Explained;
use super::limits::PROBLEMS_KEPT_MAX;
use super::problem::{Code, FileProblems, Problem, Severity};
use super::refusal::{At, Lines, Refused, escaped, found, key_shown, quoted};
use super::suggest::closest;
use super::variable::{self, Use};

/// What is shared while one file is walked.
pub(crate) struct Walk<'a> {
    lines: Lines<'a>,
    env: Environment<'a>,
    problems: RefCell<Vec<Problem>>,
    uncounted: RefCell<usize>,
    addressed: RefCell<Vec<(ServiceName, At)>>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(text: &'a str, env: Environment<'a>) -> Self {
        Self {
            lines: Lines::new(text),
            env,
            problems: RefCell::default(),
            uncounted: RefCell::default(),
            addressed: RefCell::default(),
        }
    }

    /// Parses the text. What is not TOML is told here; a tree comes back when it can be walked all
    /// the same, which is when keys that stand twice are the only thing wrong with it.
    pub(crate) fn tree(&self) -> Option<Spanned<DeTable<'a>>> {
        let (tree, errors) = DeTable::parse_recoverable(self.lines.text);
        let duplicate = |error: &toml::de::Error| error.message() == "duplicate key";
        // One slip (a quote that is missing) makes the parser stumble again and again: only the
        // first place is worth telling, and a key that then stands twice may be none.
        let stumbled = errors.iter().filter(|error| !duplicate(error));
        let stumbled = stumbled.min_by_key(|error| error.span().map(|span| span.start));
        if let Some(error) = stumbled {
            let message = format!("this is not TOML: {}", error.message());
            let refused = Refused::new(Code::Syntax, message)
                .help("the rest of the file was not looked at: mend this first");
            self.refuse_span(error.span(), refused);
            return None;
        }
        for error in &errors {
            let key = error.span().and_then(|span| self.lines.text.get(span));
            let message = format!(
                "the key {} stands twice in its table",
                quoted(key.unwrap_or(""))
            );
            let refused = Refused::new(Code::DuplicateKey, message).help("keep one of the two");
            self.refuse_span(error.span(), refused);
        }
        Some(tree)
    }

    fn refuse_span(&self, span: Option<Range<usize>>, refused: Refused) {
        let end = self.lines.text.len();
        let at = At {
            key: String::new(),
            place: self.lines.place(span.unwrap_or(end..end)),
        };
        self.refuse(&at, refused);
    }

    /// Tells what is wrong with the file as a whole.
    pub(crate) fn refuse_file(&self, code: Code, message: &str, help: &str) {
        self.refuse_span(Some(0..0), Refused::new(code, message).help(help));
    }

    pub(crate) fn refuse(&self, at: &At, refused: Refused) {
        self.refuse_with(at, || refused);
    }

    /// Refuses with words that cost something to find: those that are only counted need none.
    pub(crate) fn refuse_with(&self, at: &At, refused: impl FnOnce() -> Refused) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() >= PROBLEMS_KEPT_MAX {
            *self.uncounted.borrow_mut() += 1;
            return;
        }
        let refused = refused();
        problems.push(Problem {
            severity: Severity::Error,
            code: refused.code,
            key: at.key.clone(),
            place: Some(at.place.clone()),
            message: escaped(&refused.message),
            help: refused.help.map(|help| escaped(&help)),
            also: refused.also,
        });
    }

    /// The services whose addresses were asked for, with the places.
    pub(crate) fn addressed(&self) -> Vec<(ServiceName, At)> {
        self.addressed.take()
    }

    /// `Ok` if nothing was refused.
    pub(crate) fn finish(self, name: &str) -> Result<(), FileProblems> {
        let problems = self.problems.into_inner();
        if problems.is_empty() {
            return Ok(());
        }
        let text = self.lines.text.to_owned();
        let uncounted = self.uncounted.into_inner();
        Err(FileProblems::new(
            name.to_owned(),
            text,
            problems,
            uncounted,
        ))
    }
}

/// A value with the key under which it stands.
#[derive(Clone)]
pub(crate) struct Entry<'w, 't> {
    walk: &'w Walk<'t>,
    key: String,
    key_span: Range<usize>,
    value: &'w Spanned<DeValue<'t>>,
}

impl<'w, 't> Entry<'w, 't> {
    /// Where the value stands; for a table, where its name stands.
    pub(crate) fn at(&self) -> At {
        let span = match self.value.get_ref() {
            DeValue::Table(_) => self.key_span.clone(),
            _ => self.value.span(),
        };
        self.located(span)
    }

    /// Where the key stands.
    pub(crate) fn at_key(&self) -> At {
        self.located(self.key_span.clone())
    }

    fn located(&self, span: Range<usize>) -> At {
        At {
            key: self.key.clone(),
            place: self.walk.lines.place(span),
        }
    }

    /// The key itself, without the path to it.
    pub(crate) fn name(&self) -> &str {
        self.key.rsplit('.').next().unwrap_or_default()
    }

    pub(crate) fn walk(&self) -> &'w Walk<'t> {
        self.walk
    }

    pub(crate) fn refuse(&self, refused: Refused) {
        self.walk.refuse(&self.at(), refused);
    }

    pub(crate) fn value(&self) -> &'w DeValue<'t> {
        self.value.get_ref()
    }

    /// Refuses the value's type.
    pub(crate) fn wrong_type(&self, expected: &str, help: Option<String>) {
        let message = format!("expected {expected}, found {}", found(self.value()));
        let mut refused = Refused::new(Code::WrongType, message);
        refused.help = help;
        self.refuse(refused);
    }

    /// The text with its variables filled in.
    fn filled(&self, typed: &str, usage: Use) -> Option<String> {
        match variable::fill(typed, usage, self.walk.env) {
            Ok(text) => Some(text),
            Err(errors) => {
                for error in errors {
                    let refused = Refused::new(Code::Variable, error.to_string());
                    self.refuse(refused.help(error.help()));
                }
                None
            }
        }
    }

    /// Reads a text by `parse`. `example` is what stands in the help when it is no text.
    pub(crate) fn text<T>(
        &self,
        expected: &str,
        example: &str,
        parse: impl FnOnce(&str) -> Result<T, Refused>,
    ) -> Option<T> {
        let DeValue::String(typed) = self.value() else {
            let help = format!("write for instance {example}");
            self.wrong_type(expected, Some(help));
            return None;
        };
        let text = self.filled(typed, Use::Text)?;
        parse(&text).map_err(|refused| self.refuse(refused)).ok()
    }

    /// Reads a text with places in braces of its own kind by `parse`; braces that come out of a
    /// `${VARIABLE}` are doubled.
    pub(super) fn text_with_places<T>(
        &self,
        expected: &str,
        example: &str,
        parse: impl FnOnce(&str) -> Result<T, Refused>,
    ) -> Option<T> {
        let DeValue::String(typed) = self.value() else {
            self.wrong_type(expected, Some(format!("write for instance {example}")));
            return None;
        };
        let text = self.filled(typed, Use::Template)?;
        parse(&text).map_err(|refused| self.refuse(refused)).ok()
    }

    /// Reads `true` or `false`.
    pub(super) fn switch(&self) -> Option<bool> {
        match self.value() {
            DeValue::Boolean(on) => Some(*on),
            DeValue::String(text) if matches!(text.as_ref(), "true" | "false") => {
                self.wrong_type(
                    "`true` or `false`",
                    Some(format!("write it without quotes: {text}")),
                );
                None
            }
            _ => {
                self.wrong_type("`true` or `false`", None);
                None
            }
        }
    }

    /// Reads `true`, which is all that the key can say.
    pub(super) fn only_true(&self) -> Option<()> {
        if let DeValue::Boolean(true) = self.value() {
            return Some(());
        }
        let help = format!("write `{} = true`, or take it out", self.name());
        self.wrong_type("`true`", Some(help));
        None
    }

    /// Reads a text with `{port}`, `{host}`, `{address:SERVICE}`.
    pub(crate) fn template(&self) -> Option<Template> {
        let DeValue::String(typed) = self.value() else {
            let help = match self.value() {
                DeValue::Integer(number) => Some(format!("write it in quotes: \"{number}\"")),
                DeValue::Float(number) => {
                    Some(format!("write it in quotes: \"{}\"", number.as_str()))
                }
                DeValue::Boolean(value) => Some(format!("write it in quotes: \"{value}\"")),
                DeValue::String(_)
                | DeValue::Datetime(_)
                | DeValue::Array(_)
                | DeValue::Table(_) => None,
            };
            self.wrong_type("a text", help);
            return None;
        };
        let text = self.filled(typed, Use::Template)?;
        match Template::parse(&text) {
            Ok(template) => {
                let mut addressed = self.walk.addressed.borrow_mut();
                addressed.extend(template.addressed().map(|name| (name.clone(), self.at())));
                Some(template)
            }
            Err(error) => {
                self.refuse(template_refused(&error));
                None
            }
        }
    }

    /// Reads `true` or `false`.
    pub(crate) fn boolean(&self) -> Option<bool> {
        let DeValue::Boolean(value) = self.value() else {
            let help = match self.value() {
                DeValue::String(text) if matches!(text.as_ref(), "true" | "false") => {
                    Some(format!("write it without quotes: {text}"))
                }
                DeValue::String(text) if matches!(text.as_ref(), "on" | "yes") => {
                    Some("did you mean `true`?".to_owned())
                }
                DeValue::String(text) if matches!(text.as_ref(), "off" | "no") => {
                    Some("did you mean `false`?".to_owned())
                }
                _ => None,
            };
            self.wrong_type("`true` or `false`", help);
            return None;
        };
        Some(*value)
    }

    /// Reads a whole number.
    pub(crate) fn integer(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let (low, high) = (range.start(), range.end());
        let expected = format!("a whole number from {low} to {high}");
        let DeValue::Integer(number) = self.value() else {
            let help = match self.value() {
                DeValue::String(text) if text.contains("${") => {
                    Some("variables are filled in only where a text is expected".to_owned())
                }
                DeValue::String(text) if text.parse::<u32>().is_ok() => {
                    Some(format!("write it without quotes: {text}"))
                }
                _ => None,
            };
            self.wrong_type(&expected, help);
            return None;
        };
        let read = u32::from_str_radix(number.as_str(), number.radix()).ok();
        let read = read.filter(|number| range.contains(number));
        if read.is_none() {
            let found = quoted(&number.to_string());
            let message = format!("expected {expected}, found {found}");
            self.refuse(Refused::value(message));
        }
        read
    }

    /// The elements of a list.
    pub(crate) fn list(&self, expected: &str, help: Option<String>) -> Option<Vec<Self>> {
        let DeValue::Array(array) = self.value() else {
            self.wrong_type(expected, help);
            return None;
        };
        let element = |(index, value): (usize, &'w Spanned<DeValue<'t>>)| Self {
            walk: self.walk,
            key: format!("{}[{index}]", self.key),
            key_span: value.span(),
            value,
        };
        Some(array.iter().enumerate().map(element).collect())
    }

    /// The entries of a table whose keys the user chooses.
    pub(crate) fn entries(&self, expected: &str, example: &str) -> Option<Vec<(&'w str, Self)>> {
        let DeValue::Table(table) = self.value() else {
            self.wrong_type(expected, Some(format!("write for instance {example}")));
            return None;
        };
        let mut entries = Vec::with_capacity(table.len());
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let entry = Self {
                walk: self.walk,
                key: format!("{}.{}", self.key, key_shown(name)),
                key_span: key.span(),
                value,
            };
            entries.push((name, entry));
        }
        Some(entries)
    }

    /// Reads a table whose keys we know by `read`; what `read` does not ask for is refused.
    pub(crate) fn section<T>(
        &self,
        expected: &str,
        help: Option<String>,
        explained: &[Explained],
        read: impl FnOnce(&mut Section<'w, 't>) -> T,
    ) -> Option<T> {
        let DeValue::Table(table) = self.value() else {
            self.wrong_type(expected, help);
            return None;
        };
        let mut section = Section {
            walk: self.walk,
            at: self.at(),
            table,
            asked: Vec::new(),
        };
        let result = read(&mut section);
        section.refuse_unasked(explained).then_some(result)
    }
}

fn template_refused(error: &TemplateError) -> Refused {
    let refused = Refused::new(Code::Template, error.to_string());
    match error {
        TemplateError::Unknown { found } => {
            let known = ["host", "port", "address"];
            let word = found
                .split_once(':')
                .map_or(found.as_str(), |(word, _)| word);
            let plain = "a brace that stands for itself is written twice: `{{`";
            match closest(word.trim(), known) {
                Some("address") => refused.help("did you mean `{address:SERVICE}`?"),
                Some(word) => refused.help(format!("did you mean `{{{word}}}`?")),
                None => refused.help(plain),
            }
        }
        TemplateError::Name(name) => refused.help(name.to_string()),
        TemplateError::Open | TemplateError::Close | TemplateError::Nul => refused,
    }
}

/// A table whose keys we know. Each key is asked for once; what nobody asked for is unknown, so
/// that what the parser knows is what it reads.
pub(crate) struct Section<'w, 't> {
    walk: &'w Walk<'t>,
    at: At,
    table: &'w DeTable<'t>,
    asked: Vec<&'static str>,
}

impl<'w, 't> Section<'w, 't> {
    /// The file's outermost table.
    pub(crate) fn root(walk: &'w Walk<'t>, table: &'w DeTable<'t>) -> Self {
        let at = At {
            key: String::new(),
            place: walk.lines.place(0..0),
        };
        Self {
            walk,
            at,
            table,
            asked: Vec::new(),
        }
    }

    /// Where the table's name stands.
    pub(crate) fn at(&self) -> &At {
        &self.at
    }

    pub(crate) fn walk(&self) -> &'w Walk<'t> {
        self.walk
    }

    fn key(&self, name: &str) -> String {
        if self.at.key.is_empty() {
            key_shown(name)
        } else {
            format!("{}.{}", self.at.key, key_shown(name))
        }
    }

    /// Asks for a key.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<Entry<'w, 't>> {
        self.asked.push(key);
        let (typed, value) = self.table.get_key_value(key)?;
        Some(Entry {
            walk: self.walk,
            key: self.key(key),
            key_span: typed.span(),
            value,
        })
    }

    /// Asks for a key that must be there.
    pub(crate) fn required(&mut self, key: &'static str, help: &str) -> Option<Entry<'w, 't>> {
        let entry = self.take(key);
        if entry.is_none() {
            let refused = Refused::new(Code::MissingKey, format!("`{key}` is missing"));
            self.walk.refuse(&self.at, refused.help(help));
        }
        entry
    }

    /// Reads a key by `read`, or takes `default` when it is not there. `None`: it was refused.
    pub(crate) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Entry<'w, 't>) -> Option<T>,
    ) -> Option<T> {
        match self.take(key) {
            Some(entry) => read(&entry),
            None => Some(default),
        }
    }

    /// Reads a key by `read`, or takes `None` when it is not there. Outer `None`: it was refused.
    #[expect(clippy::option_option, reason = "refused and not there are two things")]
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Entry<'w, 't>) -> Option<T>,
    ) -> Option<Option<T>> {
        self.or(key, None, |entry| read(entry).map(Some))
    }

    /// Refuses every key that nobody asked for; whether there was none.
    pub(crate) fn refuse_unasked(self, explained: &[Explained]) -> bool {
        let mut all_known = true;
        for (key, value) in self.table {
            let name = key.get_ref().as_ref();
            if self.asked.contains(&name) {
                continue;
            }
            all_known = false;
            let at = At {
                key: self.key(name),
                place: self.walk.lines.place(key.span()),
            };
            let refused = || self.unasked(name, value, explained);
            self.walk.refuse_with(&at, refused);
        }
        all_known
    }

    fn unasked(&self, name: &str, value: &Spanned<DeValue<'_>>, later: &[Explained]) -> Refused {
        if let Some(explained) = later.iter().find(|explained| explained.key == name) {
            let message = match explained.code {
                Code::NotInThisVersion => format!("`{name}` is not in this version"),
                _ => format!("unknown key `{name}`"),
            };
            return Refused::new(explained.code, message).help(explained.help);
        }
        let refused = Refused::new(Code::UnknownKey, format!("unknown key {}", quoted(name)));
        let top = self.at.key.is_empty();
        match value.get_ref() {
            DeValue::Table(table) if top && table.contains_key("exec") => {
                let name = key_shown(name);
                return refused.help(format!("a service is written `[service.{name}]`"));
            }
            _ => {}
        }
        if let Some(meant) = closest(name, self.asked.iter().copied()) {
            return refused.help(format!("did you mean `{meant}`?"));
        }
        let later = later.iter().filter(|e| e.code == Code::NotInThisVersion);
        if let Some(meant) = closest(name, later.map(|e| e.key)) {
            return refused.help(format!(
                "did you mean `{meant}`? It is not in this version, though"
            ));
        }
        let mut known = String::new();
        for (index, key) in self.asked.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(known, "{comma}{key}").expect("writing to a string cannot fail");
        }
        refused.help(format!("known here: {known}"))
    }
}
