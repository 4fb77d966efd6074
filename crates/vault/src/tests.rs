use super::*;
use mainstay_testkit::TempDir;
use std::os::unix::fs::PermissionsExt as _;

const VALUE: &str = "correct horse battery staple";

fn name(text: &str) -> SecretName {
    SecretName::parse(text).unwrap()
}

fn text(value: &str) -> SecretText {
    SecretText::new(value.to_owned()).unwrap()
}

fn vault() -> (TempDir, Vault) {
    let dir = TempDir::new("vault");
    let vault = Vault::of(dir.path());
    (dir, vault)
}

fn set(vault: &Vault, of: &str, value: &str) -> u64 {
    vault.set(&name(of), &text(value), Timestamp(5)).unwrap()
}

fn opened(vault: &Vault, of: &str) -> String {
    vault.open(&name(of)).unwrap().unwrap().expose().to_owned()
}

#[test]
fn what_was_set_is_opened_again_and_stands_nowhere_in_clear() {
    let (dir, vault) = vault();
    assert_eq!(vault.list().unwrap(), []);
    assert_eq!(vault.open(&name("db")).unwrap(), None);
    assert!(!dir.join(KEY_FILE).exists(), "made only when it is needed");
    assert_eq!(set(&vault, "db", "first"), 1);
    assert_eq!(set(&vault, "db", VALUE), 2);
    set(&vault, "mail", "another");
    let vault = Vault::of(dir.path());
    assert_eq!(opened(&vault, "db"), VALUE);
    let listed = vault.list().unwrap();
    let of_db = Listed {
        name: name("db"),
        revision: 2,
        changed: Timestamp(5),
    };
    assert_eq!((listed.len(), &listed[0]), (2, &of_db));
    for file in [dir.join("control").join(SECRETS_FILE), dir.join(KEY_FILE)] {
        let content = fs::read_to_string(&file).unwrap();
        assert!(!content.contains(VALUE) && !content.contains(&hex(VALUE.as_bytes())));
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    assert!(vault.remove(&name("db")).unwrap());
    assert!(!vault.remove(&name("db")).unwrap());
    assert_eq!(vault.open(&name("db")).unwrap(), None);
}

#[test]
fn the_same_value_is_sealed_differently_each_time() {
    let (dir, vault) = vault();
    let sealed = |vault: &Vault| {
        set(vault, "db", VALUE);
        let text = fs::read_to_string(dir.join("control").join(SECRETS_FILE)).unwrap();
        let content: serde_json::Value = serde_json::from_str(&text).unwrap();
        content["secrets"]["db"]["sealed"].to_string()
    };
    assert_ne!(sealed(&vault), sealed(&vault));
}

#[test]
fn a_value_that_was_moved_put_back_or_changed_does_not_open() {
    let (dir, vault) = vault();
    let file = dir.join("control").join(SECRETS_FILE);
    let content = || -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap()
    };
    set(&vault, "db", "old");
    set(&vault, "mail", "other");
    let old = content()["secrets"]["db"].clone();
    set(&vault, "db", VALUE);
    let good = content();
    let forge = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut forged = good.clone();
        change(&mut forged["secrets"]);
        fs::write(&file, forged.to_string()).unwrap();
        let error = vault.open(&name("db")).unwrap_err();
        assert!(matches!(error, Error::Forged { .. }), "{error}");
    };
    forge(&|secrets| secrets["db"]["sealed"] = secrets["mail"]["sealed"].clone());
    forge(&|secrets| {
        secrets["db"]["sealed"] = old["sealed"].clone();
        secrets["db"]["nonce"] = old["nonce"].clone();
    });
    forge(&|secrets| secrets["db"]["revision"] = 1.into());
    forge(&|secrets| secrets["db"]["nonce"] = "00".into());
    forge(&|secrets| secrets["db"]["sealed"] = "0g".into());
    for at in 0..VALUE.len() {
        forge(&|secrets| {
            let mut sealed = unhex(secrets["db"]["sealed"].as_str().unwrap()).unwrap();
            sealed[at] ^= 1;
            secrets["db"]["sealed"] = hex(&sealed).into();
        });
    }
    fs::write(&file, good.to_string()).unwrap();
    assert_eq!(opened(&vault, "db"), VALUE);
}

