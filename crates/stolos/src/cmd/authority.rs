//! `stolos authority …`: new keys for the handshake.

use crate::args::AuthorityVerb;
use crate::failure::Outcome;
use crate::output::Screen;
use crate::process;
use crate::server::Server;

pub(crate) fn run(verb: AuthorityVerb) -> Outcome {
    match verb {
        AuthorityVerb::RotateNodeKeys(args) => {
            let server = Server::configured(&args.connection, &Default::default())?;
            let rotated = process::ask(server.rotate_node_keys())?;
            Screen::stdout(args.format.output).answer(&rotated, |screen, rotated| {
                let plural = if rotated.nodes == 1 { "node" } else { "nodes" };
                screen.line(format!(
                    "{} {plural} asked for a new key; each is used once every peer has it.",
                    rotated.nodes
                ))
            })
        }
        AuthorityVerb::RotateFleetKey(args) => {
            let server = Server::configured(&args.connection, &Default::default())?;
            let rotated = process::ask(server.rotate_fleet_key())?;
            Screen::stdout(args.format.output).answer(&rotated, |screen, rotated| {
                screen.line(format!(
                    "Generation {} is on its way; it is used once every node has it.",
                    rotated.generation
                ))
            })
        }
    }
}
