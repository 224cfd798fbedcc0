//! Reads an answer of the agent: the value, or its refusal as a [`Failure`].

use api::local::Refusal;
use reqwest::Response;
use serde::de::DeserializeOwned;

use crate::failure::{C, Failure};
use crate::output::printable;

/// Longest piece of a stranger's text that a message quotes, in characters.
const QUOTE_MAX: usize = 200;

/// The value of a good answer; a problem with its own code and sentence; else that `who` is not understood.
pub(crate) async fn read<T: DeserializeOwned>(response: Response, who: &str) -> Result<T, Failure> {
    let status = response.status();
    let body = response.bytes().await.map_err(|_| strange(who, "the answer broke off"))?;
    if status.is_success() {
        // An answer without a body is `null`.
        let body: &[u8] = if body.is_empty() { b"null" } else { &body };
        return serde_json::from_slice(body).map_err(|error| strange(who, &error.to_string()));
    }
    if let Ok(refusal) = serde_json::from_slice::<Refusal>(&body) {
        let what = printable(refusal.message.trim_end_matches('.'));
        return Err(Failure::new(&refusal.code, what, printable(&refusal.mend)));
    }
    Err(strange(who, &format!("{status}: {}", String::from_utf8_lossy(&body))))
}

fn strange(who: &str, what: &str) -> Failure {
    let what: String = printable(what).chars().take(QUOTE_MAX).collect();
    Failure::new(
        C::ANSWER_STRANGE,
        format!("{who} answered with something this version does not understand ({what})"),
        "compare `stolos version` here and there; the two are probably of different versions",
    )
}