#[test]
fn a_lost_or_wrong_key_is_told_and_never_replaced_while_a_value_needs_it() {
    let (dir, vault) = vault();
    set(&vault, "db", VALUE);
    let key = dir.join(KEY_FILE);
    let right = fs::read_to_string(&key).unwrap();
    let told = |vault: &Vault| {
        let opened = vault.open(&name("db")).unwrap_err();
        let set = vault
            .set(&name("db"), &text("new"), Timestamp(6))
            .unwrap_err();
        assert_eq!(opened.to_string(), set.to_string());
        assert!(opened.to_string().contains(key.to_str().unwrap()));
        opened
    };
    fs::remove_file(&key).unwrap();
    assert!(matches!(told(&vault), Error::KeyMissing { .. }));
    assert!(!key.exists());
    fs::write(&key, format!("{}\n", "ab".repeat(32))).unwrap();
    assert!(matches!(told(&vault), Error::KeyWrong { .. }));
    for damaged in [
        "",
        "abc",
        &right[..40],
        "no key",
        &format!("{}ab", right.trim()),
    ] {
        fs::write(&key, damaged).unwrap();
        assert!(
            matches!(told(&vault), Error::KeyDamaged { .. }),
            "{damaged}"
        );
    }
    fs::write(&key, &right).unwrap();
    assert_eq!(opened(&vault, "db"), VALUE);
    // The way out without the key: everything is set anew.
    fs::remove_file(&key).unwrap();
    assert_eq!(vault.list().unwrap().len(), 1);
    assert!(vault.remove(&name("db")).unwrap());
    set(&vault, "db", "new");
    assert_eq!(opened(&vault, "db"), "new");
}

#[test]
fn what_a_power_loss_may_leave_beside_the_file_does_no_harm() {
    let (dir, vault) = vault();
    set(&vault, "db", VALUE);
    for torn in ["", "{\"format\":1,\"key\":nu"] {
        let beside = dir.join("control/secrets.json.tmp");
        fs::write(&beside, torn).unwrap();
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(opened(&vault, "db"), VALUE);
        set(&vault, "db", VALUE);
        let file = dir.join("control").join(SECRETS_FILE);
        let mode = fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    // After the key and before the first value: the key is used.
    let (dir, vault) = self::vault();
    let made = Key::make(&dir.join(KEY_FILE)).unwrap();
    set(&vault, "db", VALUE);
    let used = Key::load(&dir.join(KEY_FILE)).unwrap().unwrap();
    assert_eq!(made.fingerprint(), used.fingerprint());
}

#[test]
fn a_damaged_or_newer_file_is_told_and_left_as_it_is() {
    let (dir, vault) = vault();
    set(&vault, "db", VALUE);
    let file = dir.join("control").join(SECRETS_FILE);
    let good = fs::read_to_string(&file).unwrap();
    for len in 0..good.trim_end().len() {
        fs::write(&file, &good[..len]).unwrap();
        let error = vault.set(&name("db"), &text("new"), Timestamp(6));
        assert!(matches!(error, Err(Error::Damaged { .. })), "{len}");
        assert_eq!(fs::read_to_string(&file).unwrap(), good[..len]);
    }
    fs::write(&file, "{\"format\": 2, \"anything\": 1}").unwrap();
    let error = vault.list().unwrap_err().to_string();
    assert!(
        error.contains("format 2") && error.contains("format 1"),
        "{error}"
    );
}

#[test]
fn a_disk_that_refuses_changes_nothing() {
    let (dir, vault) = vault();
    set(&vault, "db", VALUE);
    // What cannot be removed stands in the way, also of root.
    fs::create_dir(dir.join("control/secrets.json.tmp")).unwrap();
    let error = vault
        .set(&name("db"), &text("new"), Timestamp(6))
        .unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
    assert_eq!(opened(&vault, "db"), VALUE);
}
