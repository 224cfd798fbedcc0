//! Labels and annotations: how many, and what they look like.

use api::object::{ANNOTATION_LEN_MAX, LABELS_MAX};
use policy::attribute::check_attribute;
use policy::code::api as api_code;

use super::*;

/// Reports everything that is wrong with them.
pub(super) fn check(root: &Node, problems: &mut Vec<Problem>) {
    for list in ["labels", "annotations"] {
        let Some(entry) = root.get("metadata").and_then(|metadata| metadata.entry(list)) else { continue };
        let entries = entry.value.entries();
        if entries.len() > LABELS_MAX {
            let message = format!("at most {LABELS_MAX} {list} are taken, not {}", entries.len());
            problems.push(Problem::new(api_code::RANGE, entry.span.clone(), message).field(format!("metadata.{list}")));
        }
        for pair in entries.iter().take(LABELS_MAX) {
            let Some(why) = wrong(list, &pair.key, pair.value.text().unwrap_or_default()) else { continue };
            let field = format!("metadata.{list}.{}", pair.key.chars().take(64).collect::<String>());
            problems.push(Problem::new(api_code::RANGE, pair.span.clone(), why).field(field));
        }
    }
}

/// Labels can be selected by the grammar of policies, so they are what attributes of users are.
fn wrong(list: &str, key: &str, value: &str) -> Option<String> {
    if list == "labels" {
        let system = key.starts_with('@').then(|| "keys that begin with `@` are the system's".to_owned());
        return system.or_else(|| check_attribute(key, value).err().map(|error| error.to_string()));
    }
    let long = key.is_empty() || key.len() > policy::attribute::KEY_LEN_MAX || value.len() > ANNOTATION_LEN_MAX;
    long.then(|| {
        let (key, value) = (policy::attribute::KEY_LEN_MAX, ANNOTATION_LEN_MAX / 1024);
        format!("an annotation's key has 1 to {key} bytes, and its value at most {value} KiB")
    })
}
