//! The runtime under the verbs that ask.

use std::future::Future;

use crate::failure::{C, Failure};

/// Runs `work` on this thread alone; for verbs that ask and answer.
pub(crate) fn ask<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_runtime)?.block_on(work)
}

fn no_runtime(error: std::io::Error) -> Failure {
    Failure::new(
        C::RESOURCES,
        format!("cannot start: {}", crate::failure::reason(&error)),
        "check the limits on processes and open files (`ulimit -a`)",
    )
}
