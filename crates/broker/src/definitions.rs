//! What is declared, in the form of RabbitMQ's `definitions.json`.

use bytes::Bytes;
use mainstay_amqp::{
    AppliesTo, Binding, Definitions, Destination, Exchange, ExchangeKind, Policy, QueueDefinition,
    ShortString, Table, Value,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value as Json, json};

use crate::accounts::{Accounts, PasswordHash, Permission, User};
use crate::view;

/// Tables within tables; deeper ones are refused by the wire, too.
const DEPTH_MAX: usize = 16;

/// What RabbitMQ's form has and we do not take.
const LEFT_OUT: [&str; 4] = [
    "operator_policies",
    "parameters",
    "global_parameters",
    "topic_permissions",
];

/// What of definitions an import leaves out: of which kind, and how many.
pub fn left_out(definitions: &Json) -> Vec<(&'static str, usize)> {
    let count = |kind| Some((kind, definitions.get(kind)?.as_array()?.len()));
    let counts = LEFT_OUT.into_iter().filter_map(count);
    counts.filter(|(_, count)| *count > 0).collect()
}

/// The policies of definitions that ask for copies on other machines, by name. They are taken; there is one copy.
pub fn policies_with_copies(definitions: &Json) -> Vec<String> {
    let policies = definitions.get("policies").and_then(Json::as_array);
    let policies = policies.into_iter().flatten();
    let policies = policies.filter_map(|one| view::Policy::deserialize(one).ok());
    let asking = policies.filter(view::Policy::asks_for_copies);
    asking.map(|policy| policy.name).collect()
}

/// The whole form. What we do not have is left out; [`left_out`] names it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Form {
    pub(crate) users: Vec<FormUser>,
    pub(crate) vhosts: Vec<FormVhost>,
    pub(crate) permissions: Vec<FormPermission>,
    exchanges: Vec<FormExchange>,
    queues: Vec<FormQueue>,
    bindings: Vec<FormBinding>,
    policies: Vec<view::Policy>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct FormUser {
    pub(crate) name: String,
    password_hash: Option<String>,
    hashing_algorithm: Option<String>,
    #[serde(default)]
    tags: Tags,
}

/// Words with commas between them, or a list: RabbitMQ has had both.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Tags {
    Words(String),
    List(Vec<String>),
}

