//! Secrets over the API: who gets what, and that no value leaves but to the agent.

use mainstay_api::client::{Client, Error};
use mainstay_api::wire::{Apply, ProblemCode, SecretRemoved, SecretSet, SecretStatus, SecretValue};
use mainstay_ids::SecretName;
use mainstay_model::ServiceSpec;
use mainstay_model::secret::SecretText;
use mainstay_vault::KEY_FILE;

use crate::centre::{Place, apply, problem, spec};

const VALUE: &str = "correct horse battery staple";

async fn set(client: &Client, name: &str, value: &str) -> Result<SecretSet, Error> {
    let value = SecretText::new(value.to_owned()).expect("legal");
    let path = format!("/v1/secrets/{name}");
    client.put(&path, &SecretValue { value }).await
}

async fn value(client: &Client, name: &str) -> Result<String, Error> {
    let path = format!("/v1/secrets/{name}/value");
    let answer: SecretValue = client.get(&path).await?;
    Ok(answer.value.expose().to_owned())
}

async fn list(client: &Client) -> Vec<SecretStatus> {
    client.get("/v1/secrets").await.expect("answers")
}

fn naming(service: &str, secret: &str) -> ServiceSpec {
    let mut spec = spec(service, 1);
    let secret = SecretName::parse(secret).expect("legal");
    spec.secrets.insert("DB_PASSWORD".into(), secret);
    spec
}

#[tokio::test]
async fn what_was_set_is_handed_out_on_the_unix_socket_alone_and_survives_a_restart() {
    let mut place = Place::new("secrets");
    let running = place.start();
    let (unix, tcp) = (place.client(), place.tcp_client());
    assert_eq!(set(&unix, "db", "first").await.expect("set").revision, 1);
    assert_eq!(set(&tcp, "db", VALUE).await.expect("set").revision, 2);
    assert_eq!(value(&unix, "db").await.expect("is there"), VALUE);
    let refusal = problem(value(&tcp, "db").await);
    assert_eq!(refusal.code, ProblemCode::SocketOnly);
    assert!(refusal.message.contains("unix socket"), "{refusal}");
    assert_eq!(
        problem(value(&unix, "mail").await).code,
        ProblemCode::SecretUnknown
    );
    for client in [&unix, &tcp] {
        let listed = list(client).await;
        assert_eq!((listed.len(), listed[0].revision), (1, 2));
        let text = serde_json::to_string(&listed).expect("is JSON");
        assert!(!text.contains("horse"), "{text}");
    }
    drop(running);
    let _running = place.start();
    assert_eq!(value(&place.client(), "db").await.expect("is there"), VALUE);
}

#[tokio::test]
async fn a_declaration_that_names_what_does_not_exist_is_refused_with_what_to_do() {
    let mut place = Place::new("secrets-missing");
    let _running = place.start();
    let client = place.client();
    for dry_run in [true, false] {
        let declaration = Apply {
            services: vec![spec("plain", 1), naming("orders", "db")],
            dry_run,
        };
        let answer = client
            .post::<_, serde_json::Value>("/v1/services", &declaration)
            .await;
        let refusal = problem(answer);
        assert_eq!(refusal.code, ProblemCode::SecretMissing);
        for part in ["`orders`", "`db`"] {
            assert!(refusal.message.contains(part), "{refusal}");
        }
        let remedy = refusal.remedy;
        assert!(remedy.contains("mainstay secret set db"), "{remedy}");
    }
    set(&client, "db", VALUE).await.expect("set");
    apply(&client, vec![naming("orders", "db")])
        .await
        .expect("declared");
    let path = "/v1/services/orders/spec";
    let shown: serde_json::Value = client.get(path).await.expect("answers");
    assert_eq!(shown["secrets"]["DB_PASSWORD"], "db");
}

#[tokio::test]
async fn a_secret_in_use_is_removed_only_by_force_and_both_ways_say_who_uses_it() {
    let mut place = Place::new("secrets-used");
    let _running = place.start();
    let client = place.client();
    set(&client, "db", VALUE).await.expect("set");
    apply(&client, vec![naming("orders", "db"), naming("mail", "db")])
        .await
        .expect("declared");
    let used_by = list(&client).await.remove(0).used_by;
    let again = set(&client, "db", "other").await.expect("set");
    assert_eq!(again.used_by, used_by);
    assert_eq!(used_by.len(), 2);
    let removed = client.delete::<SecretRemoved>("/v1/secrets/db").await;
    let refusal = problem(removed);
    assert_eq!(refusal.code, ProblemCode::SecretInUse);
    assert!(refusal.message.contains("and 1 more"), "{refusal}");
    let path = "/v1/secrets/db?force=true";
    let removed: SecretRemoved = client.delete(path).await.expect("is removed");
    assert_eq!(removed.used_by, used_by);
    let gone = client.delete::<SecretRemoved>(path).await;
    assert_eq!(problem(gone).code, ProblemCode::SecretUnknown);
    assert_eq!(list(&client).await, []);
}

#[tokio::test]
async fn what_is_refused_is_refused_without_repeating_the_value() {
    let mut place = Place::new("secrets-refused");
    let _running = place.start();
    let client = place.client();
    let long = format!("horse{}", "x".repeat(40_000));
    for body in [
        serde_json::json!("horse"),
        serde_json::json!({"value": {"horse": 1}}),
        serde_json::json!({"value": ["horse"]}),
        serde_json::json!({"horse": "horse"}),
        serde_json::json!({"value": "horse", "more": 1}),
        serde_json::json!({"value": "horse\u{0}"}),
        serde_json::json!({"value": long}),
        serde_json::json!({"value": ""}),
    ] {
        let answer = client
            .put::<_, serde_json::Value>("/v1/secrets/db", &body)
            .await;
        let refusal = problem(answer);
        let codes = [ProblemCode::FieldInvalid, ProblemCode::SecretInvalid];
        assert!(codes.contains(&refusal.code), "{refusal:?}");
        assert!(!format!("{refusal:?}").contains("horse"), "{refusal:?}");
    }
    let answer = set(&client, "Db!", VALUE).await;
    assert!(problem(answer).message.contains("not a secret's name"));
    assert_eq!(list(&client).await, []);
}

#[tokio::test]
async fn a_lost_key_is_told_and_keeps_nothing_else_from_working() {
    let mut place = Place::new("secrets-key");
    let _running = place.start();
    let client = place.client();
    set(&client, "db", VALUE).await.expect("set");
    let key = place.state().join(KEY_FILE);
    std::fs::remove_file(&key).expect("is there");
    let refusal = problem(value(&client, "db").await);
    assert_eq!(refusal.code, ProblemCode::SecretLocked);
    assert!(refusal.message.contains(KEY_FILE), "{refusal}");
    apply(&client, vec![spec("plain", 1)])
        .await
        .expect("declared");
    assert_eq!(list(&client).await.len(), 1);
}
