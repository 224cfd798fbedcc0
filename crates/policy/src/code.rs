//! The table of stable codes: what each means and what to do, printed by `stolos explain code`.
//!
//! One file per range, so that every layer keeps its rows beside its words: `P1xxx` verdict reasons, `P2xxx`
//! manifests and policies, `A3xxx` API, `E4xxx` enrolment and Sync, `K5xxx` agent, kernel and doctor, `C6xxx` CLI.

pub mod agent;
pub mod api;
pub mod cli;
pub mod enrolment;
pub mod manifest;
pub mod verdict;

/// One stable code. Ids are never reused for another meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code {
    /// `P1002`: a letter for the layer and four digits.
    pub id: &'static str,
    /// A few words, no full stop.
    pub title: &'static str,
    /// What happened, in one to three sentences.
    pub meaning: &'static str,
    /// What to do about it.
    pub mend: &'static str,
}

/// The ranges, one row a layer.
const RANGES: &[&[Code]] = &[verdict::ALL, manifest::ALL, api::ALL, enrolment::ALL, agent::ALL, cli::ALL];

/// Every code, in the order of the ids.
pub fn all() -> impl Iterator<Item = &'static Code> {
    RANGES.iter().copied().flatten()
}

/// Looks a code up by its id, in any letter case.
pub fn find(id: &str) -> Option<&'static Code> {
    all().find(|code| code.id.eq_ignore_ascii_case(id))
}

/// The id a user may have meant.
pub fn suggest(id: &str) -> Option<&'static Code> {
    let id = id.to_ascii_uppercase();
    let near = |code: &&'static Code| strsim::damerau_levenshtein(code.id, &id);
    all().min_by_key(near).filter(|code| near(code) <= 2)
}

/// Declares the codes of one range: a constant for each, and `ALL`.
///
/// `codes! { NAME = "P2001", "title", "meaning", "mend"; … }`
macro_rules! codes {
    ($($name:ident = $id:literal, $title:literal, $meaning:literal, $mend:literal;)*) => {
        $(
            #[doc = concat!("`", $id, "`: ", $title, ".")]
            pub const $name: $crate::code::Code =
                $crate::code::Code { id: $id, title: $title, meaning: $meaning, mend: $mend };
        )*

        /// Every code of this range, in the order of the ids.
        pub const ALL: &[$crate::code::Code] = &[$($name,)*];
    };
}
pub(crate) use codes;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    #[test]
    fn every_reason_has_a_page() {
        for reason in Reason::ALL {
            assert!(find(reason.code()).is_some(), "{} ({}) has no page", reason.code(), reason.label());
        }
        assert_eq!(verdict::ALL.len(), Reason::ALL.len(), "a page without a reason");
    }

    #[test]
    fn ids_are_unique_ordered_and_well_formed() {
        for range in RANGES {
            assert!(range.windows(2).all(|pair| pair[0].id < pair[1].id), "order: {range:?}");
        }
        for code in all() {
            let (letter, digits) = code.id.split_at(1);
            assert!(letter.bytes().all(|b| b.is_ascii_uppercase()), "{}", code.id);
            assert!(digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit()), "{}", code.id);
            assert!(!code.title.ends_with('.') && !code.title.is_empty(), "{}", code.id);
            assert!(code.meaning.ends_with('.') && code.mend.ends_with('.'), "{}", code.id);
        }
    }

    #[test]
    fn a_slip_of_the_finger_finds_its_code() {
        assert_eq!(find("p1002").unwrap().title, "no policy allows it");
        assert_eq!(suggest("P1O02").unwrap().id, "P1002");
        assert_eq!(suggest("hello"), None);
    }
}
