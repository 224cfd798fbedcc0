//! Leases: jobs that only one of all processes may do at a time.
//!
//! A lease is a row with a holder, an expiry by the *database's* clock and a fencing number that grows with every change
//! of holder. The holder counts the time from before it asked, by its own monotonic clock, so that it stops before the
//! database would give the lease to another. What must not happen twice even if a holder sleeps through its expiry is
//! written in a transaction that calls [`Transaction::hold`].

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::{debug, info, warn};

use crate::sql::{Link, Value, answered};
use crate::{Engine, Store, StoreError, Transaction};

/// A lease is renewed after this part of its time.
const RENEW_PART: u32 = 3;

/// A lease that this process holds, as long as [`Lease::until`] is not past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    name: String,
    holder: String,
    fence: i64,
    until: Instant,
}

impl Lease {
    /// What it is for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Grows with every change of holder.
    pub fn fence(&self) -> i64 {
        self.fence
    }

    /// When it ends unless it is renewed.
    pub fn until(&self) -> Instant {
        self.until
    }
}

/// Why a transaction must not go on.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Another process holds it now, or nobody.
    #[error("the lease `{0}` is another process's now")]
    Lost(String),
    /// The database failed.
    #[error("the database failed")]
    Store(#[from] StoreError),
}

/// Statements for both engines, which tell the time differently.
macro_rules! statements {
    ($take:ident, $hold:ident, $held:ident, $now:literal) => {
        const $take: &str = concat!(
            "INSERT INTO leases (name, holder, fence, expires) VALUES ($1, $2, 1, ",
            $now,
            " + $3)
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires = excluded.expires,
                 fence = CASE WHEN leases.holder = excluded.holder THEN leases.fence ELSE leases.fence + 1 END
             WHERE leases.holder = excluded.holder OR leases.expires <= ",
            $now,
            " RETURNING fence"
        );
        // Changes nothing, and holds the row.
        const $hold: &str = concat!(
            "UPDATE leases SET fence = fence WHERE name = $1 AND holder = $2 AND fence = $3 AND expires > ",
            $now
        );
        const $held: &str = concat!("SELECT holder FROM leases WHERE name = $1 AND expires > ", $now);
    };
}
statements!(TAKE_SQLITE, HOLD_SQLITE, HELD_SQLITE, "CAST(unixepoch('subsec') * 1000 AS INTEGER)");
statements!(
    TAKE_POSTGRES,
    HOLD_POSTGRES,
    HELD_POSTGRES,
    "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"
);

