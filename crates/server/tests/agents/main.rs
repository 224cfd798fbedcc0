//! The server as agents see it: a real port, a real database, the real protocol.

mod enrolment;
mod explain;
mod hostile;
mod keys;
mod report;
mod state;
mod support;
