//! What verbs need of the operator: which server, and with which certificate.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use api::admin::{AdminConfig, AdminConfigError};

use crate::failure::{C, Failure};

/// The operator's configuration and where it was found.
pub(crate) struct Operator {
    /// The file.
    pub(crate) file: PathBuf,
    /// What is in it.
    pub(crate) admin: AdminConfig,
}

impl Operator {
    /// Reads the file that `--config` or `STOLOS_CONFIG` names, else the first that there is of
    /// `~/.config/stolos/admin.yaml` and `/etc/stolos/admin.yaml`.
    ///
    /// Errors: none is there, it cannot be read, others may read it, or it is another kind of file.
    pub(crate) fn load(named: Option<&Path>) -> Result<Self, Failure> {
        match named {
            Some(file) => Self::read(file),
            None => {
                let places =
                    places(env::var_os("XDG_CONFIG_HOME").map(Into::into), env::var_os("HOME").map(Into::into));
                match places.iter().find(|place| place.exists()) {
                    Some(file) => Self::read(file),
                    None => Err(missing(&places)),
                }
            }
        }
    }

    fn read(file: &Path) -> Result<Self, Failure> {
        let unreadable = |error: &io::Error| Failure::unreadable(file, error);
        let mode = fs::metadata(file).map_err(|error| unreadable(&error))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(Failure::new(
                C::CONFIG_BAD,
                format!("others may read {}, and it holds a private key (mode {:o})", file.display(), mode & 0o777),
                format!("chmod 600 {}", file.display()),
            ));
        }
        let text = fs::read_to_string(file).map_err(|error| unreadable(&error))?;
        let admin = AdminConfig::parse(&text).map_err(|error| match error {
            AdminConfigError::Unreadable | AdminConfigError::NotHttps => Failure::new(
                C::CONFIG_BAD,
                format!("{} cannot be used: {error}", file.display()),
                "take the file as `stolos server init` wrote it",
            ),
        })?;
        Ok(Self { file: file.to_owned(), admin })
    }
}

fn places(config_home: Option<PathBuf>, home: Option<PathBuf>) -> Vec<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    let own = config_home.filter(absolute).or_else(|| home.filter(absolute).map(|home| home.join(".config")));
    let own = own.map(|directory| directory.join("stolos/admin.yaml"));
    own.into_iter().chain([PathBuf::from("/etc/stolos/admin.yaml")]).collect()
}

fn missing(places: &[PathBuf]) -> Failure {
    let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    Failure::new(
        C::CONFIG_MISSING,
        format!("there is no operator's configuration (looked for {})", places.join(", ")),
        "name the admin.yaml that `stolos server init` wrote with --config or STOLOS_CONFIG",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_own_place_comes_first() {
        let found = places(None, Some("/home/a".into()));
        assert_eq!(found, [Path::new("/home/a/.config/stolos/admin.yaml"), Path::new("/etc/stolos/admin.yaml")]);
        assert_eq!(places(Some("/cfg".into()), None)[0], Path::new("/cfg/stolos/admin.yaml"));
        assert_eq!(places(Some("relative".into()), None).len(), 1);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("admin.yaml");
        fs::write(&file, "key: secret\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let told = Operator::load(Some(&file)).err().unwrap().to_string();
        assert!(told.contains("C6003") && told.contains("mode 640"), "{told}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let told = Operator::load(Some(&file)).err().unwrap().to_string();
        assert!(told.contains("C6003") && !told.contains("secret"), "{told}");
    }
}
