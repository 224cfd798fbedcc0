//! Who a workload is: from what its node asserts and what the Cluster grants to an identity.
//!
//! Pure. The server derives every attribute that says *where* a workload is; a node can assert labels and namespaces
//! only as far as its Cluster object allows, and whatever it asserts beyond that is refused as a whole.

use std::collections::BTreeMap;

use api::kind::cluster::ClusterSpec;
use policy::attribute::{AttributeError, Attributes, Identity, SYSTEM_KEYS, check_user_key};
use policy::code::{Code, enrolment as code};
use policy::namespace::{NamespacePath, check_name};
use uuid::Uuid;

/// Types of workload that nodes may report.
pub const TYPES: &[&str] = &["process", "unit", "container", "pod", "host"];
/// What nodes may report as observed; the rest of the system's keys is derived by the server.
const OBSERVED_PREFIX: &str = "@linux:";
/// Below it are the SPIFFE ids of nodes and operators.
const RESERVED_NAMESPACE: &str = "/stolos";

/// Where a workload is, as the server knows it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The trust domain's name.
    pub trust_domain: &'a str,
    /// The cluster's name.
    pub cluster: &'a str,
    /// What the cluster may assert.
    pub grant: &'a ClusterSpec,
    /// The node's name.
    pub node: &'a str,
}

/// What a node says about one of its workloads. Hostile until [`identify`] has passed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// UUID of the instance.
    pub uid: String,
    /// Its name on the node.
    pub name: String,
    /// One of [`TYPES`].
    pub workload_type: String,
    /// Below the cluster's namespace; empty means the cluster's own.
    pub relative_namespace: String,
    /// User labels.
    pub labels: BTreeMap<String, String>,
    /// `@linux:exe` and the like.
    pub observed: BTreeMap<String, String>,
}

/// Why a claim is refused: a stable code and one sentence for the node's operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// The code's page says what to do.
    pub code: &'static Code,
    /// What is wrong here.
    pub message: String,
}

