//! What was acknowledged is there after `kill -9`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use api::object::ObjectKey;
use store::Store;

use crate::{Engine, Place, object, put};

crate::on_both! {
    acknowledged_writes_survive_kill
}

const WRITER: &str = "STOLOS_TEST_WRITER";

/// Not a test of its own: the process that `acknowledged_writes_survive_kill` kills.
#[test]
fn writer_process() {
    let Ok(url) = std::env::var(WRITER) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(&url.parse().unwrap()).await.unwrap();
        for value in 0..1_000_000 {
            let stored = put(&store, &object("Policy", "/a", &format!("p{value}"), value)).await;
            println!("acknowledged {}", stored.metadata.name);
        }
    });
}

async fn acknowledged_writes_survive_kill(engine: Engine) {
    let place = Place::new(engine);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::writer_process", "--nocapture"])
        .env(WRITER, &place.url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut acknowledged = Vec::new();
    for line in lines {
        if let Some((_, name)) = line.split_once("acknowledged ") {
            acknowledged.push(name.to_owned());
            if acknowledged.len() == 50 {
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    assert!(acknowledged.len() >= 50);
    let store = place.open().await;
    for name in &acknowledged {
        assert!(store.get(&ObjectKey::new("Policy", "/a", name)).await.unwrap().is_some(), "{name} is lost");
    }
    // The dead writer's lock went with it.
    put(&store, &object("Policy", "/a", "after", 0)).await;
}
