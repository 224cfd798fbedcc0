//! `stolos context`: several servers and credentials, by name.

use std::io::Write;

use serde::Serialize;

use crate::args::{ContextVerb, Output};
use crate::config::{Contexts, Operator};
use crate::failure::{C, Failure, Outcome};
use crate::output::{Columns, Screen};

/// One context, as it is shown. Never its credentials.
#[derive(Serialize)]
struct Shown {
    name: String,
    current: bool,
    server: Option<String>,
    #[serde(rename = "trustDomain")]
    trust_domain: Option<String>,
    namespace: Option<String>,
}

pub(crate) fn run(verb: ContextVerb) -> Outcome {
    let mut contexts = Contexts::load()?;
    let mut said = Screen::stdout(Output::Table);
    match verb {
        ContextVerb::List { format } => Screen::stdout(format.output).answer(&shown(&contexts), list),
        ContextVerb::Add { name, from, namespace } => {
            contexts.add(&name, &Operator::read(&from)?, namespace)?;
            let current = if contexts.current() == Some(name.as_str()) { ", and is the current one" } else { "" };
            said.line(format!("Context {name} is kept{current}."))
        }
        ContextVerb::Use { name, namespace } => {
            contexts.select(&name, namespace)?;
            said.line(format!("Context {name} is the current one."))
        }
        ContextVerb::Remove { name } => {
            contexts.remove(&name)?;
            said.line(format!("Context {name} and its credentials are gone from this machine."))
        }
        ContextVerb::Current => {
            let none =
                || Failure::new(C::CONTEXT_UNKNOWN, "no context is current", "choose one: stolos context use NAME");
            said.line(contexts.current().ok_or_else(none)?)
        }
    }
}

fn shown(contexts: &Contexts) -> Vec<Shown> {
    let show = |(name, context): (&str, &crate::config::Context)| {
        // One that cannot be read is listed all the same: it has to be seen to be mended.
        let admin = Operator::read(&contexts.file(name)).ok().map(|operator| operator.admin);
        Shown {
            name: name.to_owned(),
            current: contexts.current() == Some(name),
            server: admin.as_ref().map(|admin| admin.server.clone()),
            trust_domain: admin.map(|admin| admin.trust_domain),
            namespace: context.namespace.clone(),
        }
    };
    contexts.all().map(show).collect()
}

fn list<W: Write>(screen: &mut Screen<W>, contexts: &Vec<Shown>) -> Outcome {
    if contexts.is_empty() {
        return screen.line("No contexts. Keep one: stolos context add NAME --from admin.yaml");
    }
    let mut columns = Columns::new(["CURRENT", "NAME", "SERVER", "TRUST-DOMAIN", "NAMESPACE"]);
    for context in contexts {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let current = if context.current { "*" } else { "" };
        columns.row([
            current.to_owned(),
            context.name.clone(),
            text(&context.server),
            text(&context.trust_domain),
            text(&context.namespace),
        ]);
    }
    screen.table(&columns)
}