impl Refused {
    /// Puts code and sentence together.
    pub fn new(code: &'static Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// The identity of a workload, `@namespace`, `@cluster`, `@region`, `@node`, `@type` and `@spiffe` included.
pub fn identify(place: &Place<'_>, claim: &Claim) -> Result<Identity, Refused> {
    check_uid(&claim.uid)?;
    check_name(&claim.name)
        .map_err(|e| Refused::new(&code::NAME_BAD, format!("workload `{}`: {e}", shorten(&claim.name))))?;
    if !TYPES.contains(&claim.workload_type.as_str()) {
        let message = format!("`{}` is no type of workload", shorten(&claim.workload_type));
        return Err(Refused::new(&code::TYPE_UNKNOWN, message));
    }
    let namespace = namespace(place, &claim.relative_namespace)?;
    let mut attributes = Attributes::new();
    for (key, value) in &claim.labels {
        check_label(place, key)?;
        set(&mut attributes, key, value)?;
    }
    for (key, value) in &claim.observed {
        match (key.starts_with(OBSERVED_PREFIX), SYSTEM_KEYS.contains(&key.as_str())) {
            (true, true) => set(&mut attributes, key, value)?,
            // A newer agent may observe more than this server knows; no selector can name such a key.
            (true, false) => {}
            (false, _) => {
                let message = format!("`{}` is derived by the server, a node cannot report it", shorten(key));
                return Err(Refused::new(&code::SYSTEM_KEY, message));
            }
        }
    }
    let spiffe = spiffe_id(place.trust_domain, &namespace, &claim.name);
    let region = place.grant.region.as_deref().unwrap_or_default();
    let derived = [
        ("@namespace", namespace.as_str()),
        ("@cluster", place.cluster),
        ("@region", region),
        ("@node", place.node),
        ("@type", claim.workload_type.as_str()),
        ("@spiffe", spiffe.as_str()),
    ];
    for (key, value) in derived.into_iter().filter(|(_, value)| !value.is_empty()) {
        set(&mut attributes, key, value)?;
    }
    Identity::new(attributes).map_err(|e| Refused::new(&code::NAMESPACE_REFUSED, e.to_string()))
}

/// `spiffe://TRUST-DOMAIN/NAMESPACE…/NAME`.
pub fn spiffe_id(trust_domain: &str, namespace: &NamespacePath, name: &str) -> String {
    match namespace.is_root() {
        true => format!("spiffe://{trust_domain}/{name}"),
        false => format!("spiffe://{trust_domain}{namespace}/{name}"),
    }
}

/// Checks that a uid is a UUID in its usual form.
pub fn check_uid(uid: &str) -> Result<(), Refused> {
    let good = uid.len() == uuid::fmt::Hyphenated::LENGTH && Uuid::try_parse(uid).is_ok();
    good.then_some(()).ok_or_else(|| Refused::new(&code::UID_BAD, format!("`{}` is not a UUID", shorten(uid))))
}

fn namespace(place: &Place<'_>, relative: &str) -> Result<NamespacePath, Refused> {
    let refuse = |why: &str| {
        let message = format!("namespace `{}` below cluster `{}`: {why}", shorten(relative), place.cluster);
        Refused::new(&code::NAMESPACE_REFUSED, message)
    };
    let own = NamespacePath::new(&place.grant.namespace).map_err(|e| refuse(&e.to_string()))?;
    // `join` checks every segment, so that nothing can climb out of the cluster's subtree.
    let namespace = own.join(relative).map_err(|e| refuse(&e.to_string()))?;
    let allowed = match &place.grant.allowed_namespaces {
        None => true,
        Some(_) if relative.is_empty() => true,
        Some(patterns) => patterns.iter().any(|pattern| namespace_matches(pattern, relative)),
    };
    // SPIFFE ids of nodes and operators begin so; no workload may have one of them.
    let reserved = namespace.and_ancestors().any(|path| path == RESERVED_NAMESPACE);
    match (allowed && own.contains(&namespace), reserved) {
        (true, false) => Ok(namespace),
        (true, true) => Err(refuse("it is reserved for the control plane")),
        (false, _) => Err(refuse("spec.allowedNamespaces of the Cluster does not name it")),
    }
}

/// `shop` is exactly that, `shop/**` it and all below, `**` everything.
fn namespace_matches(pattern: &str, relative: &str) -> bool {
    match pattern.strip_suffix("**").map(|stem| stem.trim_end_matches('/')) {
        Some("") => true,
        Some(stem) => relative.strip_prefix(stem).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        None => pattern == relative,
    }
}

fn check_label(place: &Place<'_>, key: &str) -> Result<(), Refused> {
    check_user_key(key).map_err(|e| refused_attribute(&e))?;
    let matches = |pattern: &String| match pattern.strip_suffix('*') {
        Some(stem) => key.starts_with(stem),
        None => pattern == key,
    };
    match &place.grant.label_keys {
        Some(patterns) if !patterns.iter().any(matches) => {
            let message = format!("nodes of cluster `{}` may not assert the label `{key}`", place.cluster);
            Err(Refused::new(&code::LABEL_REFUSED, message))
        }
        _ => Ok(()),
    }
}

fn set(attributes: &mut Attributes, key: &str, value: &str) -> Result<(), Refused> {
    attributes.set(key, value).map_err(|e| refused_attribute(&e))
}

fn refused_attribute(error: &AttributeError) -> Refused {
    let code = match error {
        AttributeError::SystemKey(_) | AttributeError::UnknownSystemKey(_) => &code::SYSTEM_KEY,
        AttributeError::BadKey(_) | AttributeError::BadValue(_) | AttributeError::TooMany => &code::LABEL_BAD,
    };
    Refused::new(code, shorten(&error.to_string()))
}

/// The beginning of a text that a peer chose, for a message.
fn shorten(text: &str) -> String {
    const SHOWN_MAX: usize = 120;
    text.chars().filter(|c| !c.is_control()).take(SHOWN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UID: &str = "0191a2b3-c4d5-7e6f-8091-a2b3c4d5e6f7";

    fn grant() -> ClusterSpec {
        serde_json::from_value(serde_json::json!({"namespace": "/acme/eu-1", "region": "eu"})).unwrap()
    }

    fn claim(name: &str, relative: &str, labels: &[(&str, &str)]) -> Claim {
        Claim {
            uid: UID.into(),
            name: name.into(),
            workload_type: "process".into(),
            relative_namespace: relative.into(),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..Claim::default()
        }
    }

    fn identify_with(grant: &ClusterSpec, claim: &Claim) -> Result<Identity, Refused> {
        identify(&Place { trust_domain: "example.org", cluster: "eu-1", grant, node: "n1" }, claim)
    }

    fn code_of(result: Result<Identity, Refused>) -> &'static str {
        result.err().map_or("accepted", |refused| refused.code.id)
    }

    #[test]
    fn the_server_derives_where_a_workload_is() {
        let identity = identify_with(&grant(), &claim("web", "shop", &[("app", "web")])).unwrap();
        assert_eq!(
            identity.attributes().to_string(),
            "@cluster=eu-1,@namespace=/acme/eu-1/shop,@node=n1,@region=eu,\
             @spiffe=spiffe://example.org/acme/eu-1/shop/web,@type=process,app=web"
        );
    }

    #[test]
    fn nobody_asserts_system_keys() {
        assert_eq!(code_of(identify_with(&grant(), &claim("web", "", &[("@cluster", "us-1")]))), "E4027");
        let mut observed = claim("web", "", &[]);
        observed.observed.insert("@region".into(), "us".into());
        assert_eq!(code_of(identify_with(&grant(), &observed)), "E4027");
        observed.observed = [("@linux:exe".to_owned(), "/usr/sbin/nginx".to_owned())].into();
        let identity = identify_with(&grant(), &observed).unwrap();
        assert_eq!(identity.attributes().get("@linux:exe"), Some("/usr/sbin/nginx"));
    }

    #[test]
    fn label_keys_are_limited_by_the_cluster() {
        let mut limited = grant();
        limited.label_keys = Some(vec!["app".into(), "team.*".into()]);
        assert_eq!(code_of(identify_with(&limited, &claim("web", "", &[("tier", "db")]))), "E4025");
        assert!(identify_with(&limited, &claim("web", "", &[("app", "web"), ("team.owner", "x")])).is_ok());
    }

    #[test]
    fn namespaces_are_limited_by_the_cluster() {
        let mut limited = grant();
        limited.allowed_namespaces = Some(vec!["shop/**".into(), "ops".into()]);
        for (relative, expect) in [
            ("", "accepted"),
            ("shop", "accepted"),
            ("shop/cart", "accepted"),
            ("shopping", "E4024"),
            ("ops", "accepted"),
            ("ops/x", "E4024"),
            ("../us-1", "E4024"),
            ("/acme/us-1", "E4024"),
        ] {
            assert_eq!(code_of(identify_with(&limited, &claim("web", relative, &[]))), expect, "{relative}");
        }
    }

    #[test]
    fn malformed_claims_are_refused_by_code() {
        let bad_uid = Claim { uid: "1".into(), ..claim("web", "", &[]) };
        assert_eq!(code_of(identify_with(&grant(), &bad_uid)), "E4020");
        assert_eq!(code_of(identify_with(&grant(), &claim("We b", "", &[]))), "E4021");
        let odd = Claim { workload_type: "vm".into(), ..claim("web", "", &[]) };
        assert_eq!(code_of(identify_with(&grant(), &odd)), "E4023");
        assert_eq!(code_of(identify_with(&grant(), &claim("web", "", &[("a b", "x")]))), "E4026");
        let long = "x".repeat(5000);
        assert_eq!(code_of(identify_with(&grant(), &claim("web", "", &[("app", &long)]))), "E4026");
    }

    #[test]
    fn no_workload_has_the_spiffe_id_of_a_node() {
        let root = ClusterSpec { namespace: "/".into(), ..grant() };
        assert_eq!(code_of(identify_with(&root, &claim("17", "stolos/node", &[]))), "E4024");
        let own = ClusterSpec { namespace: "/stolos".into(), ..grant() };
        assert_eq!(code_of(identify_with(&own, &claim("17", "", &[]))), "E4024");
    }

    proptest! {
        /// Whatever a node says, the workload lives in its cluster's subtree, and its place is the server's word.
        #[test]
        fn a_claim_never_leaves_the_subtree(relative in "[-a-z./*]{0,24}", key in "[@a-z:]{1,12}", value in ".{0,8}") {
            let claim = Claim { labels: [(key.clone(), value.clone())].into(), observed: [(key, value)].into(),
                ..claim("web", &relative, &[]) };
            if let Ok(identity) = identify_with(&grant(), &claim) {
                prop_assert!(NamespacePath::new("/acme/eu-1").unwrap().contains(identity.namespace()));
                prop_assert_eq!(identity.attributes().get("@cluster"), Some("eu-1"));
                prop_assert_eq!(identity.attributes().get("@node"), Some("n1"));
            }
        }
    }
}
