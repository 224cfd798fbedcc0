//! A scripted peer: runs as a workload and does what the test on its standard input asks (`testbed::peer`).

fn main() {
    testbed::peer::actor::serve();
}
