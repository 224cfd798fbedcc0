//! Step 2: enforced, `web` in eu-1 reaches `db` in us-1 through both NATs, although both have the same address.

use anyhow::{Result, ensure};

use super::site::{DB_DIALLED, DB_PORT, Site, say};
use super::{COMMAND, Ground, Step};
use crate::process::Program;

pub(super) const STEP: Step = Step {
    number: 2,
    title: "enforce: web@eu-1 reaches db@us-1 through two NATs and a port change",
    on: Ground::Fleet,
    run,
};

fn run(site: &mut Site) -> Result<()> {
    site.enforce()?;
    let (web, db) = (site.workload("web")?, site.workload("db")?);
    ensure!(web.addresses == db.addresses, "BUG: the demo is about equal addresses");
    for dialled in site.db_dialled() {
        let redis = Program::new("redis-cli").args(["-h", &dialled.ip().to_string()]);
        let answer = web.place.output(redis.args(["-p", &dialled.port().to_string(), "PING"]), COMMAND)?;
        ensure!(answer.trim() == "PONG", "redis at {dialled} says {answer:?}");
        say(&format!("web ({}) asks {dialled}: PONG", web.addresses.v4));
    }
    say(&format!("db has the address {} itself; {DB_DIALLED} became {DB_PORT} on the way", db.addresses.v4));
    Ok(())
}