impl Default for Tags {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct FormVhost {
    pub(crate) name: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FormPermission {
    pub(crate) user: String,
    pub(crate) vhost: String,
    #[serde(flatten)]
    pub(crate) permission: Permission,
}

#[derive(Debug, Deserialize)]
struct FormExchange {
    name: String,
    vhost: String,
    r#type: String,
    durable: bool,
    auto_delete: bool,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    arguments: Json,
}

#[derive(Debug, Deserialize)]
struct FormQueue {
    name: String,
    vhost: String,
    durable: bool,
    auto_delete: bool,
    #[serde(default)]
    arguments: Json,
}

#[derive(Debug, Deserialize)]
struct FormBinding {
    source: String,
    vhost: String,
    destination: String,
    destination_type: String,
    routing_key: String,
    #[serde(default)]
    arguments: Json,
}

fn short(text: &str) -> Result<ShortString, String> {
    ShortString::new(Bytes::copy_from_slice(text.as_bytes()))
        .ok_or_else(|| format!("the name `{text:.40}...` has more than 255 bytes"))
}

impl FormUser {
    pub(crate) fn user(&self) -> Result<User, String> {
        let algorithm = self.hashing_algorithm.as_deref();
        let algorithm = algorithm.unwrap_or(crate::accounts::RABBIT_SHA256);
        let hash = self
            .password_hash
            .as_deref()
            .filter(|hash| !hash.is_empty());
        let password = hash.map(|hash| PasswordHash::of_rabbit(algorithm, hash));
        let password = password.transpose();
        let password = password.map_err(|why| format!("user `{}`: {why}", self.name))?;
        let tags = match &self.tags {
            Tags::Words(words) => words
                .split(',')
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect(),
            Tags::List(list) => list.clone(),
        };
        Ok(User { password, tags })
    }
}

impl Form {
    /// The virtual hosts that something is declared in.
    pub(crate) fn inhabited(&self) -> Vec<&str> {
        let exchanges = self.exchanges.iter().map(|one| &one.vhost);
        let queues = self.queues.iter().map(|one| &one.vhost);
        let bindings = self.bindings.iter().map(|one| &one.vhost);
        let policies = self.policies.iter().map(|one| &one.vhost);
        let mut all: Vec<&str> = exchanges
            .chain(queues)
            .chain(bindings)
            .chain(policies)
            .map(String::as_str)
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// What is declared in one of them.
    pub(crate) fn of(&self, vhost: &str) -> Result<Definitions, String> {
        let mut definitions = Definitions::default();
        for one in self.exchanges.iter().filter(|one| one.vhost == vhost) {
            let kind = short(&one.r#type)?;
            definitions.exchanges.push(Exchange {
                name: short(&one.name)?,
                kind: ExchangeKind::parse(&kind)
                    .map_err(|fault| format!("exchange `{}`: {fault}", one.name))?,
                durable: one.durable,
                auto_delete: one.auto_delete,
                internal: one.internal,
                // Read from the arguments when it is declared.
                alternate: None,
                arguments: table(&one.arguments)?,
            });
        }
        for one in self.queues.iter().filter(|one| one.vhost == vhost) {
            definitions.queues.push(QueueDefinition {
                name: short(&one.name)?,
                durable: one.durable,
                auto_delete: one.auto_delete,
                arguments: table(&one.arguments)?,
            });
        }
        for one in self.bindings.iter().filter(|one| one.vhost == vhost) {
            let destination = short(&one.destination)?;
            definitions.bindings.push(Binding {
                source: short(&one.source)?,
                destination: match one.destination_type.as_str() {
                    "queue" => Destination::Queue(destination),
                    "exchange" => Destination::Exchange(destination),
                    other => {
                        return Err(format!(
                            "a binding leads to a queue or an exchange, not to a `{other}`"
                        ));
                    }
                },
                key: short(&one.routing_key)?,
                arguments: table(&one.arguments)?,
            });
        }
        let policies = self.policies.iter().filter(|one| one.vhost == vhost);
        definitions.policies = policies.map(policy).collect::<Result<_, _>>()?;
        Ok(definitions)
    }
}

/// A policy as it is kept. Whether what it says can be said is the core's to tell.
pub(crate) fn policy(said: &view::Policy) -> Result<Policy, String> {
    let view::Policy {
        vhost: _,
        name,
        pattern,
        applies_to,
        definition,
        priority,
    } = said;
    let wrong = |why: String| format!("policy `{name}`: {why}");
    if !definition.is_object() {
        return Err(wrong(format!(
            "its definition is an object as {{\"max-length\": 1000}}, not `{definition}`"
        )));
    }
    Ok(Policy {
        name: short(name)?,
        pattern: pattern.clone(),
        applies_to: AppliesTo::parse(applies_to).map_err(|fault| wrong(fault.to_string()))?,
        priority: *priority,
        definition: table(definition).map_err(wrong)?,
    })
}

/// A policy as it is shown, and written into definitions.
pub(crate) fn shown_policy(vhost: &str, policy: &Policy) -> view::Policy {
    view::Policy {
        vhost: vhost.to_owned(),
        name: policy.name.text().into_owned(),
        pattern: policy.pattern.clone(),
        applies_to: policy.applies_to.name().to_owned(),
        definition: object(&policy.definition),
        priority: policy.priority,
    }
}

/// The whole form, out of what there is.
pub(crate) fn form(accounts: &Accounts, declared: &[(String, Definitions)]) -> Json {
    let users = accounts.users.iter().map(|(name, user)| {
        let rabbit = user.password.as_ref().and_then(PasswordHash::as_rabbit);
        let (algorithm, hash) = rabbit.unwrap_or((crate::accounts::RABBIT_SHA256, ""));
        json!({ "name": name, "password_hash": hash, "hashing_algorithm": algorithm, "tags": user.tags, "limits": {} })
    });
    let permissions = accounts.permissions.iter().map(|((vhost, user), permission)| {
        json!({ "user": user, "vhost": vhost, "configure": permission.configure, "write": permission.write, "read": permission.read })
    });
    let vhosts = accounts.vhosts.keys().map(|name| json!({ "name": name }));
    let (mut exchanges, mut queues, mut bindings) = (Vec::new(), Vec::new(), Vec::new());
    let mut policies = Vec::new();
    for (vhost, definitions) in declared {
        let own = definitions.policies.iter();
        policies.extend(own.map(|one| shown_policy(vhost, one)));
        exchanges.extend(definitions.exchanges.iter().filter(|one| one.durable).map(|one| {
            json!({ "name": one.name.text(), "vhost": vhost, "type": one.kind.name(), "durable": one.durable,
                "auto_delete": one.auto_delete, "internal": one.internal, "arguments": object(&one.arguments) })
        }));
        queues.extend(
            definitions
                .queues
                .iter()
                .filter(|one| one.durable)
                .map(|one| {
                    json!({ "name": one.name.text(), "vhost": vhost, "durable": one.durable,
                "auto_delete": one.auto_delete, "arguments": object(&one.arguments) })
                }),
        );
        bindings.extend(definitions.bindings.iter().filter(|one| is_durable(one, definitions)).map(|one| {
            let (destination, kind) = match &one.destination {
                Destination::Queue(name) => (name, "queue"),
                Destination::Exchange(name) => (name, "exchange"),
            };
            json!({ "source": one.source.text(), "vhost": vhost, "destination": destination.text(),
                "destination_type": kind, "routing_key": one.key.text(), "arguments": object(&one.arguments) })
        }));
    }
    json!({
        "rabbit_version": "3.10.8",
        "product_name": "Mainstay",
        "users": users.collect::<Vec<_>>(),
        "vhosts": vhosts.collect::<Vec<_>>(),
        "permissions": permissions.collect::<Vec<_>>(),
        "topic_permissions": [], "parameters": [], "global_parameters": [],
        "policies": policies,
        "queues": queues,
        "exchanges": exchanges,
        "bindings": bindings,
    })
}

/// Both of its ends outlive the broker. Those that are always there are not among the definitions.
fn is_durable(binding: &Binding, definitions: &Definitions) -> bool {
    let exchange = |name: &ShortString| {
        definitions
            .exchanges
            .iter()
            .all(|one| one.name != *name || one.durable)
    };
    exchange(&binding.source)
        && match &binding.destination {
            Destination::Queue(name) => definitions
                .queues
                .iter()
                .all(|one| one.name != *name || one.durable),
            Destination::Exchange(name) => exchange(name),
        }
}

/// Arguments out of JSON.
pub(crate) fn table(json: &Json) -> Result<Table, String> {
    match json {
        // An empty table is an empty list for some versions of RabbitMQ.
        Json::Null => Ok(Table::EMPTY),
        Json::Array(list) if list.is_empty() => Ok(Table::EMPTY),
        Json::Object(fields) => fields_of(fields, DEPTH_MAX),
        other => Err(format!("arguments are an object, not `{other}`")),
    }
}

fn fields_of(fields: &Map<String, Json>, depth: usize) -> Result<Table, String> {
    let fields = fields
        .iter()
        .map(|(name, json)| Ok((short(name)?, value(json, depth)?)));
    fields.collect::<Result<_, String>>().map(Table::new)
}

fn value(json: &Json, depth: usize) -> Result<Value, String> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(format!("arguments are nested {DEPTH_MAX} deep at most"));
    };
    Ok(match json {
        Json::Null => Value::Void,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Value::Long(number),
            (None, Some(number)) => Value::Double(number),
            (None, None) => return Err(format!("the number {number} has no type of AMQP")),
        },
        Json::String(text) => Value::String(Bytes::copy_from_slice(text.as_bytes())),
        Json::Array(list) => Value::Array(
            list.iter()
                .map(|one| value(one, depth))
                .collect::<Result<_, _>>()?,
        ),
        Json::Object(fields) => Value::Table(fields_of(fields, depth)?),
    })
}

fn object(table: &Table) -> Json {
    let fields = table
        .iter()
        .map(|(name, value)| (name.text().into_owned(), shown(value)));
    Json::Object(fields.collect())
}

fn shown(value: &Value) -> Json {
    if let Some(integer) = value.integer() {
        return integer.into();
    }
    match value {
        Value::Bool(flag) => (*flag).into(),
        Value::Float(number) => {
            Number::from_f64(f64::from(*number)).map_or(Json::Null, Json::Number)
        }
        Value::Double(number) => Number::from_f64(*number).map_or(Json::Null, Json::Number),
        Value::String(bytes) | Value::Binary(bytes) => {
            String::from_utf8_lossy(bytes).into_owned().into()
        }
        Value::Array(values) => values.iter().map(shown).collect(),
        Value::Table(table) => object(table),
        Value::Timestamp(seconds) => (*seconds).into(),
        Value::Decimal(scale, digits) => format!("{digits}e-{scale}").into(),
        Value::Byte(_)
        | Value::UnsignedByte(_)
        | Value::Short(_)
        | Value::UnsignedShort(_)
        | Value::Int(_)
        | Value::UnsignedInt(_)
        | Value::Long(_)
        | Value::Void => Json::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_out_comes_in_again() {
        let written = json!({
            "vhosts": [{ "name": "/" }],
            "users": [{ "name": "u", "password_hash": "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR", "tags": "administrator,monitoring" }],
            "permissions": [{ "user": "u", "vhost": "/", "configure": "", "write": ".*", "read": "^a" }],
            "policies": [{ "vhost": "/", "name": "ha", "pattern": "^q", "apply-to": "queues", "priority": 3,
                "definition": { "ha-mode": "all", "max-length": 10, "overflow": "reject-publish" } }],
            "parameters": [{ "component": "shovel" }],
            "exchanges": [{ "name": "e", "vhost": "/", "type": "topic", "durable": true, "auto_delete": false, "internal": false, "arguments": {} }],
            "queues": [{ "name": "q", "vhost": "/", "durable": true, "auto_delete": false, "arguments": { "x-message-ttl": 5000, "x-dead-letter-exchange": "e" } }],
            "bindings": [{ "source": "e", "vhost": "/", "destination": "q", "destination_type": "queue", "routing_key": "a.*", "arguments": {} }],
        });
        assert_eq!(left_out(&written), [("parameters", 1)]);
        assert_eq!(policies_with_copies(&written), ["ha"]);
        let read: Form = serde_json::from_value(written.clone()).expect("a form");
        assert_eq!(read.inhabited(), ["/"]);
        assert_eq!(
            read.users[0].user().expect("a hash").tags,
            ["administrator", "monitoring"]
        );
        let definitions = read.of("/").expect("definitions");
        let out = form(&Accounts::default(), &[("/".to_owned(), definitions)]);
        for key in ["exchanges", "queues", "bindings", "policies"] {
            assert_eq!(out[key], written[key], "{key}");
        }
        assert_eq!(left_out(&out), []);
    }
}
