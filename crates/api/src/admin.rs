//! An operator's credentials: the file `admin.yaml` that `stolos server init` writes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How to reach a server, how to know it, and how to be known by it. `Debug` does not show the key.
///
/// Shape: YAML, mode 0600. All three PEM texts are of this trust domain.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdminConfig {
    /// `https://host:port`.
    pub server: String,
    /// The trust domain's name.
    pub trust_domain: String,
    /// The authority's certificate, PEM: the only one that the server is trusted by.
    pub ca: String,
    /// The operator's certificate, PEM.
    pub certificate: String,
    /// The operator's private key, PEM.
    pub key: String,
}

/// Why a file is no admin configuration. Never shows any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminConfigError {
    /// Not YAML, or another file.
    #[error("this is not the admin.yaml that `stolos server init` writes")]
    Unreadable,
    /// The server is no https URL.
    #[error("the server's URL does not begin with https://")]
    NotHttps,
}

impl AdminConfig {
    /// Reads the text of the file.
    pub fn parse(text: &str) -> Result<Self, AdminConfigError> {
        // The parser's own message may quote the file, and with it the key.
        let config: Self = serde_saphyr::from_str(text).map_err(|_| AdminConfigError::Unreadable)?;
        if !config.server.starts_with("https://") {
            return Err(AdminConfigError::NotHttps);
        }
        Ok(config)
    }

    /// The text of the file.
    pub fn to_yaml(&self) -> String {
        let mut text = String::from("# Whoever has this file has all rights. Keep it secret.\n");
        for (key, value) in [("server", &self.server), ("trustDomain", &self.trust_domain)] {
            text.push_str(&format!("{key}: {}\n", serde_json::Value::from(value.as_str())));
        }
        for (key, pem) in [("ca", &self.ca), ("certificate", &self.certificate), ("key", &self.key)] {
            text.push_str(&format!("{key}: |\n"));
            for line in pem.lines() {
                text.push_str(&format!("  {line}\n"));
            }
        }
        text
    }
}

impl fmt::Debug for AdminConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminConfig").field("server", &self.server).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_reads_back_and_is_not_shown() {
        let config = AdminConfig {
            server: "https://[fd00::1]:7443".into(),
            trust_domain: "example.org".into(),
            ca: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
            certificate: "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n".into(),
            key: "-----BEGIN PRIVATE KEY-----\nCCCC\n-----END PRIVATE KEY-----\n".into(),
        };
        assert_eq!(AdminConfig::parse(&config.to_yaml()), Ok(config.clone()));
        assert!(!format!("{config:?}").contains("CCCC"));
        assert_eq!(AdminConfig::parse("key: CCCC"), Err(AdminConfigError::Unreadable));
    }
}
