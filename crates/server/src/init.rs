//! `stolos server init`: makes the data directory of a new control plane.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use api::admin::AdminConfig;
use api::kind::NAMESPACE;
use api::object::{API_VERSION, Metadata, Object};
use identity::authority::{Authority, Credential, IssueError, certificate_pem};
use identity::fingerprint::Fingerprint;
use identity::seal::{SealError, SealKey};
use identity::spiffe_id::{SpiffeIdError, TrustDomain};
use jiff::Timestamp;
use serde_json::json;
use store::document::{Precondition, WriteError};
use store::url::{StoreUrl, StoreUrlError};
use store::{Store, StoreError};

use crate::config::{Paths, ServerFile};
use crate::secret::{self, SecretError};
use crate::vault::Vault;

/// What a new control plane is to be.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// The directory to make; it may exist if it is empty.
    pub data: PathBuf,
    /// Root of all identities, `example.org`.
    pub trust_domain: String,
    /// Where the server listens.
    pub listen: SocketAddr,
    /// Names and addresses for its certificate; the first one is what nodes and operators dial. `localhost` and the
    /// loopback addresses are added.
    pub names: Vec<String>,
    /// The operator's name in the certificate.
    pub admin: String,
    /// When it happens.
    pub now: Timestamp,
    /// The database, if it is not to be a file in the directory.
    pub store: Option<String>,
    /// The key file of a database that holds a control plane already: the directory becomes that of one more server of
    /// it, in the database's trust domain, without an authority of its own.
    pub seal_key: Option<PathBuf>,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitReport {
    /// The data directory.
    pub data: PathBuf,
    /// The operator's credentials, mode 0600.
    pub admin: PathBuf,
    /// What operators and nodes dial.
    pub url: String,
    /// SHA-256 of the authority's certificate.
    pub authority: Fingerprint,
    /// When the operator's certificate ends.
    pub admin_not_after: Timestamp,
}

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is something already.
    #[error("{} is not empty: a control plane is never overwritten; choose another directory or remove it", .0.display())]
    NotEmpty(PathBuf),
    /// No name was given.
    #[error("no name is given: say by which DNS name or address nodes reach this server (--name)")]
    NoName,
    /// The trust domain's name is not valid.
    #[error("`{0}` is no trust domain")]
    TrustDomain(String, #[source] SpiffeIdError),
    /// A certificate could not be issued: a bad name, mostly.
    #[error("the certificates cannot be made")]
    Issue(#[source] IssueError),
    /// The sealing key could not be made.
    #[error("the sealing key cannot be made")]
    Seal(#[source] SealError),
    /// A file or directory could not be made.
    #[error("{} cannot be written", .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// The database's URL.
    #[error(transparent)]
    StoreUrl(#[from] StoreUrlError),
    /// The database holds a control plane, and its key file was not given.
    #[error("{0} holds a control plane already, which is never overwritten")]
    Initialised(StoreUrl),
    /// The key file of a control plane was given, and the database holds none.
    #[error("{0} holds no control plane yet that the key file could belong to")]
    NotInitialised(StoreUrl),
    /// A file of this directory alone.
    #[error("one more server needs a database that several can reach, and its URL")]
    NotShared,
    /// The database could not be made.
    #[error("the database cannot be made")]
    Store(#[from] StoreError),
    /// The key file could not be made, or nothing be sealed under it.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The first document could not be written.
    #[error("the root namespace cannot be written")]
    Write(#[from] WriteError),
}

/// Makes the directory (0700), the authority, the server's and the operator's certificates, the sealing key, the key file,
/// and the database with the root namespace. Never overwrites anything. With [`InitOptions::seal_key`], all of it but
/// the certificates and the directory is there already.
pub async fn init(options: &InitOptions) -> Result<InitReport, InitError> {
    if options.names.is_empty() {
        return Err(InitError::NoName);
    }
    let paths = Paths::of(&options.data);
    match (options.store.as_deref().map(str::parse::<StoreUrl>).transpose()?, &options.seal_key) {
        (Some(url @ StoreUrl::Postgres(_)), Some(key)) => join(options, &url, key).await,
        (_, Some(_)) => Err(InitError::NotShared),
        (url, None) => found(options, &url.unwrap_or_else(|| StoreUrl::sqlite(&paths.database))).await,
    }
}

/// A new control plane.
async fn found(options: &InitOptions, url: &StoreUrl) -> Result<InitReport, InitError> {
    let now = options.now;
    let domain =
        TrustDomain::new(&options.trust_domain).map_err(|e| InitError::TrustDomain(options.trust_domain.clone(), e))?;
    let authority = Authority::generate(domain, now).map_err(InitError::Issue)?;
    let (server, admin) = issue(&authority, options)?;
    let (_, seal_key) = SealKey::generate().map_err(InitError::Seal)?;
    let paths = Paths::of(&options.data);
    let store = match url {
        StoreUrl::Sqlite(path) => {
            make_directory(&options.data)?;
            // Made first with its mode, so that SQLite never makes it readable for others.
            write_file(path, 0o600, "")?;
            Store::open(url).await?
        }
        StoreUrl::Postgres(_) => {
            let store = Store::open(url).await?;
            if secret::are_there(&mut store.begin().await?).await? {
                return Err(InitError::Initialised(url.clone()));
            }
            make_directory(&options.data)?;
            store
        }
    };
    let vault = Vault::generate(&paths.seal_key).map_err(SecretError::from)?;
    let mut write = store.begin().await?;
    if secret::are_there(&mut write).await? {
        return Err(InitError::Initialised(url.clone()));
    }
    secret::put(&mut write, &vault, &authority, &server, &seal_key).await?;
    write.put(&root_namespace(), Precondition::None, now).await?;
    write.commit().await?;
    store.close().await;
    write_files(options, &authority, &admin)
}

/// One more server of the control plane that a database holds.
async fn join(options: &InitOptions, url: &StoreUrl, key: &Path) -> Result<InitReport, InitError> {
    let vault = Vault::load(key).map_err(SecretError::from)?;
    let store = Store::open(url).await?;
    if !secret::are_there(&mut store.begin().await?).await? {
        return Err(InitError::NotInitialised(url.clone()));
    }
    // Opened by the key, or nothing is made.
    let stored = secret::trust_domain(&store, &vault).await?.unwrap_or_else(|| options.trust_domain.clone());
    let domain = TrustDomain::new(&stored).map_err(|e| InitError::TrustDomain(stored, e))?;
    let authority = secret::authority(&store, &vault, domain).await?;
    let (server, admin) = issue(&authority, options)?;
    make_directory(&options.data)?;
    let vault = Vault::copy(key, &Paths::of(&options.data).seal_key).map_err(SecretError::from)?;
    let mut write = store.begin().await?;
    secret::put_server(&mut write, &vault, &options.names, &server).await?;
    write.commit().await?;
    store.close().await;
    write_files(options, &authority, &admin)
}

/// The server's and the operator's certificates.
fn issue(authority: &Authority, options: &InitOptions) -> Result<(Credential, Credential), InitError> {
    let server = authority.issue_server(&certificate_names(&options.names), options.now).map_err(InitError::Issue)?;
    Ok((server, authority.issue_admin(&options.admin, options.now).map_err(InitError::Issue)?))
}

fn write_files(options: &InitOptions, authority: &Authority, admin: &Credential) -> Result<InitReport, InitError> {
    let paths = Paths::of(&options.data);
    let trust_domain = authority.trust_domain().as_str().to_owned();
    let (names, store) = (options.names.clone(), options.store.clone());
    let file = ServerFile { trust_domain: trust_domain.clone(), listen: options.listen, names, store };
    let url = file.url(options.listen.port());
    let ca = certificate_pem(authority.root());
    let config = AdminConfig {
        server: url.clone(),
        trust_domain,
        ca: ca.clone(),
        certificate: certificate_pem(&admin.certificate),
        key: admin.key_pem.to_string(),
    };
    write_file(&paths.authority, 0o644, &ca)?;
    write_file(&paths.admin, 0o600, &config.to_yaml())?;
    // Last: a directory without it is not initialised.
    write_file(&paths.config, 0o600, &server_yaml(&file))?;
    Ok(InitReport {
        data: options.data.clone(),
        admin: paths.admin,
        url,
        authority: Fingerprint::of(authority.root()),
        admin_not_after: admin.not_after,
    })
}

fn certificate_names(given: &[String]) -> Vec<String> {
    let mut names = given.to_vec();
    for local in ["localhost", "127.0.0.1", "::1"] {
        let same = |name: &String| match (name.parse::<IpAddr>(), local.parse::<IpAddr>()) {
            (Ok(a), Ok(b)) => a == b,
            _ => name == local,
        };
        if !names.iter().any(same) {
            names.push(local.to_owned());
        }
    }
    names
}

fn root_namespace() -> Object {
    Object {
        api_version: API_VERSION.into(),
        kind: NAMESPACE.into(),
        metadata: Metadata { namespace: "/".into(), name: "/".into(), ..Metadata::default() },
        spec: json!({}),
        status: None,
    }
}

fn server_yaml(file: &ServerFile) -> String {
    let text = |value: &str| serde_json::Value::from(value).to_string();
    let names: Vec<String> = file.names.iter().map(|name| text(name)).collect();
    let store = file.store.iter().map(|url| format!("store: {}\n", text(url))).collect::<String>();
    format!(
        "# What the server runs with; read at start.\ntrustDomain: {}\nlisten: {}\nnames: [{}]\n{store}",
        text(&file.trust_domain),
        text(&file.listen.to_string()),
        names.join(", ")
    )
}

fn make_directory(data: &Path) -> Result<(), InitError> {
    let failed = |e| InitError::Io(data.to_owned(), e);
    match fs::read_dir(data) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(InitError::NotEmpty(data.to_owned()));
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(failed)?;
        }
        Err(e) => return Err(failed(e)),
    }
    fs::set_permissions(data, fs::Permissions::from_mode(0o700)).map_err(failed)
}

fn write_file(path: &Path, mode: u32, text: &str) -> Result<(), InitError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|e| InitError::Io(path.to_owned(), e))
}
