//! `stolos cluster …`: how nodes get in.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use api::token::JoinTokenRequest;

use crate::args::{ClusterVerb, JoinToken, Output};
use crate::failure::{Failure, Outcome};
use crate::output::{Screen, age};
use crate::process;
use crate::server::Server;

pub(crate) fn run(verb: ClusterVerb) -> Outcome {
    match verb {
        ClusterVerb::JoinToken(args) => join_token(args),
    }
}

fn join_token(args: JoinToken) -> Outcome {
    let server = Server::configured(&args.connection, &Default::default())?;
    // Before the token is made: a token that cannot be kept would lie about unspent.
    let file = args.out.as_ref().map(|path| {
        let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        opened.map(|file| (path, file)).map_err(|error| Failure::unwritable(path, &error))
    });
    let file = file.transpose()?;
    let request = JoinTokenRequest { ttl_s: args.ttl.map(|ttl| ttl.as_secs()), node: args.node.clone() };
    let answer = process::ask(server.join_token(&args.cluster, &request))?;
    let mut screen = Screen::stdout(Output::Table);
    match file {
        None => screen.line(&answer.token),
        Some((path, mut file)) => {
            writeln!(file, "{}", answer.token).map_err(|error| Failure::unwritable(path, &error))?;
            let left = age(jiff::Timestamp::now(), answer.expires);
            screen.line(format!(
                "Wrote {}: one node can join {} with it within {left}.",
                path.display(),
                answer.cluster
            ))
        }
    }
}
