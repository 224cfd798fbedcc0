//! The server's own keys and certificates, in the store.

use identity::authority::{Authority, Credential, LoadError};
use identity::seal::{SealError, SealKey};
use identity::spiffe_id::TrustDomain;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use store::{Store, StoreError, Transaction};

const SPACE: &str = "secret";
const AUTHORITY: &str = "authority-certificate";
const AUTHORITY_KEY: &str = "authority-key";
const SERVER: &str = "server-certificate";
const SERVER_KEY: &str = "server-key";
const SEAL_KEY: &str = "seal-key";

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
    #[error("the database lacks the server's {0}: restore it from a backup")]
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
    /// The database failed.
    #[error("the database failed")]
    Store(#[from] StoreError),
}

/// Writes what a new server needs.
pub(crate) async fn put(
    write: &mut Transaction,
    authority: &Authority,
    server: &Credential,
    seal_key: &[u8],
) -> Result<(), StoreError> {
    let authority_key = authority.key_pem();
    for (key, value) in [
        (AUTHORITY, authority.root().as_ref()),
        (AUTHORITY_KEY, authority_key.as_bytes()),
        (SERVER, server.certificate.as_ref()),
        (SERVER_KEY, server.key_pem.as_bytes()),
        (SEAL_KEY, seal_key),
    ] {
        write.put_record(SPACE, key, value).await?;
    }
    Ok(())
}

/// Reads them.
pub(crate) async fn load(store: &Store, trust_domain: TrustDomain) -> Result<Secrets, SecretError> {
    let root = CertificateDer::from(get(store, AUTHORITY).await?);
    let key = String::from_utf8(get(store, AUTHORITY_KEY).await?).map_err(|_| SecretError::Damaged(AUTHORITY_KEY))?;
    let authority = Authority::load(trust_domain, root, &key).map_err(SecretError::Authority)?;
    let seal_key = SealKey::load(&get(store, SEAL_KEY).await?).map_err(SecretError::Seal)?;
    let key = get(store, SERVER_KEY).await?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| SecretError::Damaged(SERVER_KEY))?;
    Ok(Secrets { authority, seal_key, certificate: CertificateDer::from(get(store, SERVER).await?), key })
}

async fn get(store: &Store, key: &'static str) -> Result<Vec<u8>, SecretError> {
    store.record(SPACE, key).await?.ok_or(SecretError::Missing(key))
}
