//! The one integration binary: everything that needs a namespace, a cgroup, the kernel's programs or a real program.
//!
//! One module per suite. Each test makes a `testbed::run::Run` of its own, so suites can run side by side; a suite that
//! needs the machine for itself (timing, listings of the whole machine) begins with `testbed::run::alone()`.

mod arena;
mod dev;
mod docs;
mod guarded;
mod netns_attacks;
mod netns_bench;
mod netns_datagram;
mod netns_garbage;
mod netns_handshake;
mod netns_home;
mod netns_live;
mod netns_neighbour;
mod netns_refuse;
mod netns_relabel;
mod netns_rules;
mod netns_rules_ends;
mod netns_rules_host;
mod netns_rules_kernel;
mod netns_rules_node;
mod netns_vectors;
mod world;
