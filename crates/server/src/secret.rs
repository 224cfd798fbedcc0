//! The server's own keys and certificates, in the store, sealed under the operator's key file.

use std::fs;
use std::path::{Path, PathBuf};

use identity::authority::{Authority, Credential, LoadError};
use identity::seal::{SealError, SealKey};
use identity::spiffe_id::TrustDomain;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use store::{Store, StoreError, Transaction};
use tracing::info;
use zeroize::Zeroizing;

use crate::registry::key::FLEET_KEYS;
use crate::vault::{self, Vault, VaultError};

const SPACE: &str = "secret";
const AUTHORITY: &str = "authority-certificate";
const AUTHORITY_KEY: &str = "authority-key";
const SERVER: &str = "server-certificate";
const SERVER_KEY: &str = "server-key";
const SEAL_KEY: &str = "seal-key";
/// The trust domain that all of it is for.
const TRUST_DOMAIN: &str = "trust-domain";
/// Every space whose records are sealed.
const SEALED_SPACES: [&str; 2] = [SPACE, FLEET_KEYS];

/// All of them, loaded.
pub(crate) struct Secrets {
    pub(crate) authority: Authority,
    pub(crate) seal_key: SealKey,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// Why the server's keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// One is not there.
    #[error("the database lacks the server's {0}: it holds no control plane, or restore it from a backup")]
    Missing(&'static str),
    /// One is damaged.
    #[error("the server's {0} in the database is damaged: restore it from a backup")]
    Damaged(&'static str),
    /// The authority's parts do not fit.
    #[error("the authority cannot be loaded")]
    Authority(#[source] LoadError),
    /// The sealing key is damaged.
    #[error("the sealing key cannot be loaded")]
    Seal(#[source] SealError),
    /// The key file, or what is sealed under it.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// They belong to another trust domain.
    #[error("the database's control plane is for the trust domain {stored}, and not for {wanted}")]
    OtherTrustDomain {
        /// The database's.
        stored: String,
        /// What was asked for.
        wanted: TrustDomain,
    },
    /// The database failed.
    #[error("the database failed")]
    Store(#[from] StoreError),
}

/// Writes what a new server needs, sealed.
pub(crate) async fn put(
    write: &mut Transaction,
    vault: &Vault,
    authority: &Authority,
    server: &Credential,
    seal_key: &[u8],
) -> Result<(), SecretError> {
    let authority_key = authority.key_pem();
    for (key, value) in [
        (AUTHORITY, authority.root().as_ref()),
        (AUTHORITY_KEY, authority_key.as_bytes()),
        (SERVER, server.certificate.as_ref()),
        (SERVER_KEY, server.key_pem.as_bytes()),
        (SEAL_KEY, seal_key),
        (TRUST_DOMAIN, authority.trust_domain().as_str().as_bytes()),
    ] {
        write.put_record(SPACE, key, &vault.seal(SPACE, key, value)?).await?;
    }
    Ok(())
}

/// Writes the certificate of one more server, which has names of its own.
pub(crate) async fn put_server(
    write: &mut Transaction,
    vault: &Vault,
    names: &[String],
    server: &Credential,
) -> Result<(), SecretError> {
    for (key, value) in [(SERVER, server.certificate.as_ref()), (SERVER_KEY, server.key_pem.as_bytes())] {
        let key = of_names(key, names);
        write.put_record(SPACE, &key, &vault.seal(SPACE, &key, value)?).await?;
    }
    Ok(())
}

fn of_names(key: &str, names: &[String]) -> String {
    format!("{key} {}", names.join(","))
}

/// Whether a database holds a control plane, as this transaction sees it.
pub(crate) async fn are_there(write: &mut Transaction) -> Result<bool, StoreError> {
    Ok(write.record(SPACE, AUTHORITY).await?.is_some())
}

/// The trust domain that they are for; a database from before it was stored has none.
pub(crate) async fn trust_domain(store: &Store, vault: &Vault) -> Result<Option<String>, SecretError> {
    let Some(sealed) = store.record(SPACE, TRUST_DOMAIN).await? else { return Ok(None) };
    let opened = vault.open(SPACE, TRUST_DOMAIN, &sealed)?.to_vec();
    String::from_utf8(opened).map(Some).map_err(|_| SecretError::Damaged(TRUST_DOMAIN))
}

/// Reads them; `names` are those of this server.
pub(crate) async fn load(
    store: &Store,
    vault: &Vault,
    trust_domain: TrustDomain,
    names: &[String],
) -> Result<Secrets, SecretError> {
    let authority = authority(store, vault, trust_domain).await?;
    let seal_key = SealKey::load(&get(store, vault, SEAL_KEY).await?).map_err(SecretError::Seal)?;
    let certificate = CertificateDer::from(get_own(store, vault, SERVER, names).await?.to_vec());
    let key = get_own(store, vault, SERVER_KEY, names).await?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| SecretError::Damaged(SERVER_KEY))?;
    Ok(Secrets { authority, seal_key, certificate, key })
}

/// Who signs certificates.
pub(crate) async fn authority(
    store: &Store,
    vault: &Vault,
    trust_domain: TrustDomain,
) -> Result<Authority, SecretError> {
    if let Some(stored) = self::trust_domain(store, vault).await?
        && stored != trust_domain.as_str()
    {
        return Err(SecretError::OtherTrustDomain { stored, wanted: trust_domain });
    }
    let root = CertificateDer::from(get(store, vault, AUTHORITY).await?.to_vec());
    let key = get(store, vault, AUTHORITY_KEY).await?;
    let key = std::str::from_utf8(&key).map_err(|_| SecretError::Damaged(AUTHORITY_KEY))?;
    Authority::load(trust_domain, root, key).map_err(SecretError::Authority)
}

async fn get(store: &Store, vault: &Vault, key: &'static str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let sealed = store.record(SPACE, key).await?.ok_or(SecretError::Missing(key))?;
    Ok(vault.open(SPACE, key, &sealed)?)
}

/// What was stored for a server of these names, else what `init` made.
async fn get_own(
    store: &Store,
    vault: &Vault,
    key: &'static str,
    names: &[String],
) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let own = of_names(key, names);
    match store.record(SPACE, &own).await? {
        Some(sealed) => Ok(vault.open(SPACE, &own, &sealed)?),
        None => get(store, vault, key).await,
    }
}

/// Loads the key file of a data directory. A database from before there were key files gets one, and is sealed.
///
/// The new key has another name until everything is sealed, so that no end of the process in between leaves a
/// directory that cannot be opened, and nothing that is not sealed is taken once there is a key file.
pub(crate) async fn unlock(store: &Store, path: &Path) -> Result<Vault, SecretError> {
    let missing = match Vault::load(path) {
        Err(error @ VaultError::Missing(_)) => error,
        loaded => return Ok(loaded?),
    };
    let made = new_name(path);
    let records = store.records(SPACE).await?;
    if records.is_empty() {
        return Err(SecretError::Missing(AUTHORITY));
    }
    if records.iter().any(|(_, value)| vault::is_sealed(value)) {
        // Sealed, and the last step was not reached; or the operator's key is elsewhere.
        let Ok(vault) = Vault::load(&made) else { return Err(missing.into()) };
        for (key, value) in &records {
            vault.open(SPACE, key, value)?;
        }
    } else {
        let _ = fs::remove_file(&made);
        seal_all(store, &Vault::generate(&made)?).await?;
    }
    let failed = |e| VaultError::Io(path.to_owned(), e);
    fs::rename(&made, path).map_err(failed)?;
    if let Some(directory) = path.parent() {
        fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    }
    info!(key_file = %path.display(), "the database's secrets are sealed now; keep the key file apart from backups of it");
    Ok(Vault::load(path)?)
}

fn new_name(path: &Path) -> PathBuf {
    path.with_extension("key.new")
}

async fn seal_all(store: &Store, vault: &Vault) -> Result<(), SecretError> {
    let mut write = store.begin().await?;
    for space in SEALED_SPACES {
        for (key, value) in write.records(space).await? {
            let value = Zeroizing::new(value);
            write.put_record(space, &key, &vault.seal(space, &key, &value)?).await?;
        }
    }
    write.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use store::url::StoreUrl;

    use super::*;

    const SECRET: &[u8] = b"nobody may read this";

    /// A database as it was before there were key files, with what every server finds in its own.
    async fn from_before(directory: &Path) -> (Store, PathBuf) {
        let store = Store::open(&StoreUrl::sqlite(directory.join("stolos.db"))).await.unwrap();
        let domain = TrustDomain::new("example.org").unwrap();
        let now = Timestamp::now();
        let authority = Authority::generate(domain, now).unwrap();
        let server = authority.issue_server(&["localhost".to_owned()], now).unwrap();
        let (_, seal_key) = SealKey::generate().unwrap();
        let path = directory.join("seal.key");
        let vault = Vault::generate(&path).unwrap();
        let mut write = store.begin().await.unwrap();
        put(&mut write, &vault, &authority, &server, &seal_key).await.unwrap();
        for (key, sealed) in write.records(SPACE).await.unwrap() {
            let plain = vault.open(SPACE, &key, &sealed).unwrap();
            write.put_record(SPACE, &key, &plain).await.unwrap();
        }
        write.put_record(FLEET_KEYS, "ring", SECRET).await.unwrap();
        write.commit().await.unwrap();
        fs::remove_file(&path).unwrap();
        (store, path)
    }

    async fn loads(store: &Store, path: &Path) -> Result<(), SecretError> {
        let vault = unlock(store, path).await?;
        load(store, &vault, TrustDomain::new("example.org").unwrap(), &[]).await.map(drop)
    }

    #[tokio::test]
    async fn a_database_from_before_is_sealed_once_and_opens_with_its_own_key_only() {
        let directory = tempfile::tempdir().unwrap();
        let (store, path) = from_before(directory.path()).await;
        loads(&store, &path).await.unwrap();
        let stored = [store.records(SPACE).await.unwrap(), store.records(FLEET_KEYS).await.unwrap()].concat();
        assert_eq!(stored.len(), 7);
        assert!(stored.iter().all(|(_, value)| vault::is_sealed(value)));
        loads(&store, &path).await.unwrap();
        let again = [store.records(SPACE).await.unwrap(), store.records(FLEET_KEYS).await.unwrap()].concat();
        assert_eq!(stored, again, "a sealed one is not sealed again");
        // A wrong key, and none: refused, and nothing is written.
        let kept = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(matches!(loads(&store, &path).await, Err(SecretError::Vault(VaultError::Missing(_)))));
        drop(Vault::generate(&path).unwrap());
        assert!(matches!(loads(&store, &path).await, Err(SecretError::Vault(VaultError::Closed { .. }))));
        assert_eq!(stored, [store.records(SPACE).await.unwrap(), store.records(FLEET_KEYS).await.unwrap()].concat());
        fs::write(&path, kept).unwrap();
        loads(&store, &path).await.unwrap();
    }

    #[tokio::test]
    async fn an_end_between_the_steps_of_sealing_is_no_harm() {
        let directory = tempfile::tempdir().unwrap();
        let (store, path) = from_before(directory.path()).await;
        // The key was made and nothing sealed: another one is made.
        drop(Vault::generate(&new_name(&path)).unwrap());
        loads(&store, &path).await.unwrap();
        // Everything was sealed and the key has its first name still.
        fs::rename(&path, new_name(&path)).unwrap();
        loads(&store, &path).await.unwrap();
        assert!(path.exists() && !new_name(&path).exists());
    }

    #[tokio::test]
    async fn once_there_is_a_key_file_only_what_is_sealed_under_it_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let (store, path) = from_before(directory.path()).await;
        let plain = store.record(SPACE, AUTHORITY_KEY).await.unwrap().unwrap();
        loads(&store, &path).await.unwrap();
        let mut write = store.begin().await.unwrap();
        write.put_record(SPACE, AUTHORITY_KEY, &plain).await.unwrap();
        write.commit().await.unwrap();
        assert!(matches!(loads(&store, &path).await, Err(SecretError::Vault(VaultError::Closed { .. }))));
        // One record in another's place.
        let other = store.record(SPACE, SERVER_KEY).await.unwrap().unwrap();
        let mut write = store.begin().await.unwrap();
        write.put_record(SPACE, AUTHORITY_KEY, &other).await.unwrap();
        write.commit().await.unwrap();
        assert!(matches!(loads(&store, &path).await, Err(SecretError::Vault(VaultError::Closed { .. }))));
    }
}
