//! Contexts: servers and credentials by name, and which of them is the current one.
//!
//! `~/.config/stolos/contexts/NAME.yaml` is a copy of an `admin.yaml` (mode 0600); `~/.config/stolos/contexts.yaml` says which
//! is current and in which namespace each works. Files are replaced whole, so that an interrupted write loses nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Operator, own_directory};
use crate::args::value;
use crate::failure::{C, Failure, Outcome};
use crate::output;

/// What `contexts.yaml` says.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
}

/// What is kept of one context beside its credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// Where verbs work when no namespace is typed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
}

/// Every context of this user.
pub(crate) struct Contexts {
    directory: PathBuf,
    index: Index,
}

impl Contexts {
    /// This user's.
    ///
    /// Errors: no home directory, or a `contexts.yaml` that cannot be read.
    pub(crate) fn load() -> Result<Self, Failure> {
        let directory = own_directory().ok_or_else(|| {
            Failure::new(
                C::CONFIG_MISSING,
                "there is no home directory to keep contexts in",
                "set HOME or XDG_CONFIG_HOME, or name a file with --config",
            )
        })?;
        Self::load_from(directory)
    }

    /// Those of a directory; none where it does not exist.
    pub(crate) fn load_from(directory: PathBuf) -> Result<Self, Failure> {
        let file = directory.join("contexts.yaml");
        let index = match fs::read_to_string(&file) {
            Ok(text) => serde_saphyr::from_str(&text).map_err(|_| {
                Failure::new(
                    C::CONFIG_BAD,
                    format!("{} is not a list of contexts", file.display()),
                    "mend it, or delete it and add the contexts again with `stolos context add`",
                )
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Index::default(),
            Err(error) => return Err(Failure::unreadable(&file, &error)),
        };
        Ok(Self { directory, index })
    }

    /// The current one's name.
    pub(crate) fn current(&self) -> Option<&str> {
        self.index.current.as_deref()
    }

    /// Names in order, with what is kept of each.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Context)> {
        self.index.contexts.iter().map(|(name, context)| (name.as_str(), context))
    }

    /// One by name; else a suggestion.
    pub(crate) fn named(&self, name: &str) -> Result<&Context, Failure> {
        self.index.contexts.get(name).ok_or_else(|| {
            let near = |known: &&String| strsim::damerau_levenshtein(known, name);
            let near = self.index.contexts.keys().min_by_key(near).filter(|known| near(known) <= 2);
            let mend = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`stolos context list` shows them; `stolos context add` makes one".to_owned(),
            };
            Failure::usage(C::CONTEXT_UNKNOWN, format!("there is no context `{name}`"), mend)
        })
    }

    /// Where a context's credentials are.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join("contexts").join(format!("{name}.yaml"))
    }

    /// Keeps a copy of an operator's configuration under a name, in place of what had that name.
    pub(crate) fn add(&mut self, name: &str, operator: &Operator, namespace: Option<String>) -> Outcome {
        value::name(name).map_err(|what| Failure::usage(C::USAGE, what, ""))?;
        write(&self.file(name), operator.admin.to_yaml().as_bytes())?;
        self.index.contexts.insert(name.to_owned(), Context { namespace });
        if self.index.current.is_none() {
            self.index.current = Some(name.to_owned());
        }
        self.save()
    }

    /// Makes one current; a namespace that is given becomes its own.
    pub(crate) fn select(&mut self, name: &str, namespace: Option<String>) -> Outcome {
        let mut context = self.named(name)?.clone();
        context.namespace = namespace.or(context.namespace);
        self.index.contexts.insert(name.to_owned(), context);
        self.index.current = Some(name.to_owned());
        self.save()
    }

    /// Forgets one, with its credentials. The current one's removal leaves none current.
    pub(crate) fn remove(&mut self, name: &str) -> Outcome {
        self.named(name)?;
        self.index.contexts.remove(name);
        if self.current() == Some(name) {
            self.index.current = None;
        }
        self.save()?;
        let file = self.file(name);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::unwritable(&file, &error)),
            _ => Ok(()),
        }
    }

    fn save(&self) -> Outcome {
        write(&self.directory.join("contexts.yaml"), output::yaml(&self.index).as_bytes())
    }
}

/// Replaces a file whole, readable by its owner only; its directory is made.
fn write(file: &Path, bytes: &[u8]) -> Outcome {
    let unwritable = |error: io::Error| Failure::unwritable(file, &error);
    let directory = file.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unwritable)?;
    let mut fresh = tempfile::NamedTempFile::new_in(directory).map_err(unwritable)?;
    fresh.write_all(bytes).and_then(|()| fresh.as_file().sync_all()).map_err(unwritable)?;
    fresh.persist(file).map(drop).map_err(|error| unwritable(error.error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use api::admin::AdminConfig;

    use super::*;

    fn operator() -> Operator {
        let admin = AdminConfig {
            server: "https://control.example.net:7443".into(),
            trust_domain: "example.net".into(),
            ca: "CA\n".into(),
            certificate: "CERTIFICATE\n".into(),
            key: "KEY\n".into(),
        };
        Operator { file: "admin.yaml".into(), admin, namespace: None }
    }

    #[test]
    fn contexts_are_kept_used_and_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let load = || Contexts::load_from(directory.path().to_owned()).unwrap();
        let mut contexts = load();
        assert!(contexts.current().is_none());
        contexts.add("prod", &operator(), Some("/acme".into())).unwrap();
        contexts.add("test", &operator(), None).unwrap();
        let mut contexts = load();
        assert_eq!(contexts.current(), Some("prod"), "the first one is current");
        assert_eq!(contexts.named("prod").unwrap().namespace.as_deref(), Some("/acme"));
        let mode = fs::metadata(contexts.file("prod")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(Operator::read(&contexts.file("prod")).unwrap().admin, operator().admin);
        contexts.select("test", Some("/b".into())).unwrap();
        contexts.select("test", None).unwrap();
        assert_eq!(load().named("test").unwrap().namespace.as_deref(), Some("/b"), "a namespace stays");
        contexts.remove("test").unwrap();
        assert_eq!((load().current(), load().file("test").exists()), (None, false));
    }

    #[test]
    fn an_unknown_context_gets_a_suggestion_and_a_bad_name_is_no_path() {
        let directory = tempfile::tempdir().unwrap();
        let mut contexts = Contexts::load_from(directory.path().to_owned()).unwrap();
        contexts.add("prod", &operator(), None).unwrap();
        let told = contexts.named("prdo").unwrap_err().to_string();
        assert!(told.contains("C6026") && told.contains("did you mean `prod`?"), "{told}");
        assert!(contexts.add("../x", &operator(), None).is_err());
        assert!(!directory.path().join("x.yaml").exists());
    }
}
