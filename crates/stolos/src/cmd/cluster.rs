//! `stolos cluster …`: how nodes get in.

use std::io::Write;
use std::path::Path;

use api::token::JoinTokenRequest;
use tempfile::NamedTempFile;

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
    // Before the token is made: a token that cannot be kept would lie about unspent. And beside the file: what was in it
    // is lost only for a token.
    let file = args.out.as_ref().map(|path| {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let made = NamedTempFile::new_in(directory);
        made.map(|file| (path, file)).map_err(|error| Failure::unwritable(path, &error))
    });
    let file = file.transpose()?;
    let request = JoinTokenRequest { ttl_s: args.ttl.map(|ttl| ttl.as_secs()), node: args.node.clone() };
    let answer = process::ask(server.join_token(&args.cluster, &request))?;
    let mut screen = Screen::stdout(Output::Table);
    match file {
        None => screen.line(&answer.token),
        Some((path, mut file)) => {
            let written = writeln!(file, "{}", answer.token).and_then(|()| Ok(file.persist(path).map(drop)?));
            written.map_err(|error| Failure::unwritable(path, &error))?;
            let left = age(jiff::Timestamp::now(), answer.expires);
            screen.line(format!(
                "Wrote {}: one node can join {} with it within {left}.",
                path.display(),
                answer.cluster
            ))
        }
    }
}
