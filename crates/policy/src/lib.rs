//! Policy: attributes, selectors, policies, and the one evaluator.
//!
//! PURE: no sockets, files or clocks.

#![forbid(unsafe_code)]

pub mod reason;