impl Store {
    /// Takes or renews a lease for `holder`, a name that no other process has. `None`: another one holds it.
    pub async fn lease(&self, name: &str, holder: &str, time: Duration) -> Result<Option<Lease>, StoreError> {
        let until = Instant::now() + time;
        let time_ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 2);
        let values = [Value::Text(name), Value::Text(holder), Value::Int(time_ms)];
        let row = match &self.inner.engine {
            Engine::Sqlite(pools) => {
                let mut connection = pools.writer.acquire().await?;
                Link::Sqlite(&mut connection).optional(TAKE_SQLITE, &values).await?
            }
            Engine::Postgres(database) => {
                let mut connection = answered(database.pools().readers.acquire()).await?;
                Link::Postgres(&mut connection).optional(TAKE_POSTGRES, &values).await?
            }
        };
        let lease = |fence| Lease { name: name.to_owned(), holder: holder.to_owned(), fence, until };
        Ok(row.map(|row| lease(row.int(0))))
    }

    /// Who holds a lease now. Only reads, so that whoever waits for it may ask often.
    pub async fn holder(&self, name: &str) -> Result<Option<String>, StoreError> {
        let held = match &self.inner.engine {
            Engine::Sqlite(_) => HELD_SQLITE,
            Engine::Postgres(_) => HELD_POSTGRES,
        };
        let row = self.reader().await?.link().optional(held, &[Value::Text(name)]).await?;
        Ok(row.map(|row| row.text(0).to_owned()))
    }

    /// Gives a lease back, so that nobody has to wait for its end.
    pub async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        let sql = "UPDATE leases SET expires = 0 WHERE name = $1 AND holder = $2 AND fence = $3";
        let values = [Value::Text(&lease.name), Value::Text(&lease.holder), Value::Int(lease.fence)];
        match &self.inner.engine {
            Engine::Sqlite(pools) => Link::Sqlite(&mut *pools.writer.acquire().await?).execute(sql, &values).await?,
            Engine::Postgres(database) => {
                let mut connection = answered(database.pools().readers.acquire()).await?;
                Link::Postgres(&mut connection).execute(sql, &values).await?
            }
        };
        Ok(())
    }

    /// Runs `job` whenever this process holds the lease, again and again, until the future is dropped. The job is
    /// dropped, wherever it waits, when the lease cannot be renewed in time.
    pub async fn while_leased<F: Future<Output = ()>>(
        &self,
        name: &str,
        holder: &str,
        time: Duration,
        job: impl Fn(Lease) -> F,
    ) {
        loop {
            match self.lease(name, holder, time).await {
                Ok(Some(lease)) => {
                    info!(lease = name, fence = lease.fence, "lease taken");
                    self.tenure(lease.clone(), time, job(lease)).await;
                }
                Ok(None) => debug!(lease = name, "another process holds the lease"),
                Err(cause) => warn!(lease = name, error = &cause as &dyn std::error::Error, "no lease"),
            }
            sleep(time / RENEW_PART).await;
        }
    }

    /// One tenure: runs `job` and renews the lease until the job ends, which gives the lease back, or the lease does,
    /// which drops the job wherever it waits.
    pub async fn tenure(&self, mut lease: Lease, time: Duration, job: impl Future<Output = ()>) {
        let mut job = std::pin::pin!(job);
        loop {
            let renew = lease.until - time + time / RENEW_PART;
            tokio::select! {
                () = &mut job => {
                    let _ = self.release(lease).await;
                    return;
                }
                () = sleep_until(renew) => {}
            }
            // The job goes on while the lease is renewed, and not a moment longer than it is ours.
            let asked = lease.clone();
            let mut renewal = std::pin::pin!(timeout_at(asked.until, self.renew(&asked, time)));
            let (renewed, ended) = tokio::select! {
                // Not given back under a renewal that is on its way.
                () = &mut job => (renewal.await, true),
                renewed = &mut renewal => (renewed, false),
            };
            let Ok(Some(renewed)) = renewed else {
                warn!(lease = lease.name, fence = lease.fence, "lease lost: its job stops");
                return;
            };
            lease = renewed;
            if ended {
                let _ = self.release(lease).await;
                return;
            }
        }
    }

    /// Asks until the answer is clear.
    async fn renew(&self, lease: &Lease, time: Duration) -> Option<Lease> {
        loop {
            match self.lease(&lease.name, &lease.holder, time).await {
                Ok(renewed) => return renewed.filter(|renewed| renewed.fence == lease.fence),
                Err(cause) => {
                    debug!(
                        lease = lease.name,
                        error = &cause as &dyn std::error::Error,
                        "the lease is not renewed yet"
                    );
                    sleep(time / (RENEW_PART * 4)).await;
                }
            }
        }
    }
}

impl Transaction {
    /// Makes sure that the lease is still ours, until this transaction ends: whoever wants to take it waits so long.
    pub async fn hold(&mut self, lease: &Lease) -> Result<(), HoldError> {
        let now = match &self.store.inner.engine {
            Engine::Sqlite(_) => HOLD_SQLITE,
            Engine::Postgres(_) => HOLD_POSTGRES,
        };
        let values = [Value::Text(&lease.name), Value::Text(&lease.holder), Value::Int(lease.fence)];
        match self.link().execute(now, &values).await? {
            1 => Ok(()),
            _ => Err(HoldError::Lost(lease.name.clone())),
        }
    }
}
