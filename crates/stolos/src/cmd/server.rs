//! `stolos server …`: set up and run the control plane.

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;

use server::config::{Config, ConfigError};
use server::init::{InitError, InitOptions, init};
use server::secret::SecretError;
use server::{BindError, Server, StoreError, StoreUrl, StoreUrlError};

use crate::args::{Output, ServerInit, ServerRun, ServerVerb};
use crate::failure::{C, Failure, Outcome, reason};
use crate::output::Screen;
use crate::process;

pub(crate) fn run(verb: ServerVerb) -> Outcome {
    match verb {
        ServerVerb::Init(args) => set_up(&args),
        ServerVerb::Run(args) => serve(&args),
    }
}

fn set_up(args: &ServerInit) -> Outcome {
    let options = options(args)?;
    let report = process::ask(async { init(&options).await.map_err(|error| init_failed(&error)) })?;
    let mut screen = Screen::stdout(Output::Table);
    match &args.seal_key {
        None => screen.line(format!("A control plane for {} in {}", args.trust_domain, report.data.display()))?,
        Some(_) => {
            screen.line(format!("One more server of the database's control plane in {}", report.data.display()))?
        }
    }
    screen.line(format!("  operators and nodes reach it at {}", report.url))?;
    screen.line(format!("  authority (SHA-256)            {}", report.authority))?;
    screen.line(format!(
        "  operator's credentials         {} (until {})",
        report.admin.display(),
        report.admin_not_after
    ))?;
    screen.line("\nNext:")?;
    screen.line(format!("  stolos server run --data {}", report.data.display()))?;
    screen
        .line(format!("  export STOLOS_CONFIG={}   # whoever has this file has all rights", report.admin.display()))?;
    screen.line("  stolos status")
}

/// What `init` is asked for. Without a name the address that is listened on serves, where it is one that can be dialled.
pub(crate) fn options(args: &ServerInit) -> Result<InitOptions, Failure> {
    let mut names = args.names.clone();
    if names.is_empty() {
        if args.listen.ip().is_unspecified() {
            return Err(Failure::usage(
                C::USAGE,
                format!("nodes cannot dial {}", args.listen.ip()),
                "say by which DNS name or address they reach this server, with --name",
            ));
        }
        names.push(args.listen.ip().to_string());
    }
    Ok(InitOptions {
        data: std::path::absolute(&args.data).unwrap_or_else(|_| args.data.clone()),
        trust_domain: args.trust_domain.clone(),
        listen: args.listen,
        names,
        admin: "admin".to_owned(),
        now: jiff::Timestamp::now(),
        store: args.store.clone(),
        seal_key: args.seal_key.clone(),
    })
}

pub(crate) fn init_failed(error: &InitError) -> Failure {
    match error {
        InitError::NotEmpty(data) => Failure::new(
            C::DIRECTORY_UNFIT,
            format!("{} is not empty, and a control plane is never overwritten", data.display()),
            "choose another directory with --data, or remove it",
        ),
        InitError::Initialised(_) => Failure::new(
            C::DIRECTORY_UNFIT,
            error.to_string(),
            "to set up one more server of it, give the first one's seal.key with --seal-key; nothing was made",
        ),
        InitError::NotInitialised(_) | InitError::NotShared => Failure::usage(
            C::USAGE,
            error.to_string(),
            "leave --seal-key away for the first server, and give the database with --store; nothing was made",
        ),
        InitError::StoreUrl(error) => bad_store(error),
        InitError::Secret(SecretError::Vault(_)) => Failure::new(
            C::DIRECTORY_UNFIT,
            chain(error),
            "give the seal.key of a server that uses this database, mode 0600; nothing was made",
        ),
        InitError::Store(error) if error.is_temporary() => no_database(error),
        InitError::Io(path, error) => Failure::unwritable(path, error),
        InitError::NoName | InitError::TrustDomain(..) | InitError::Issue(_) => {
            Failure::usage(C::USAGE, chain(error), "check --name and --trust-domain; nothing was made")
        }
        InitError::Seal(_) | InitError::Secret(_) | InitError::Store(_) | InitError::Write(_) => Failure::new(
            C::DIRECTORY_UNFIT,
            chain(error),
            "remove what was left in the directory, and check its room and rights",
        ),
    }
}

