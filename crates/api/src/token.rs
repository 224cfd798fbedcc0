//! Join tokens: how a new node finds and trusts its server, and proves that it may join.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::fingerprint::Fingerprint;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How every join token begins.
pub const PREFIX: &str = "stolos-join-1.";
/// Longest text that is looked at.
pub const LEN_MAX: usize = 2048;

/// A join token. `Debug` never shows the secret; `Display` is the token itself.
///
/// Shape: `stolos-join-1.` and base64url of `{"server":"https://…","ca":"64 hex digits","secret":"…"}`.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The server's URL.
    pub server: String,
    /// SHA-256 of the certificate of the server's authority.
    pub ca: Fingerprint,
    /// What the server trades for a certificate; used up by the first success.
    pub secret: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    server: String,
    ca: String,
    secret: String,
}

/// Why a text is no join token. Never shows any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It begins differently.
    #[error("a join token begins with `{PREFIX}`; make one with `stolos cluster join-token CLUSTER`")]
    NotAToken,
    /// The rest cannot be read.
    #[error("the join token is damaged or cut off; copy the whole line")]
    Damaged,
    /// The server is no https URL.
    #[error("the join token names a server without https")]
    NotHttps,
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let rest = text.trim().strip_prefix(PREFIX).ok_or(TokenError::NotAToken)?;
        if rest.len() > LEN_MAX {
            return Err(TokenError::Damaged);
        }
        let json = URL_SAFE_NO_PAD.decode(rest).map_err(|_| TokenError::Damaged)?;
        let fields: Fields = serde_json::from_slice(&json).map_err(|_| TokenError::Damaged)?;
        if !fields.server.starts_with("https://") {
            return Err(TokenError::NotHttps);
        }
        let ca = fields.ca.parse().map_err(|_| TokenError::Damaged)?;
        Ok(Self { server: fields.server, ca, secret: fields.secret })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = Fields { server: self.server.clone(), ca: self.ca.to_string(), secret: self.secret.clone() };
        let json = serde_json::to_vec(&fields).map_err(|_| fmt::Error)?;
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("server", &self.server).field("ca", &self.ca).finish_non_exhaustive()
    }
}

/// What a client sends to `POST …/clusters/{name}/join-tokens`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinTokenRequest {
    /// How long it can be used, in seconds: 60..=604800; absent means one hour.
    #[serde(default, deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 604_800))]
    pub ttl_s: Option<u64>,
    /// The name that the node gets; absent means the node's own host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = crate::object::NAME_PATTERN))]
    pub node: Option<String>,
}

/// A whole number in any of JSON's forms: `60.0` is one.
fn whole<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<Option<u64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(reader)? else { return Ok(None) };
    let exact = |number: f64| (number.fract() == 0.0 && (0.0..1e15).contains(&number)).then_some(number as u64);
    let found = number.as_u64().or_else(|| number.as_f64().and_then(exact));
    found.map(Some).ok_or_else(|| serde::de::Error::custom(format!("{number} is no whole number from 0")))
}

/// The answer. The token is shown once and stored only as a hash. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JoinTokenResponse {
    /// The token as text.
    pub token: String,
    /// The cluster that it opens.
    pub cluster: String,
    /// Until when it can be used.
    #[schemars(with = "crate::object::TimeText")]
    pub expires: jiff::Timestamp,
}

impl fmt::Debug for JoinTokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("JoinTokenResponse");
        shown.field("cluster", &self.cluster).field("expires", &self.expires).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_is_one_in_any_form() {
        let read = |text: &str| serde_json::from_str::<JoinTokenRequest>(text).map(|request| request.ttl_s).ok();
        assert_eq!(read(r#"{"ttlS": 60.0}"#), Some(Some(60)));
        assert_eq!(read(r#"{"ttlS": null}"#), Some(None));
        assert_eq!(read("{}"), Some(None));
        for bad in [r#"{"ttlS": 60.5}"#, r#"{"ttlS": -1}"#, r#"{"ttlS": "60"}"#, r#"{"ttlS": 1e30}"#] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn tokens_print_and_parse() {
        let token = JoinToken {
            server: "https://stolos.example:7443".into(),
            ca: Fingerprint::of(b"certificate"),
            secret: "s3cret".into(),
        };
        let text = token.to_string();
        assert_eq!(text.parse::<JoinToken>(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains("s3cret"));
        assert_eq!(text[..text.len() - 3].parse::<JoinToken>(), Err(TokenError::Damaged));
        assert_eq!("hello".parse::<JoinToken>(), Err(TokenError::NotAToken));
        let plain = JoinToken { server: "http://x".into(), ..token };
        assert_eq!(plain.to_string().parse::<JoinToken>(), Err(TokenError::NotHttps));
    }
}
