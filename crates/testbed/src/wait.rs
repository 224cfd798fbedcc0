//! Waiting on a predicate with a limit: the only way anything here waits.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks at a predicate.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Between two runs of a program that is asked.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Set where a machine is slow and not wrong, as one emulated by software is: a whole number that limits are multiplied by.
const PATIENCE: &str = "STOLOS_TEST_PATIENCE";

/// How long a limit is here: as it is, unless `STOLOS_TEST_PATIENCE` stretches it. The product's timers do not know of it.
pub fn patient(limit: Duration) -> Duration {
    let times = std::env::var(PATIENCE).ok().and_then(|times| times.parse().ok());
    limit * times.unwrap_or(1_u32).max(1)
}

/// Waits until `ready` gives `Some`, and returns it.
///
/// Errors: `limit` passed; the text names `what` was waited for.
pub fn until<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
    until_ok(what, limit, || Ok(ready()))
}

/// As [`until`], for predicates that can fail for good: their error ends the wait.
pub fn until_ok<T>(what: &str, limit: Duration, ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    look(what, limit, LOOK_EVERY, ready)
}

/// Waits until something costly to ask (a program's run) succeeds; its last error is part of the wait's.
pub fn until_succeeds<T>(what: &str, limit: Duration, ask: impl FnMut() -> Result<T>) -> Result<T> {
    until_succeeds_while(what, limit, || Ok(()), ask)
}

/// As [`until_succeeds`], as long as `alive` holds: its error ends the wait.
pub fn until_succeeds_while<T>(
    what: &str,
    limit: Duration,
    mut alive: impl FnMut() -> Result<()>,
    mut ask: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut last = None;
    let waited = look(what, limit, ASK_EVERY, || {
        alive()?;
        match ask() {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                last = Some(error);
                Ok(None)
            }
        }
    });
    match (waited, last) {
        (Err(error), Some(last)) => Err(last.context(error)),
        (waited, _) => waited,
    }
}

fn look<T>(what: &str, limit: Duration, every: Duration, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    let limit = patient(limit);
    loop {
        if let Some(value) = ready()? {
            return Ok(value);
        }
        if start.elapsed() >= limit {
            bail!("waited {limit:?} in vain for {what}");
        }
        std::thread::sleep(every);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_in_vain_names_what_was_waited_for() {
        let error = until::<()>("the moon", Duration::from_millis(1), || None).unwrap_err();
        assert!(error.to_string().contains("the moon"), "{error}");
    }
}
