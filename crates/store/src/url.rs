//! Where a store is: a SQLite file, or a PostgreSQL database by URL.
//!
//! A password never leaves this module but towards the database: neither `Display` nor `Debug` shows one.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// What the database lists as the name of our connections, unless the URL or PGAPPNAME says another one.
const APPLICATION: &str = "stolos";
/// What a URL may say beside its hosts and its database.
const PARAMETERS: &[&str] = &[
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "statement-cache-capacity",
    "options",
];

/// Where a store is.
///
/// Shape: `sqlite:PATH` or a bare path; `postgres://[USER@]HOST[:PORT][,HOST[:PORT]…]/DATABASE[?sslmode=…&…]`, also
///        `postgresql://`. Of several hosts the one that takes writes is used. What the URL leaves out comes from
///        PGUSER, PGPASSFILE and the like, as every PostgreSQL client does it.
#[derive(Clone)]
pub enum StoreUrl {
    /// A file; its directory exists.
    Sqlite(PathBuf),
    /// A database on one or several hosts.
    Postgres(PostgresUrl),
}

/// See [`StoreUrl`].
#[derive(Clone)]
pub struct PostgresUrl {
    hosts: Vec<PgConnectOptions>,
}

/// Why a text does not say where a store is. Carries no part of it: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlError {
    /// Nothing was given.
    #[error("the store's URL is empty: use a path, sqlite:PATH or postgres://USER@HOST/DATABASE")]
    Empty,
    /// Another scheme.
    #[error("the store's URL has an unknown scheme: use a path, sqlite:PATH or postgres://USER@HOST/DATABASE")]
    Scheme,
    /// It cannot be read.
    #[error("the store's URL is not postgres://USER@HOST[:PORT]/DATABASE: encode special characters as %XX")]
    Malformed,
    /// A parameter that does not exist.
    #[error(
        "the store's URL has an unknown parameter: known are sslmode, sslrootcert, sslcert, sslkey, user, dbname, host, port, application_name, options and statement-cache-capacity"
    )]
    Parameter,
    /// No database is named.
    #[error("the store's URL names no database: postgres://USER@HOST/DATABASE")]
    NoDatabase,
    /// `prefer` and `allow` let whoever is on the path turn encryption off.
    #[error(
        "sslmode=prefer and allow protect against nothing: use verify-full, or require, or disable on a trusted path"
    )]
    SslMode,
}

impl StoreUrl {
    /// A SQLite file.
    pub fn sqlite(path: impl AsRef<Path>) -> Self {
        Self::Sqlite(path.as_ref().to_owned())
    }
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        let text = text.trim();
        if let Some(rest) = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
            return PostgresUrl::parse(rest).map(Self::Postgres);
        }
        let path = match text.strip_prefix("sqlite:") {
            Some(path) => path.strip_prefix("//").unwrap_or(path),
            None if text.contains("://") => return Err(StoreUrlError::Scheme),
            None => text,
        };
        if path.is_empty() {
            return Err(StoreUrlError::Empty);
        }
        Ok(Self::sqlite(path))
    }
}

impl PostgresUrl {
    /// Each host with all that is needed to connect to it.
    pub(crate) fn hosts(&self) -> &[PgConnectOptions] {
        &self.hosts
    }

    fn parse(rest: &str) -> Result<Self, StoreUrlError> {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        let parameters = tail.split_once('?').map_or("", |(_, query)| query);
        let names = parameters.split('&').filter(|pair| !pair.is_empty());
        for name in names.map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name)) {
            if !PARAMETERS.contains(&name) {
                return Err(StoreUrlError::Parameter);
            }
        }
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        let hosts = hosts.split(',').map(|host| options(&format!("postgres://{user}{host}{tail}")));
        Ok(Self { hosts: hosts.collect::<Result<_, _>>()? })
    }
}

fn options(url: &str) -> Result<PgConnectOptions, StoreUrlError> {
    let mut options = PgConnectOptions::from_str(url).map_err(|_| StoreUrlError::Malformed)?;
    if options.get_database().is_none_or(str::is_empty) {
        return Err(StoreUrlError::NoDatabase);
    }
    if options.get_application_name().is_none() {
        options = options.application_name(APPLICATION);
    }
    let said = url.contains("sslmode=") || std::env::var_os("PGSSLMODE").is_some();
    Ok(match (said, options.get_ssl_mode()) {
        (true, PgSslMode::Prefer | PgSslMode::Allow) => return Err(StoreUrlError::SslMode),
        (true, _) => options,
        // Fail closed: what leaves the machine is encrypted, and to whom it goes is checked.
        (false, _) if is_local(&options) => options.ssl_mode(PgSslMode::Disable),
        (false, _) => options.ssl_mode(PgSslMode::VerifyFull),
    })
}

fn is_local(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

impl fmt::Display for PostgresUrl {
    /// User, hosts and database; never a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.hosts.first() else { return Ok(()) };
        write!(f, "postgres://{}@", first.get_username())?;
        for (at, options) in self.hosts.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match options.get_socket() {
                Some(socket) => write!(f, "{comma}{}", socket.display())?,
                None => write!(f, "{comma}{}:{}", options.get_host(), options.get_port())?,
            }
        }
        write!(f, "/{}", first.get_database().unwrap_or_default())
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({self})")
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match text.parse::<StoreUrl>() {
            Ok(url) => format!("{url} {url:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_path_is_a_sqlite_file() {
        for (text, path) in
            [("/a/b.db", "/a/b.db"), ("sqlite:b.db", "b.db"), ("sqlite:///a/b.db", "/a/b.db"), ("b", "b")]
        {
            assert!(matches!(text.parse(), Ok(StoreUrl::Sqlite(found)) if found == Path::new(path)), "{text}");
        }
    }

    #[test]
    fn no_password_is_ever_shown() {
        for text in [
            "postgres://stolos:s3cr3t@db.example/stolos",
            "postgresql://stolos:s3cr3t@a:5433,b/stolos?sslmode=require",
            "postgres://stolos@db.example/stolos?password=s3cr3t",
            "postgres://stolos:s3cr3t@[bad/stolos",
            "postgres://stolos:s3cr3t@db.example",
            "postgres://stolos@db.example/stolos?passwort=s3cr3t",
            "mysql://stolos:s3cr3t@db.example/stolos",
        ] {
            assert!(!shown(text).contains("s3cr3t"), "{}", shown(text));
        }
        let several = shown("postgresql://stolos:x@a:5433,b/stolos?sslmode=require");
        assert!(several.starts_with("postgres://stolos@a:5433,b:5432/stolos "), "{several}");
    }

    #[test]
    fn a_remote_database_is_verified_unless_the_operator_says_otherwise() {
        let mode = |text: &str| match text.parse::<StoreUrl>() {
            Ok(StoreUrl::Postgres(url)) => format!("{:?}", url.hosts()[0].get_ssl_mode()),
            other => format!("{other:?}"),
        };
        assert_eq!(mode("postgres://db.example/stolos"), "VerifyFull");
        assert_eq!(mode("postgres://127.0.0.1/stolos"), "Disable");
        assert_eq!(mode("postgres://[::1]/stolos"), "Disable");
        assert_eq!(mode("postgres:///stolos?host=/run/postgresql"), "Disable");
        assert_eq!(mode("postgres://db.example/stolos?sslmode=require"), "Require");
        assert_eq!(mode("postgres://db.example/stolos?sslmode=prefer"), "Err(SslMode)");
    }
}
