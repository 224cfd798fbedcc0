//! Command lines of the real programs that play workloads, from Debian's packages.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};

/// nginx in the foreground on `port` of all addresses, answering every request with one line. Its files go to `dir`.
pub fn nginx(dir: &Path, port: u16) -> Result<Vec<String>> {
    fs::create_dir_all(dir)?;
    let config = dir.join("nginx.conf");
    let dir = dir.display();
    let text = format!(
        "daemon off; pid {dir}/nginx.pid; error_log stderr warn; worker_processes 1; user root;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;\n\
         fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;\n\
         server {{ listen {port}; listen [::]:{port}; location / {{ return 200 \"shop\\n\"; }} }} }}\n"
    );
    fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
    Ok(words(&["nginx", "-e", "stderr", "-c", &config.display().to_string()]))
}

/// redis-server in the foreground on `port` of all addresses, keeping nothing on disk.
pub fn redis(port: u16) -> Vec<String> {
    let flags = ["--bind", "0.0.0.0", "::", "--protected-mode", "no", "--save", "", "--appendonly", "no", "--port"];
    words(&[&["redis-server"], &flags[..], &[&port.to_string()]].concat())
}

/// dnsmasq in the foreground, a resolver that knows one `name`.
pub fn dnsmasq(name: &str, address: IpAddr) -> Vec<String> {
    let flags = ["--keep-in-foreground", "--log-facility=-", "--no-resolv", "--no-hosts", "--user=root", "--pid-file="];
    let known = format!("--address=/{name}/{address}");
    words(&[&["dnsmasq"], &flags[..], &["--conf-file=/dev/null", &known]].concat())
}

/// One question to the resolver at `server`, asked once; prints the addresses alone.
pub fn dig(server: IpAddr, name: &str) -> Vec<String> {
    words(&["dig", "+tries=1", "+retry=0", "+time=3", "+short", name, &format!("@{server}")])
}

/// An HTTP request every second.
pub fn curl_loop(url: &str) -> Vec<String> {
    words(&["sh", "-c", &format!("while sleep 1; do curl -s -o /dev/null -m 3 --http0.9 {url}; done")])
}

/// Nothing, for ever.
pub fn idle() -> Vec<String> {
    words(&["sleep", "infinity"])
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
