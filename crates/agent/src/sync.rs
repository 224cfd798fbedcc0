//! The way to the server: enrolment, the Sync stream, and questions to it.
//!
//! Owns connections and their back-off, and no state: what arrives is handed to the node, what the node says is sent.

pub mod credential;
pub mod enrol;
pub mod link;
pub mod pull;
mod tls;

pub(crate) use self::tls::chain;
