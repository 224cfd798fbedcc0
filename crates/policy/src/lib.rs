//! Policy: attributes, selectors, policies, and the one evaluator.
//!
//! PURE: no sockets, files or clocks. Start reading at [`rules::RuleSet`]: policies go in, verdicts come out. A manifest
//! becomes a [`policy::Policy`] in [`manifest`]; [`explain::explain`] says why a verdict is what it is.

#![forbid(unsafe_code)]

pub mod attribute;
pub mod code;
pub mod compile;
pub mod decide;
pub mod diagnostic;
pub mod explain;
pub mod manifest;
pub mod namespace;
pub mod policy;
pub mod port;
pub mod posture;
pub mod reason;
pub mod rules;
pub mod selector;
pub mod syntax;
