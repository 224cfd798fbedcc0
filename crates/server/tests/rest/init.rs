//! `server init`: what it makes, and that it never overwrites.

use std::os::unix::fs::PermissionsExt;

use server::config::{Config, ConfigError, Paths};
use server::init::{InitError, init};
use server::{BindError, Server};

use crate::support::options;

#[tokio::test]
async fn secrets_are_for_their_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a/b");
    init(&options(&data)).await.unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let paths = Paths::of(&data);
    assert_eq!(mode(&data), 0o700);
    for secret in [&paths.admin, &paths.database, &paths.config] {
        assert_eq!(mode(secret), 0o600, "{}", secret.display());
    }
}

#[tokio::test]
async fn a_control_plane_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    init(&options(dir.path().join("data"))).await.unwrap();
    let paths = Paths::of(&dir.path().join("data"));
    let before = std::fs::read(&paths.admin).unwrap();
    assert!(matches!(init(&options(dir.path().join("data"))).await, Err(InitError::NotEmpty(_))));
    assert_eq!(std::fs::read(&paths.admin).unwrap(), before);
}

#[tokio::test]
async fn bad_options_make_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let good = options(dir.path().join("data"));
    let no_name = init(&server::init::InitOptions { names: vec![], ..good.clone() }).await;
    assert!(matches!(no_name, Err(InitError::NoName)));
    let domain = init(&server::init::InitOptions { trust_domain: "Not a domain".into(), ..good.clone() }).await;
    assert!(matches!(domain, Err(InitError::TrustDomain(..))));
    let name = init(&server::init::InitOptions { names: vec!["no name".into()], ..good.clone() }).await;
    assert!(matches!(name, Err(InitError::Issue(_))));
    assert!(!good.data.exists());
}

#[tokio::test]
async fn without_init_the_server_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let error = Server::bind(Config::new(dir.path())).await.unwrap_err();
    assert!(matches!(error, BindError::Config(ConfigError::NotInitialised(_))));
    assert!(error.to_string().contains("stolos server init"), "{error}");
}
