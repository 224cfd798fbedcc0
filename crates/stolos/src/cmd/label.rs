//! `stolos label`: change the labels of a running workload of this machine.

use std::io::Write;
use std::time::Duration;

use api::local::{LabelChange as Patch, Labelled, Workload};
use reqwest::Method;

use crate::agent_socket::AgentSocket;
use crate::args::Label;
use crate::args::value::LabelChange;
use crate::failure::{C, Failure, Outcome};
use crate::output::{Ink, Screen, printable};
use crate::process;

/// How long the agent may take until its kernel enforces the change.
const WAIT: Duration = Duration::from_secs(5);

pub(crate) fn run(args: Label) -> Outcome {
    let patch = patch(&args.changes)?;
    let agent = AgentSocket::connectable(&args.socket.socket)?;
    let after = process::ask(change(&agent, &args.workload, &patch))?;
    Screen::stdout(args.format.output).answer(&after, show)
}

/// Changes as one patch; the same key both set and removed, or set twice, is a contradiction.
fn patch(changes: &[LabelChange]) -> Result<Patch, Failure> {
    let wait_ms = u64::try_from(WAIT.as_millis()).unwrap_or(u64::MAX);
    let mut patch = Patch { wait_ms, ..Patch::default() };
    for change in changes {
        let key = match change {
            LabelChange::Set(key, _) | LabelChange::Remove(key) => key,
        };
        if patch.set.contains_key(key) || patch.remove.contains(key) {
            return Err(Failure::usage(
                C::USAGE,
                format!("the label `{key}` is changed twice"),
                "say once what it shall be",
            ));
        }
        match change {
            LabelChange::Set(key, value) => drop(patch.set.insert(key.clone(), value.clone())),
            LabelChange::Remove(key) => patch.remove.push(key.clone()),
        }
    }
    Ok(patch)
}

async fn change(agent: &AgentSocket, workload: &str, patch: &Patch) -> Result<Labelled, Failure> {
    let known = agent.workloads().await?;
    if !known.iter().any(|other| other.name == workload || other.uid == workload) {
        return Err(unknown(workload, &known));
    }
    agent.send_and_wait(Method::PATCH, &["workloads", workload, "labels"], patch, WAIT).await
}

fn unknown(workload: &str, known: &[Workload]) -> Failure {
    let near = known
        .iter()
        .map(|other| (strsim::damerau_levenshtein(&other.name, workload), &other.name))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    let names: Vec<&str> = known.iter().take(20).map(|other| other.name.as_str()).collect();
    let mend = match near {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None if names.is_empty() => "there is none; `stolos run` starts one".to_owned(),
        None => format!("there are {}", names.join(", ")),
    };
    Failure::new(C::NAME_UNKNOWN, format!("no workload `{workload}` on this machine"), mend)
}

fn show<W: Write>(screen: &mut Screen<W>, answer: &Labelled) -> Outcome {
    let workload = &answer.workload;
    let labels: Vec<String> = workload.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let labels = if labels.is_empty() { "no labels".to_owned() } else { labels.join(", ") };
    screen.line(format!("{}: {labels}", workload.name))?;
    match &answer.warning {
        Some(warning) if !answer.live => {
            let text = format!("not in force yet: {}", printable(warning));
            screen.line(screen.paint(Ink::Warn, &text))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_become_one_patch() {
        let set = |key: &str| LabelChange::Set(key.into(), "x".into());
        let both = patch(&[set("a"), LabelChange::Remove("b".into())]).unwrap();
        assert_eq!((both.set.len(), both.remove.len()), (1, 1));
        assert!(patch(&[set("a"), LabelChange::Remove("a".into())]).is_err());
        assert!(patch(&[set("a"), set("a")]).is_err());
    }

    #[test]
    fn an_unknown_workload_gets_a_suggestion() {
        assert!(unknown("web", &[]).to_string().contains("`stolos run` starts one"));
    }
}
