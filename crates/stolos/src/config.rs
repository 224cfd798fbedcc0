//! What verbs need of the operator: which server, with which certificate, and where in it.
//!
//! One file is one server and one credential (`admin.yaml`). An operator of several keeps them as contexts, by name
//! (`config/context.rs`); without any, the one file at its usual place serves.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use api::admin::{AdminConfig, AdminConfigError};

use crate::args::Connection;
use crate::failure::{C, Failure};

pub(crate) use context::{Context, Contexts};

mod context;

/// The operator's configuration and where it was found.
pub(crate) struct Operator {
    /// The file.
    pub(crate) file: PathBuf,
    /// What is in it.
    pub(crate) admin: AdminConfig,
    /// The namespace that its context works in where none is typed.
    pub(crate) namespace: Option<String>,
}

impl Operator {
    /// The context that `--context` or `STOLOS_CONTEXT` names; else the file that `--config` or `STOLOS_CONFIG` names;
    /// else the current context; else the first that there is of `~/.config/stolos/admin.yaml` and `/etc/stolos/admin.yaml`.
    ///
    /// Errors: none is there, it cannot be read, others may read it, or it is another kind of file.
    pub(crate) fn load(connection: &Connection) -> Result<Self, Failure> {
        if let Some(name) = &connection.context {
            return Self::of(&Contexts::load()?, name);
        }
        if let Some(file) = &connection.config {
            return Self::read(file);
        }
        let contexts = own_directory().map(Contexts::load_from).transpose()?;
        if let Some((contexts, name)) = contexts.as_ref().and_then(|all| Some((all, all.current()?))) {
            return Self::of(contexts, name);
        }
        let places = places();
        match places.iter().find(|place| place.exists()) {
            Some(file) => Self::read(file),
            None => Err(missing(&places)),
        }
    }

    fn of(contexts: &Contexts, name: &str) -> Result<Self, Failure> {
        let context = contexts.named(name)?;
        Ok(Self { namespace: context.namespace.clone(), ..Self::read(&contexts.file(name))? })
    }

    /// One file.
    pub(crate) fn read(file: &Path) -> Result<Self, Failure> {
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
        Ok(Self { file: file.to_owned(), admin, namespace: None })
    }
}

/// The operator's own directory, by the XDG base directory specification; `None` where there is no home.
fn own_directory() -> Option<PathBuf> {
    own_directory_of(env::var_os("XDG_CONFIG_HOME").map(Into::into), env::var_os("HOME").map(Into::into))
}

fn own_directory_of(config_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    let own = config_home.filter(absolute).or_else(|| home.filter(absolute).map(|home| home.join(".config")));
    own.map(|directory| directory.join("stolos"))
}

fn places() -> Vec<PathBuf> {
    let own = own_directory().map(|directory| directory.join("admin.yaml"));
    own.into_iter().chain([PathBuf::from("/etc/stolos/admin.yaml")]).collect()
}

fn missing(places: &[PathBuf]) -> Failure {
    let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    Failure::new(
        C::CONFIG_MISSING,
        format!("there is no operator's configuration (looked for {})", places.join(", ")),
        "name the admin.yaml that `stolos server init` wrote with --config or STOLOS_CONFIG,\n\
         or keep it as a context: stolos context add NAME --from admin.yaml",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_own_directory_is_absolute() {
        assert_eq!(own_directory_of(None, Some("/home/a".into())), Some("/home/a/.config/stolos".into()));
        assert_eq!(own_directory_of(Some("/cfg".into()), None), Some("/cfg/stolos".into()));
        assert_eq!(own_directory_of(Some("relative".into()), None), None);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("admin.yaml");
        fs::write(&file, "key: secret\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let told = Operator::read(&file).err().unwrap().to_string();
        assert!(told.contains("C6003") && told.contains("mode 640"), "{told}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let told = Operator::read(&file).err().unwrap().to_string();
        assert!(told.contains("C6003") && !told.contains("secret"), "{told}");
    }
}
