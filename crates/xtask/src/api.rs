//! `api`: a fuzzer that reads the API's own description asks a real server, over mutual TLS, for a bounded number of things
//! that the description allows and that it forbids. Any 500, and any answer that is not described, fails.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::step::{Tally, program, target_dir};

/// From PyPI: <https://pypi.org/project/schemathesis>. It and what it needs are pinned in [`PINS`].
const VERSION: &str = "4.32.5";
const PINS: &str = "crates/xtask/schemathesis.txt";
/// What it may do and what it takes for right.
const SETTINGS: &str = "crates/xtask/schemathesis.toml";
/// What the server holds when the fuzzer begins.
const FLEET: &str = "crates/server/tests/rest/fleet.yaml";
/// The same requests every time, unless another seed is asked for.
const SEED: u64 = 3;
/// Cases of each operation and phase in `./x test`.
const EXAMPLES: u32 = 12;
/// How long a server may take to answer.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Builds nothing: `stolos` must be there.
pub(crate) fn fuzz(examples: Option<u32>, seed: Option<u64>) -> Result<Tally> {
    let Some(tool) = installed()? else { return Ok(Tally::one(false)) };
    let directory = std::path::absolute(target_dir().join("api"))?;
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory)?;
    let server = Server::start(&directory)?;
    let (examples, seed) = (examples.unwrap_or(EXAMPLES).to_string(), seed.unwrap_or(SEED).to_string());
    let settings = std::path::absolute(SETTINGS)?.display().to_string();
    let passed = program(
        std::path::absolute(&tool)?,
        &["--config-file", &settings, "run", "--max-examples", &examples, "--seed", &seed],
    )
    .args(["--tls-verify", &server.file("data/ca.pem"), "--request-cert", &server.file("client.pem")])
    .args(["--request-cert-key", &server.file("key.pem"), "--url", &server.url])
    .args([format!("{}/openapi.json", server.url)])
    // Whatever it keeps, it keeps there.
    .current_dir(&server.directory.display().to_string())
    .succeeds()?;
    if !passed {
        eprintln!(
            "x: the server's log is {}; once more with the same requests: ./x api --seed {seed}",
            server.file("log")
        );
    }
    Ok(Tally::one(passed))
}

/// The fuzzer, in a Python environment of its own.
fn installed() -> Result<Option<PathBuf>> {
    let directory = target_dir().join("tools").join(format!("schemathesis-{VERSION}"));
    let (tool, done) = (directory.join("bin/st"), directory.join("installed"));
    if done.exists() {
        return Ok(Some(tool));
    }
    eprintln!("x: installs schemathesis {VERSION} from PyPI into {}", directory.display());
    let made = program("python3", &["-m", "venv", "--clear"]).args([&directory]).succeeds()?;
    let pip = directory.join("bin/pip");
    let here = made && program(pip, &["install", "--quiet", "--no-deps", "--requirement", PINS]).succeeds()?;
    if here {
        fs::write(done, "")?;
    }
    Ok(here.then_some(tool))
}

/// A server on a data directory of its own, ended when this is dropped.
struct Server {
    process: Child,
    directory: PathBuf,
    url: String,
}

impl Server {
    fn start(directory: &Path) -> Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let (data, address) = (directory.join("data"), format!("127.0.0.1:{port}"));
        let data_flag = ["--data", &data.display().to_string()].map(str::to_owned);
        if !stolos(&["server", "init", "--listen", &address, "--name", "127.0.0.1"])
            .args(data_flag.clone())
            .succeeds()?
        {
            bail!("no server could be set up in {}", directory.display());
        }
        let log = fs::File::create(directory.join("log"))?;
        let mut run = Command::new(binary());
        run.args(["server", "run"]).args(data_flag).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = run.spawn().context("cannot start the server")?;
        let mut server = Self { process, directory: directory.to_owned(), url: format!("https://{address}") };
        server.wait(&address)?;
        let admin = data.join("admin.yaml");
        let text = fs::read_to_string(&admin)?;
        fs::write(directory.join("client.pem"), block(&text, "certificate"))?;
        fs::write(directory.join("key.pem"), block(&text, "key"))?;
        if !stolos(&["apply", "-f", FLEET, "--config"]).args([&admin]).succeeds()? {
            bail!("{FLEET} could not be applied");
        }
        Ok(server)
    }

    fn wait(&mut self, address: &str) -> Result<()> {
        let end = Instant::now() + START_LIMIT;
        while TcpStream::connect(address).is_err() {
            if self.process.try_wait()?.is_some() || Instant::now() > end {
                bail!("the server does not start; its log is {}", self.file("log"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn binary() -> PathBuf {
    target_dir().join("debug/stolos")
}

fn stolos(words: &[&str]) -> crate::step::Step {
    program(binary(), words)
}

/// The text under a key of `admin.yaml`, which is written as an indented block.
fn block(text: &str, key: &str) -> String {
    let lines = text.lines().skip_while(|line| *line != format!("{key}: |")).skip(1);
    lines.map_while(|line| line.strip_prefix("  ")).flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_cut_out_of_an_operators_file() {
        let text = "server: \"x\"\nca: |\n  A\ncertificate: |\n  B\n  C\nkey: |\n  D\n";
        assert_eq!((block(text, "certificate").as_str(), block(text, "key").as_str()), ("B\nC\n", "D\n"));
    }

    #[test]
    fn the_pins_are_of_this_version() {
        let pins = include_str!("../schemathesis.txt");
        assert!(pins.lines().any(|line| line == format!("schemathesis=={VERSION}")), "{pins}");
        assert!(pins.lines().all(|line| line.starts_with('#') || line.contains("==")), "{pins}");
    }
}
