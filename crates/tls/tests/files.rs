//! What is in the files, and what becomes of it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;

use mainstay_testkit::{Authority, TempDir};
use mainstay_tls::{Files, LoadError, Part, Why, load};

/// A certificate with its key, on disk.
fn made(dir: &TempDir) -> (Authority, Files) {
    let authority = Authority::new("ours");
    let pair = authority.issue("localhost");
    let files = Files {
        certificate: dir.join("certificate.pem"),
        key: dir.join("key.pem"),
        client_ca: None,
    };
    fs::write(&files.certificate, pair.certificate).unwrap();
    fs::write(&files.key, pair.key).unwrap();
    (authority, files)
}

fn refused(files: &Files) -> LoadError {
    load(files).expect_err("it cannot be used")
}

#[test]
fn a_certificate_with_its_key_and_an_authority_of_clients_are_taken() {
    let dir = TempDir::new("tls-taken");
    let (authority, mut files) = made(&dir);
    load(&files).unwrap();
    let path = dir.join("clients.pem");
    fs::write(&path, authority.certificate()).unwrap();
    files.client_ca = Some(path);
    load(&files).unwrap();
    assert_eq!(files.paths().len(), 3);
}

#[test]
fn a_key_of_another_certificate_is_told_with_both() {
    let dir = TempDir::new("tls-other");
    let (authority, files) = made(&dir);
    fs::write(&files.key, authority.issue("localhost").key).unwrap();
    let error = refused(&files);
    assert_eq!((error.part, &error.path), (Part::Key, &files.key));
    assert!(
        matches!(&error.why, Why::OfAnother { certificate } if *certificate == files.certificate)
    );
    assert!(error.remedy().contains("made together"));
}

#[test]
fn what_is_missing_damaged_or_encrypted_is_told_with_its_file() {
    let dir = TempDir::new("tls-damaged");
    let (_, files) = made(&dir);
    let (certificate, key) = (
        fs::read_to_string(&files.certificate).unwrap(),
        fs::read_to_string(&files.key).unwrap(),
    );
    let body: String = certificate.lines().skip(1).collect();
    let cases: [(&str, Option<&str>, Part, &str); 6] = [
        ("certificate.pem", None, Part::Certificate, "No such file"),
        (
            "certificate.pem",
            Some(&body),
            Part::Certificate,
            "no certificate in PEM",
        ),
        (
            "certificate.pem",
            Some(&certificate[..200]),
            Part::Certificate,
            "PEM",
        ),
        (
            "key.pem",
            Some(&certificate),
            Part::Key,
            "no private key in PEM",
        ),
        (
            "key.pem",
            Some(
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            ),
            Part::Key,
            "encrypted",
        ),
        (
            "key.pem",
            Some("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
            Part::Key,
            "",
        ),
    ];
    for (name, text, part, why) in cases {
        fs::write(&files.certificate, &certificate).unwrap();
        fs::write(&files.key, &key).unwrap();
        match text {
            Some(text) => fs::write(dir.join(name), text).unwrap(),
            None => fs::remove_file(dir.join(name)).unwrap(),
        }
        let error = refused(&files);
        assert_eq!(error.part, part, "{error:?}");
        assert!(error.to_string().contains(name), "{error}");
        assert!(
            error.why.to_string().contains(why),
            "{why}: {:?}",
            error.why
        );
        assert!(!error.remedy().is_empty());
    }
}

#[test]
fn a_certificate_that_is_none_is_refused_and_so_is_an_authority() {
    let dir = TempDir::new("tls-none");
    let (_, mut files) = made(&dir);
    let none = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let path = dir.join("clients.pem");
    fs::write(&path, none).unwrap();
    files.client_ca = Some(path);
    assert_eq!(refused(&files).part, Part::ClientCa);
    fs::write(&files.certificate, none).unwrap();
    assert_eq!(refused(&files).part, Part::Certificate);
    fs::write(&files.certificate, vec![b'x'; 1024 * 1024 + 1]).unwrap();
    assert!(matches!(refused(&files).why, Why::TooLong));
}
