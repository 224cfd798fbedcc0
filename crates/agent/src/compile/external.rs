//! External networks as prefixes with a class: each prefix carries the set of all ExternalNetworks that cover it.

use std::collections::{BTreeMap, BTreeSet};

use datapath::state::{ClassId, Network};
use ipnet::IpNet;
use policy::namespace::ExternalId;

use crate::model::Model;
use crate::numbering::{Numbering, name_of_set};

/// External networks, compiled.
#[derive(Debug, Default)]
pub(super) struct Externals {
    /// Prefixes for the kernel's longest-prefix match, fleet addresses among them.
    pub networks: Vec<Network>,
    /// What each class covers; [`ClassId::EXTERNAL_OTHER`] covers nothing.
    pub classes: BTreeMap<ClassId, BTreeSet<ExternalId>>,
    /// ExternalNetworks that cover fleet addresses, which are never external (PROTOCOL rule 9).
    pub covering_fleet: BTreeSet<ExternalId>,
}

/// Compiles the model's networks. Numbers of sets come from `numbering`, so that records keep their meaning.
pub(super) fn compile(model: &Model, numbering: &mut Numbering) -> Externals {
    let fleet: BTreeSet<IpNet> = model.fleet.values().copied().collect();
    let in_fleet = |prefix: &IpNet| fleet.iter().any(|net| net.contains(prefix));
    let prefixes: BTreeSet<IpNet> = model.networks.values().flatten().copied().collect();
    let mut externals = Externals::default();
    externals.classes.insert(ClassId::EXTERNAL_OTHER, BTreeSet::new());
    for prefix in prefixes {
        let covers = |nets: &Vec<IpNet>| nets.iter().any(|net| net.contains(&prefix));
        let set: BTreeSet<ExternalId> =
            model.networks.iter().filter(|(_, nets)| covers(nets)).map(|(id, _)| id.clone()).collect();
        if fleet.iter().any(|net| net.contains(&prefix) || prefix.contains(net)) {
            externals.covering_fleet.extend(set.iter().cloned());
        }
        if in_fleet(&prefix) {
            continue;
        }
        let class = match numbering.number(&name_of_set(&set)) {
            0 => ClassId::EXTERNAL_OTHER,
            number => ClassId(ClassId::EXTERNAL_OTHER.0 | number),
        };
        externals.networks.push(Network { prefix, class: Some(class) });
        if class != ClassId::EXTERNAL_OTHER {
            externals.classes.insert(class, set);
        }
    }
    externals.networks.extend(fleet.into_iter().map(|prefix| Network { prefix, class: None }));
    externals.networks.sort_by_key(|network| network.prefix);
    externals
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::sync;
    use prost::Message as _;

    fn model(networks: &[(&str, &[&str])], fleet: &[&str]) -> Model {
        let mut model = Model::default();
        for (name, cidrs) in networks {
            let cidrs = cidrs.iter().map(ToString::to_string).collect();
            let network = sync::Network { namespace: "/a".into(), name: (*name).into(), cidrs };
            model.put(&format!("network//a:{name}"), &network.encode_to_vec());
        }
        for cidr in fleet {
            let address = sync::FleetAddress { cidr: (*cidr).into() };
            model.put(&format!("fleet/{cidr}"), &address.encode_to_vec());
        }
        assert!(model.unreadable.is_empty(), "{:?}", model.unreadable);
        model
    }

    #[test]
    fn a_prefix_carries_all_networks_that_cover_it() {
        let mut numbering = Numbering::in_memory();
        let model = model(&[("all", &["0.0.0.0/0"]), ("bank", &["198.51.100.0/24", "203.0.113.0/24"])], &[]);
        let externals = compile(&model, &mut numbering);
        assert_eq!(externals.networks.len(), 3);
        let class_of = |text: &str| {
            let prefix: IpNet = text.parse().expect("a prefix");
            externals.networks.iter().find(|n| n.prefix == prefix).and_then(|n| n.class).expect("has a class")
        };
        assert_eq!(class_of("198.51.100.0/24"), class_of("203.0.113.0/24"), "one set, one class");
        assert_eq!(externals.classes[&class_of("198.51.100.0/24")].len(), 2);
        assert_eq!(externals.classes[&class_of("0.0.0.0/0")].len(), 1);
    }

    #[test]
    fn fleet_addresses_are_never_external() {
        let mut numbering = Numbering::in_memory();
        let model = model(&[("one", &["10.0.0.5/32"]), ("wide", &["10.0.0.0/8"])], &["10.0.0.0/24"]);
        let externals = compile(&model, &mut numbering);
        let listed: Vec<_> = externals.networks.iter().map(|n| (n.prefix.to_string(), n.class.is_some())).collect();
        assert_eq!(listed, [("10.0.0.0/8".to_owned(), true), ("10.0.0.0/24".to_owned(), false)]);
        assert_eq!(externals.covering_fleet.len(), 2, "both are reported");
    }
}
