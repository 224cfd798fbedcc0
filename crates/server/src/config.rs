//! What the server runs with, and the directory that holds all of its state.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use store::url::{StoreUrl, StoreUrlError};

use crate::clock::{self, Clock};
use crate::registry::Limits;

/// The port unless another is chosen.
pub const DEFAULT_PORT: u16 = 7443;

/// What a server process is started with.
#[derive(Clone)]
pub struct Config {
    /// The directory that `server init` made.
    pub data: PathBuf,
    /// The database, instead of the one that `server.yaml` names.
    pub store: Option<StoreUrl>,
    /// Listens here instead of where `server init` was told.
    pub listen: Option<SocketAddr>,
    /// How it tells the time.
    pub clock: Clock,
    /// Numbers and times of the agents' half.
    pub limits: Limits,
}

impl Config {
    /// The server of a data directory, by the machine's clock.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into(), store: None, listen: None, clock: clock::system(), limits: Limits::default() }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("data", &self.data).field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// `server.yaml` in the data directory: what an operator may change between two starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerFile {
    /// Fixed for the life of the data directory.
    pub trust_domain: String,
    /// Where the server listens.
    pub listen: SocketAddr,
    /// Names and addresses that its certificate is for; the first one is what others are told.
    pub names: Vec<String>,
    /// The database, as in `postgres://stolos@db.example.net/stolos`; `stolos.db` in this directory unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
}

/// Why `server.yaml` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The directory was never initialised.
    #[error("{} holds no server: run `stolos server init --data {}` first", .0.display(), .0.display())]
    NotInitialised(PathBuf),
    /// The file cannot be read.
    #[error("{} cannot be read", .0.display())]
    Io(PathBuf, #[source] std::io::Error),
    /// The file has an unknown field, a missing one, or a bad value.
    #[error("{} is not valid: {why}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        why: String,
    },
}

impl ServerFile {
    /// Reads it from a data directory.
    pub fn load(data: &Path) -> Result<Self, ConfigError> {
        let path = Paths::of(data).config;
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(ConfigError::NotInitialised(data.to_owned()));
            }
            Err(e) => return Err(ConfigError::Io(path, e)),
        };
        let read = serde_saphyr::from_str(&text).map_err(|e| e.without_snippet().to_string());
        let named = |file: Self| if file.names.is_empty() { Err("`names` is empty".to_owned()) } else { Ok(file) };
        let file: Self = read.and_then(named).map_err(|why| ConfigError::Invalid { path: path.clone(), why })?;
        file.store_url(data).map_err(|e| ConfigError::Invalid { path, why: e.to_string() })?;
        Ok(file)
    }

    /// Its database.
    pub fn store_url(&self, data: &Path) -> Result<StoreUrl, StoreUrlError> {
        match &self.store {
            Some(url) => url.parse(),
            None => Ok(StoreUrl::sqlite(Paths::of(data).database)),
        }
    }

    /// What others reach it by, with the port that it listens on.
    pub fn url(&self, port: u16) -> String {
        let name = &self.names[0];
        match name.parse::<std::net::Ipv6Addr>() {
            Ok(address) => format!("https://[{address}]:{port}"),
            Err(_) => format!("https://{name}:{port}"),
        }
    }
}

/// Files of a data directory.
#[derive(Clone, Debug)]
pub struct Paths {
    /// `server.yaml`.
    pub config: PathBuf,
    /// The database, with all secrets but the operator's; sealed under the key file.
    pub database: PathBuf,
    /// The key file.
    pub seal_key: PathBuf,
    /// The operator's credentials.
    pub admin: PathBuf,
    /// The authority's certificate, for anybody.
    pub authority: PathBuf,
}

impl Paths {
    /// Those of a directory.
    pub fn of(data: &Path) -> Self {
        Self {
            config: data.join("server.yaml"),
            database: data.join("stolos.db"),
            seal_key: data.join("seal.key"),
            admin: data.join("admin.yaml"),
            authority: data.join("ca.pem"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_urls_are_bracketed() {
        let file = |name: &str| ServerFile {
            trust_domain: "a".into(),
            listen: "[::]:7443".parse().expect("an address"),
            names: vec![name.into()],
            store: None,
        };
        assert_eq!(file("fd00::1").url(7443), "https://[fd00::1]:7443");
        assert_eq!(file("10.0.0.1").url(1), "https://10.0.0.1:1");
        assert_eq!(file("stolos.example").url(7443), "https://stolos.example:7443");
    }

    #[test]
    fn a_password_in_the_url_is_never_shown() {
        let directory = tempfile::tempdir().expect("a directory");
        let shown = |store: &str, more: &str| {
            let text = format!("trustDomain: a\nlisten: 127.0.0.1:7443\nnames: [a]\nstore: \"{store}\"\n{more}");
            std::fs::write(Paths::of(directory.path()).config, text).expect("written");
            ServerFile::load(directory.path())
                .map(|file| file.store_url(directory.path()))
                .map_or_else(|error| format!("{error} {error:?}"), |url| format!("{url:?}"))
        };
        for (store, more) in [
            ("postgres://stolos:s3cr3t@db/stolos", ""),
            ("postgres://stolos:s3cr3t@db", ""),
            ("mysql://stolos:s3cr3t@db/stolos", ""),
            ("postgres://stolos:s3cr3t@db/stolos", "unknown: 1\n"),
            ("postgres://stolos:s3cr3t@db/stolos", "store: again\n"),
        ] {
            let shown = shown(store, more);
            assert!(!shown.contains("s3cr3t"), "{shown}");
        }
    }
}