fn serve(args: &ServerRun) -> Outcome {
    process::start_log("info")?;
    process::serve(async {
        let stop = process::stop_on_signal()?;
        let store = args.store.as_deref().map(str::parse::<StoreUrl>).transpose().map_err(|error| bad_store(&error))?;
        let config = Config { store, listen: args.listen, ..Config::new(&args.data) };
        let bound = Server::bind(config).await.map_err(|error| bind_failed(&error, &args.data))?;
        bound.run(stop).await;
        Ok(())
    })
}

pub(crate) fn bind_failed(error: &BindError, data: &Path) -> Failure {
    match error {
        BindError::Config(ConfigError::NotInitialised(data)) => Failure::new(
            C::DIRECTORY_UNFIT,
            format!("{} holds no server", data.display()),
            format!("run `stolos server init --data {}` first", data.display()),
        ),
        BindError::Config(ConfigError::Io(path, error)) => Failure::unreadable(path, error),
        BindError::Listen(address, error) => cannot_listen(*address, &reason(error)),
        BindError::Config(ConfigError::Invalid { .. }) | BindError::TrustDomain(..) => {
            Failure::new(C::DIRECTORY_UNFIT, chain(error), "mend server.yaml and start again")
        }
        BindError::StoreUrl(error) => bad_store(error),
        BindError::Store(error) if error.is_temporary() => no_database(error),
        BindError::Busy(_) => Failure::new(
            C::DIRECTORY_UNFIT,
            error.to_string(),
            "stop that one first; several servers share a PostgreSQL, never a file",
        ),
        BindError::Lock(path, error) => Failure::unwritable(path, error),
        BindError::Secret(SecretError::Vault(_)) => Failure::new(
            C::DIRECTORY_UNFIT,
            chain(error),
            "put back the seal.key that belongs to this database, mode 0600; nothing was changed",
        ),
        BindError::Store(_) | BindError::Secret(_) | BindError::Tls(_) | BindError::Registry(_) => Failure::new(
            C::DIRECTORY_UNFIT,
            format!("{}: {}", data.display(), chain(error)),
            "check that no other server runs on this directory, its rights and its room; nothing was changed",
        ),
    }
}

/// The URL is never shown: it may hold a password.
fn bad_store(error: &StoreUrlError) -> Failure {
    Failure::usage(C::USAGE, error.to_string(), "write for example --store postgres://stolos@db.example.net/stolos")
}

fn no_database(error: &StoreError) -> Failure {
    Failure::new(
        C::DIRECTORY_UNFIT,
        chain(error),
        "check that the database runs and that the URL, the user and the password are right; nothing was changed",
    )
}

fn cannot_listen(address: SocketAddr, why: &str) -> Failure {
    Failure::new(
        C::ADDRESS_TAKEN,
        format!("cannot listen on {address}: {why}"),
        "stop the other process, or choose another address with --listen",
    )
}

/// An error with its causes, on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(listen: &str, names: &[&str]) -> ServerInit {
        ServerInit {
            data: "/data".into(),
            listen: listen.parse().unwrap(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            trust_domain: "example.net".into(),
            store: None,
            seal_key: None,
        }
    }

    #[test]
    fn without_a_name_the_address_serves_where_it_can_be_dialled() {
        assert_eq!(options(&typed("10.0.0.1:7443", &[])).unwrap().names, ["10.0.0.1"]);
        assert_eq!(options(&typed("[::]:7443", &["control"])).unwrap().names, ["control"]);
        assert!(options(&typed("0.0.0.0:7443", &[])).unwrap_err().to_string().contains("--name"));
    }
}
