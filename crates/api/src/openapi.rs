//! The API as an OpenAPI 3.1 document, made from the table of [`crate::calls`] and the types that
//! go over the API.

use std::collections::BTreeMap;

use mainstay_model::ProblemCode;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::calls::{Access, Answer, CALLS, Call, Effect, Form};
use crate::wire::Problem;

/// The document. Its schemas say what a reader must be ready for: a field with a default may be
/// missing, since the other side may be of another version.
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for call in CALLS {
        let place = paths.entry(call.path).or_insert_with(|| json!({}));
        let method = call.method.as_str().to_ascii_lowercase();
        place[&method] = operation(call, &mut generator);
    }
    generator.subschema_for::<Problem>();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Mainstay",
            "description": "On the unix socket `api.sock` of the state directory, and on a loopback \
                port with the bearer token of the file `token`. Lines are empty while nothing \
                happens, at least one a second.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "servers": [{ "url": "http://127.0.0.1:7770" }],
        "security": [{}, { "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": generator.take_definitions(true),
        },
    })
}

fn operation(call: &Call, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "operationId": format!("{:?}", call.name),
        "summary": call.summary,
        "x-mainstay-access": match call.access {
            Access::Anybody => "anybody",
            Access::UnixSocket => "unix-socket",
        },
        "x-mainstay-effect": match call.effect {
            Effect::Looks => "looks",
            Effect::Changes => "changes",
            Effect::Tells => "tells",
        },
    });
    let mut parameters = Vec::new();
    if call.path.contains("{name}") {
        parameters.push(json!({
            "name": "name", "in": "path", "required": true, "schema": { "type": "string" },
        }));
    }
    if let Some(query) = call.query {
        parameters.extend(query_parameters(query));
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(takes) = call.takes {
        let schema = takes.schema(generator);
        operation["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": schema } },
        });
    }
    operation["responses"] = responses(call, generator);
    operation
}

/// The fields of a query's type, each as a parameter.
fn query_parameters(query: Form) -> Vec<Value> {
    // In a generator of its own: the type itself stands nowhere in the document.
    let mut inline = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator();
    let mut schema = query.schema(&mut inline).to_value();
    let required: Vec<Value> = schema["required"].as_array().cloned().unwrap_or_default();
    let fields = schema["properties"].take();
    let fields = fields.as_object().into_iter().flatten();
    fields
        .map(|(name, field)| {
            let mut field = field.clone();
            let description = field
                .as_object_mut()
                .and_then(|field| field.remove("description"));
            json!({
                "name": name,
                "in": "query",
                "required": required.contains(&Value::from(name.as_str())),
                "description": description,
                "schema": field,
            })
        })
        .collect()
}

fn responses(call: &Call, generator: &mut SchemaGenerator) -> Value {
    let (content_type, form) = match call.gives {
        Answer::Whole(form) => ("application/json", form),
        Answer::Lines(form) => ("application/x-ndjson", form),
    };
    let schema = form.schema(generator);
    let mut responses = Map::new();
    responses.insert(
        "200".to_owned(),
        json!({
            "description": form.name(),
            "content": { content_type: { "schema": schema } },
        }),
    );
    let mut by_status: BTreeMap<u16, Vec<ProblemCode>> = BTreeMap::new();
    for code in call.problems() {
        by_status.entry(code.status()).or_default().push(code);
    }
    let problem = generator.subschema_for::<Problem>();
    for (status, codes) in by_status {
        let causes: Vec<String> = codes
            .iter()
            .map(|code| format!("`{code}`: {}", code.cause()))
            .collect();
        let codes: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
        responses.insert(
            status.to_string(),
            json!({
                "description": causes.join(" "),
                "x-mainstay-codes": codes,
                "content": { "application/json": { "schema": problem } },
            }),
        );
    }
    responses.into()
}
