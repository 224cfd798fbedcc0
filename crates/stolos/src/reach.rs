//! Why the server could not be reached, as a sentence: the error chain of the HTTP client is read for the TLS or socket
//! error at its bottom, because that is what a person can mend.

use std::error::Error;
use std::io;
use std::path::Path;

use rustls::{AlertDescription, CertificateError};

use crate::failure::{C, Failure, reason};

/// The failure for a request to `server` that got no answer. `config` is where the address came from.
pub(crate) fn failure(error: &(dyn Error + 'static), server: &str, config: &Path) -> Failure {
    if let Some(tls) = tls_error(error) {
        return from_tls(tls, server, config);
    }
    let mut timeout = false;
    for cause in chain(error) {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            if io.raw_os_error().is_some() {
                return silent(server, config, &reason(io));
            }
            timeout |= io.kind() == io::ErrorKind::TimedOut;
        }
        timeout |= cause.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout);
    }
    let bottom = chain(error).last().map(ToString::to_string).unwrap_or_default();
    silent(server, config, if timeout { "no answer in time" } else { &bottom })
}

/// The TLS error at the bottom. An I/O error says what caused its inner error, and not that the inner one did it, so
/// inner ones are looked into, however deep.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    chain(error).find_map(|cause| {
        let inner = || cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause.downcast_ref::<rustls::Error>().or_else(|| tls_error(inner()?))
    })
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

fn silent(server: &str, config: &Path, why: &str) -> Failure {
    Failure::new(
        C::SERVER_UNREACHABLE,
        format!("the server at {server} does not answer ({why})"),
        format!("check that `stolos server run` runs there, and the address in {}", config.display()),
    )
}

fn from_tls(error: &rustls::Error, server: &str, config: &Path) -> Failure {
    use CertificateError as E;
    match error {
        rustls::Error::InvalidCertificate(E::NotValidYet | E::NotValidYetContext { .. }) => Failure::new(
            C::CLOCK_SKEW,
            format!("the certificate of {server} begins in the future, so this machine's clock is behind"),
            format!("it is {} here; set the clock (`timedatectl set-ntp true`)", now()),
        ),
        rustls::Error::InvalidCertificate(E::Expired | E::ExpiredContext { .. }) => Failure::new(
            C::CLOCK_SKEW,
            format!("the certificate of {server} has ended, or this machine's clock is ahead"),
            format!("it is {} here; if that is right, the server needs a new certificate", now()),
        ),
        rustls::Error::InvalidCertificate(E::NotValidForName | E::NotValidForNameContext { .. }) => Failure::new(
            C::SERVER_UNTRUSTED,
            format!("the certificate of {server} is for another name"),
            format!("use a name that `stolos server init --name` was given, in {}", config.display()),
        ),
        rustls::Error::InvalidCertificate(_) => Failure::new(
            C::SERVER_UNTRUSTED,
            format!(
                "{server} is not the server that {} knows: another authority signed its certificate",
                config.display()
            ),
            "if the server was set up anew, use its new admin.yaml; otherwise find out who answers there",
        ),
        rustls::Error::AlertReceived(alert) => refused(*alert, server, config),
        other => silent(server, config, &format!("TLS: {other}")),
    }
}

fn refused(alert: AlertDescription, server: &str, config: &Path) -> Failure {
    let why = match alert {
        AlertDescription::CertificateExpired => "it has ended, or the clocks differ",
        AlertDescription::UnknownCA | AlertDescription::DecryptError => "another authority signed it",
        AlertDescription::CertificateRevoked => "it is revoked",
        AlertDescription::CertificateRequired => "there is none",
        _ => "the server does not say why",
    };
    Failure::new(
        C::CREDENTIAL_REFUSED,
        format!("the server at {server} refuses the certificate in {}: {why}", config.display()),
        format!("use the admin.yaml of this server; it is {} here", now()),
    )
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("request failed")]
    struct Outer(#[source] io::Error);

    fn told(error: &(dyn Error + 'static)) -> String {
        failure(error, "https://control:7443", Path::new("/etc/admin.yaml")).to_string()
    }

    fn tls(error: CertificateError) -> String {
        told(&Outer(io::Error::new(io::ErrorKind::InvalidData, rustls::Error::InvalidCertificate(error))))
    }

    #[test]
    fn each_way_of_not_reaching_the_server_has_its_sentence() {
        let refused = told(&Outer(io::Error::from_raw_os_error(111)));
        assert!(refused.starts_with("error[C6004]") && refused.contains("(connection refused)"), "{refused}");
        let authority = tls(CertificateError::UnknownIssuer);
        assert!(authority.starts_with("error[C6005]") && authority.contains("another authority"), "{authority}");
        let name = tls(CertificateError::NotValidForName);
        assert!(name.starts_with("error[C6005]") && name.contains("another name"), "{name}");
        let nested = rustls::Error::InvalidCertificate(CertificateError::Expired);
        let nested = told(&Outer(io::Error::other(io::Error::new(io::ErrorKind::InvalidData, nested))));
        assert!(nested.starts_with("error[C6007]"), "{nested}");
        let early = tls(CertificateError::NotValidYet);
        assert!(early.starts_with("error[C6007]") && early.contains("is behind"), "{early}");
        let late = tls(CertificateError::Expired);
        assert!(late.starts_with("error[C6007]") && late.contains("is ahead"), "{late}");
        let alert = rustls::Error::AlertReceived(AlertDescription::UnknownCA);
        let credential = told(&Outer(io::Error::new(io::ErrorKind::InvalidData, alert)));
        assert!(credential.starts_with("error[C6006]") && credential.contains("admin.yaml"), "{credential}");
        let other = told(&Outer(io::Error::other("dns error")));
        assert!(other.starts_with("error[C6004]") && other.contains("dns error"), "{other}");
    }
}
