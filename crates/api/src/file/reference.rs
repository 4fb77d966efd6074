//! The reference page of the service file, made from its schema.

use std::fmt::Write;

use serde_json::Value;

use super::schema::schema;

/// The example at the top of the page; a test reads it.
const EXAMPLE: &str = r#"[service.orders]
exec      = ["./orders", "--listen", "{host}:{port}"]
env       = { DB = "${DB_URL:-sqlite:orders.db}", PAY = "http://{address:payments}" }
http      = { host = "orders.example.com", path = "/" }
health    = { get = "/health", every = "1s", fall = 2, rise = 1 }
instances = 3
rollout   = { step = "25%", hold = "10s", on_failure = "rollback" }
drain     = "30s"
slo       = { success = "99.95%", p99 = "250ms" }

[service.payments]
exec    = ["./payments"]
address = "auto"
health  = { get = "/health" }
"#;

/// The reference page in Markdown.
pub fn reference() -> String {
    let schema = schema();
    Page {
        title: "The service file",
        schema_command: "mainstay schema",
        example: EXAMPLE,
        schema: &schema,
    }
    .written()
}

/// A page about a kind of file.
pub(crate) struct Page<'a> {
    pub(crate) title: &'a str,
    /// The command that prints the schema.
    pub(crate) schema_command: &'a str,
    pub(crate) example: &'a str,
    pub(crate) schema: &'a Value,
}

impl Page<'_> {
    /// The page in Markdown.
    pub(crate) fn written(&self) -> String {
        let schema = self.schema;
        let kinds = &schema["$defs"];
        let named = || kinds.as_object().into_iter().flatten();
        let mut page = format!("# {}\n\n", self.title);
        line(&mut page, &flowed(&schema["description"]));
        line(&mut page, "");
        let command = self.schema_command;
        line(
            &mut page,
            &format!(
                "All problems of a file are told at once (`mainstay validate FILE`). An editor \
                 gets the JSON schema from `{command}`. This page is made from the same source as \
                 both."
            ),
        );
        let _ = write!(page, "\n```toml\n{}```\n", self.example);
        section(&mut page, "Top of the file", schema, kinds);
        for (_, table) in named().filter(|(_, kind)| is_table(kind)) {
            let title = format!("`[{}]`", table["x-key"].as_str().unwrap_or_default());
            section(&mut page, &title, table, kinds);
        }
        line(&mut page, "\n## Kinds of values");
        for (name, kind) in named().filter(|(_, kind)| !is_table(kind)) {
            let _ = write!(page, "\n### {name}\n\n");
            line(&mut page, &flowed(&kind["description"]));
            let examples = kind["examples"].as_array().into_iter().flatten();
            let examples: Vec<_> = examples.map(|value| format!("`{value}`")).collect();
            if !examples.is_empty() {
                let _ = write!(page, "\nFor instance {}.\n", examples.join(", "));
            }
        }
        page
    }
}

fn line(page: &mut String, text: &str) {
    page.push_str(text);
    page.push('\n');
}

fn is_table(kind: &Value) -> bool {
    kind["properties"].is_object()
}

fn section(page: &mut String, title: &str, table: &Value, kinds: &Value) {
    let _ = write!(page, "\n## {title}\n\n");
    if table["x-key"].is_string() {
        line(page, &flowed(&table["description"]));
        line(page, "");
    }
    line(
        page,
        "| Key | Value | Default | Meaning |\n|---|---|---|---|",
    );
    let required: Vec<_> = table["required"].as_array().into_iter().flatten().collect();
    for (key, value) in table["properties"].as_object().into_iter().flatten() {
        let default = match &value["default"] {
            _ if required.iter().any(|name| name.as_str() == Some(key)) => "required".to_owned(),
            Value::Null => String::new(),
            default => format!("`{default}`"),
        };
        let (kind, meaning) = (kind(value, kinds), flowed(&value["description"]));
        line(
            page,
            &format!("| `{key}` | {kind} | {default} | {meaning} |"),
        );
    }
}

/// What a key takes, in words.
fn kind(value: &Value, kinds: &Value) -> String {
    if let Some(name) = value["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap_or_default();
        return match kinds[name]["x-key"].as_str() {
            Some(key) => format!("[table](#{})", key.replace('.', "").to_lowercase()),
            None => format!("[{name}](#{})", name.to_lowercase()),
        };
    }
    if let Some(words) = value["enum"].as_array() {
        let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
        return words.join(" or ");
    }
    if let Value::Bool(constant) = value["const"] {
        return format!("`{constant}`");
    }
    match value["type"].as_str() {
        Some("array") => format!("list of {}", kind(&value["items"], kinds)),
        Some("object") => format!("table of {}", kind(&value["additionalProperties"], kinds)),
        Some("integer" | "number") => format!("{} to {}", value["minimum"], value["maximum"]),
        Some("string") => "text".to_owned(),
        Some("boolean") => "`true` or `false`".to_owned(),
        other => other.unwrap_or_default().to_owned(),
    }
}

/// A description on one line.
fn flowed(description: &Value) -> String {
    let text = description.as_str().unwrap_or_default();
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_page_is_a_service_file() {
        let read = super::super::parse(EXAMPLE, "example", std::path::Path::new("/srv"), &|_| None);
        assert_eq!(read.map(|services| services.len()), Ok(2));
    }
}
