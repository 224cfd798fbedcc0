//! The operator's key file, under which the server's own secrets lie sealed in the database.
//!
//! AES-256-GCM with a random nonce; what is sealed is bound to the name of its record, so that whoever writes to the
//! database can neither read secrets nor put one in another's place. ADR 0008 says what this does not protect from.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rand::TryRngCore;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

/// Bytes of the key file.
pub const KEY_LEN: usize = 32;
/// What a sealed record begins with: the form, then the nonce, then the ciphertext with its tag.
const FORM: &[u8] = b"stolos-sealed-1\0";

/// A loaded key file.
pub struct Vault {
    key: RandomizedNonceKey,
    path: PathBuf,
}

/// Why a key file, or what is sealed under it, cannot be used. Never shows any of either.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// There is no file.
    #[error("the key file {} is not there, and the database's secrets are sealed under it", .0.display())]
    Missing(PathBuf),
    /// Others may read it.
    #[error("others may read the key file {}: take their rights away with chmod 600", .0.display())]
    Open(PathBuf),
    /// It is no key.
    #[error("{} is no key file: it has {KEY_LEN} bytes when it is whole", .0.display())]
    Malformed(PathBuf),
    /// It cannot be read or written.
    #[error("the key file {} cannot be used", .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// Another key, or a changed record.
    #[error("the record {record} does not open under {}: that is another control plane's key, or the record was changed", .path.display())]
    Closed {
        /// Which one.
        record: String,
        /// The key file.
        path: PathBuf,
    },
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

impl Vault {
    /// Reads a key file.
    ///
    /// Errors: [`VaultError::Missing`], [`VaultError::Open`] if its mode lets others read, [`VaultError::Malformed`].
    pub fn load(path: &Path) -> Result<Self, VaultError> {
        let failed = |e| VaultError::Io(path.to_owned(), e);
        let file = fs::File::open(path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => VaultError::Missing(path.to_owned()),
            _ => failed(e),
        })?;
        if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
            return Err(VaultError::Open(path.to_owned()));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_LEN + 1));
        file.take(KEY_LEN as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        Self::of(path, &bytes)
    }

    /// Makes a new key file, mode 0600, on the disk when this returns. Never overwrites one.
    pub fn generate(path: &Path) -> Result<Self, VaultError> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        OsRng.try_fill_bytes(&mut *bytes).map_err(|_| VaultError::Random)?;
        let vault = Self::of(path, &*bytes)?;
        vault.write(path, bytes.as_slice())?;
        Ok(vault)
    }

    /// Puts the key of another file into a new one. Never overwrites one.
    pub fn copy(from: &Path, to: &Path) -> Result<Self, VaultError> {
        Self::load(from)?;
        let bytes = fs::read(from).map(Zeroizing::new).map_err(|e| VaultError::Io(from.to_owned(), e))?;
        let vault = Self::of(to, &bytes)?;
        vault.write(to, &bytes)?;
        Ok(vault)
    }

    fn of(path: &Path, bytes: &[u8]) -> Result<Self, VaultError> {
        let malformed = || VaultError::Malformed(path.to_owned());
        if bytes.len() != KEY_LEN {
            return Err(malformed());
        }
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes).map_err(|_| malformed())?;
        Ok(Self { key, path: path.to_owned() })
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), VaultError> {
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            path.parent().map_or(Ok(()), |directory| fs::File::open(directory)?.sync_all())
        };
        write().map_err(|e| VaultError::Io(path.to_owned(), e))
    }

    /// Seals the value of a record.
    pub fn seal(&self, space: &str, key: &str, value: &[u8]) -> Result<Vec<u8>, VaultError> {
        let mut body = Zeroizing::new(value.to_vec());
        let bound = Aad::from(name(space, key));
        let nonce = self.key.seal_in_place_append_tag(bound, &mut *body).map_err(|_| VaultError::Random)?;
        Ok([FORM, nonce.as_ref(), &body].concat())
    }

    /// Opens what [`Vault::seal`] made for the same record.
    pub fn open(&self, space: &str, key: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let closed = || VaultError::Closed { record: format!("{space}/{key}"), path: self.path.clone() };
        let rest = sealed.strip_prefix(FORM).ok_or_else(closed)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(closed)?;
        let mut body = Zeroizing::new(body.to_vec());
        let bound = Aad::from(name(space, key));
        let opened = self.key.open_in_place(Nonce::from(nonce), bound, &mut body).map_err(|_| closed())?.len();
        body.truncate(opened);
        Ok(body)
    }
}

/// Whether a record's value has the form of a sealed one.
pub(crate) fn is_sealed(value: &[u8]) -> bool {
    value.starts_with(FORM)
}

/// What a sealed value is bound to. Neither part has a zero byte.
fn name(space: &str, key: &str) -> Vec<u8> {
    [space.as_bytes(), b"\0", key.as_bytes()].concat()
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn vault(directory: &Path) -> Vault {
        Vault::generate(&directory.join("seal.key")).unwrap()
    }

    #[test]
    fn a_record_opens_under_its_own_name_and_key_only() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let vault = vault(one.path());
        let sealed = vault.seal("secret", "authority-key", b"the key").unwrap();
        assert!(is_sealed(&sealed) && !sealed.windows(7).any(|window| window == b"the key"));
        assert_ne!(sealed, vault.seal("secret", "authority-key", b"the key").unwrap(), "each has its own nonce");
        let again = Vault::load(&one.path().join("seal.key")).unwrap();
        assert_eq!(**again.open("secret", "authority-key", &sealed).unwrap(), *b"the key");
        assert!(matches!(vault.open("secret", "server-key", &sealed), Err(VaultError::Closed { .. })));
        assert!(matches!(vault.open("secre", "tauthority-key", &sealed), Err(VaultError::Closed { .. })));
        let stranger = super::tests::vault(other.path());
        assert!(matches!(stranger.open("secret", "authority-key", &sealed), Err(VaultError::Closed { .. })));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(vault.open("secret", "authority-key", &changed).is_err(), "byte {at}");
            assert!(vault.open("secret", "authority-key", &sealed[..at]).is_err(), "{at} bytes");
        }
        assert!(vault.open("secret", "authority-key", b"the key").is_err(), "what is not sealed is not taken");
    }

    #[test]
    fn a_key_file_is_whole_and_private_or_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seal.key");
        assert!(matches!(Vault::load(&path), Err(VaultError::Missing(_))));
        drop(Vault::generate(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(Vault::generate(&path), Err(VaultError::Io(..))), "never overwritten");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Vault::load(&path), Err(VaultError::Open(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for length in [0, KEY_LEN - 1, KEY_LEN + 1] {
            fs::write(&path, vec![7; length]).unwrap();
            assert!(matches!(Vault::load(&path), Err(VaultError::Malformed(_))), "{length}");
        }
    }
}
