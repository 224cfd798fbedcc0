//! Continue tokens: where the next page of a list begins, which list that is, and the revision that a watch starts from.
//!
//! A token holds no state of the server's, so that any replica takes it. It ends when a watch from its revision would
//! miss changes: then nobody could say what changed between the pages.

use api::kind::Kind;
use api::object::{Object, Revision};
use api::problem;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::fingerprint::Fingerprint;
use store::document::Filter;
use store::page::Page;

use super::answer::{Answer, Refused};

/// Longest token that is looked at.
const LEN_MAX: usize = 2048;
/// Digits of the digest in a token.
const DIGEST_LEN: usize = 32;

/// A place in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The first page's revision.
    pub(super) revision: Revision,
    /// Namespace and name of the last object that was given out.
    pub(super) after: (String, String),
}

impl Place {
    /// The place behind a page, if there is more.
    pub(super) fn behind(page: &Page, first: Revision) -> Option<Self> {
        let last: &Object = page.objects.last().filter(|_| page.more)?;
        Some(Self { revision: first, after: (last.metadata.namespace.clone(), last.metadata.name.clone()) })
    }

    /// The token's text: a digest of all of it and of the list's question, then what it says.
    pub(super) fn token(&self, kind: &Kind, filter: &Filter) -> String {
        let content = format!("{}\n{}\n{}", self.revision, self.after.0, self.after.1);
        URL_SAFE_NO_PAD.encode(format!("{}\n{content}", digest(kind, filter, &content)))
    }

    /// Reads a token of this very list.
    pub(super) fn of(token: &str, kind: &Kind, filter: &Filter) -> Answer<Self> {
        read(token, kind, filter).ok_or_else(|| {
            let detail = "`continue` is no token of this list: send the last page's as it came, with the same namespace, \
                          subtree and labelSelector, or list from the beginning";
            Refused::new(problem::CONTINUE_UNKNOWN, detail)
        })
    }

    /// Whether a watch from the first page's revision would miss nothing.
    pub(super) fn check(&self, page: &Page) -> Answer<()> {
        if (page.floor..=page.revision).contains(&self.revision) {
            return Ok(());
        }
        let detail = format!(
            "`continue` is of revision {}, and changes are kept from {} to {}; list from the beginning",
            self.revision, page.floor, page.revision
        );
        Err(Refused::new(problem::CONTINUE_EXPIRED, detail))
    }
}

fn read(token: &str, kind: &Kind, filter: &Filter) -> Option<Place> {
    if token.len() > LEN_MAX {
        return None;
    }
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let (given, content) = text.split_once('\n')?;
    if given != digest(kind, filter, content) {
        return None;
    }
    let mut parts = content.splitn(3, '\n');
    let revision = Revision(parts.next()?.parse().ok()?);
    Some(Place { revision, after: (parts.next()?.to_owned(), parts.next()?.to_owned()) })
}

/// Finds slips, not forgers: whoever makes up a token says no more with it than with any other question.
fn digest(kind: &Kind, filter: &Filter, content: &str) -> String {
    let Filter { namespace, subtree, labels, .. } = filter;
    let text = format!("{}\n{namespace:?}\n{subtree}\n{labels:?}\n{content}", kind.name);
    Fingerprint::of(text.as_bytes()).to_string().chars().take(DIGEST_LEN).collect()
}

#[cfg(test)]
mod tests {
    use api::kind;

    use super::*;

    #[test]
    fn a_token_is_of_one_list_and_cannot_be_bent() {
        let (policy, service) = (kind::find("policy").unwrap(), kind::find("service").unwrap());
        let filter = Filter { namespace: Some("/a".into()), ..Filter::default() };
        let place = Place { revision: Revision(7), after: ("/a".into(), "x".into()) };
        let token = place.token(policy, &filter);
        assert_eq!(Place::of(&token, policy, &filter), Ok(place));
        let unknown = |token: &str, kind, filter: &Filter| {
            assert_eq!(Place::of(token, kind, filter).unwrap_err().0.code, problem::CONTINUE_UNKNOWN.code, "{token}");
        };
        unknown(&token, service, &filter);
        unknown(&token, policy, &Filter::default());
        unknown(&token[1..], policy, &filter);
        unknown("hello", policy, &filter);
        unknown("", policy, &filter);
        unknown(&"A".repeat(LEN_MAX + 1), policy, &filter);
    }

    #[test]
    fn a_token_ends_when_a_watch_would_miss_changes() {
        let page = Page { objects: Vec::new(), more: false, revision: Revision(9), floor: Revision(5) };
        let place = |revision| Place { revision: Revision(revision), after: Default::default() };
        for (revision, holds) in [(4, false), (5, true), (9, true), (10, false)] {
            assert_eq!(place(revision).check(&page).is_ok(), holds, "{revision}");
        }
    }
}
