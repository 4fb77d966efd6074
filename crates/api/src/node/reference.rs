//! The reference page of the node file, made from its schema.

use super::schema::schema;
use crate::file::reference::Page;

/// The example at the top of the page; a test reads it.
const EXAMPLE: &str = r#"roles    = ["control", "agent", "gateway"]
state    = "/var/lib/mainstay"
services = ["shop.toml"]

[gateway]
http       = ":80"
stats      = ":8888"
stats_auth = "admin:${STATS_PASSWORD}"
workers    = 4

[gateway.limits]
connections  = 20000
request_time = "10m"
"#;

/// The reference page in Markdown.
pub fn reference() -> String {
    let schema = schema();
    Page {
        title: "The node file",
        schema_command: "mainstay schema --node",
        example: EXAMPLE,
        schema: &schema,
    }
    .written()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_page_is_a_node_file() {
        let read = super::super::parse(EXAMPLE, "example", std::path::Path::new("/etc"), &|_| {
            Some("a password".to_owned())
        });
        assert_eq!(
            read.map(|file| file.gateway.settings.limits.connections),
            Ok(20_000)
        );
    }
}
