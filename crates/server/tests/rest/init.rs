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
    for secret in [&paths.admin, &paths.database, &paths.config, &paths.seal_key] {
        assert_eq!(mode(secret), 0o600, "{}", secret.display());
    }
}

#[tokio::test]
async fn the_database_alone_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    init(&options(&data)).await.unwrap();
    let paths = Paths::of(&data);
    for entry in std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()) {
        let bytes = std::fs::read(&entry).unwrap();
        let shown = bytes.windows(11).any(|window| window == b"PRIVATE KEY");
        assert_eq!(shown, entry == paths.admin, "{}", entry.display());
    }
    let key = std::fs::read(&paths.seal_key).unwrap();
    std::fs::remove_file(&paths.seal_key).unwrap();
    let error = Server::bind(Config::new(&data)).await.unwrap_err().to_string();
    assert!(error.contains("seal.key is not there"), "{error}");
    let other = dir.path().join("other");
    init(&options(&other)).await.unwrap();
    std::fs::copy(Paths::of(&other).seal_key, &paths.seal_key).unwrap();
    let before = std::fs::read(&paths.database).unwrap();
    let error = Server::bind(Config::new(&data)).await.unwrap_err().to_string();
    assert!(error.contains("another control plane's key"), "{error}");
    assert_eq!(std::fs::read(&paths.database).unwrap(), before, "nothing was written");
    std::fs::write(&paths.seal_key, key).unwrap();
    Server::bind(Config::new(&data)).await.unwrap();
}

#[tokio::test]
async fn a_file_has_one_server() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    init(&options(&data)).await.unwrap();
    let first = Server::bind(Config::new(&data)).await.unwrap();
    let second = Server::bind(Config::new(&data)).await.unwrap_err();
    assert!(matches!(second, BindError::Busy(_)), "{second}");
    assert!(second.to_string().starts_with("another server runs on "), "{second}");
    drop(first);
    Server::bind(Config::new(&data)).await.unwrap();
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
