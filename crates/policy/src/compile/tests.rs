use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::decide::Flow;
use crate::rules::tests::properties::{Change, a_posture, an_identity, changes};

/// What happens to a fleet.
#[derive(Clone, Debug)]
enum Step {
    Policy(Change),
    Posture((NamespacePath, Posture)),
    Intern(Identity),
    Forget(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => changes().prop_filter_map("one", |c| c.into_iter().next()).prop_map(Step::Policy),
        1 => a_posture().prop_map(Step::Posture),
        3 => an_identity().prop_map(Step::Intern),
        1 => any::<usize>().prop_map(Step::Forget),
    ];
    vec(step, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_fleet_answers_as_its_rules_do(steps in steps(), port in proptest::sample::select(vec![(6_u8, 80_u16), (17, 53), (1, 0), (132, 1)])) {
        let mut fleet = Fleet::default();
        let mut classes: Vec<Class> = Vec::new();
        let mut ids: Vec<PolicyId> = Vec::new();
        for step in steps {
            match step {
                Step::Policy(Change::Insert(policy)) => {
                    ids.push(policy.id.clone());
                    fleet.insert(policy);
                }
                Step::Policy(Change::Remove(at)) => {
                    if !ids.is_empty() {
                        fleet.remove(&ids.remove(at % ids.len()));
                    }
                }
                Step::Posture((path, posture)) => drop(fleet.set_posture(path, Some(posture))),
                Step::Intern(identity) => classes.push(fleet.intern(Arc::new(identity))),
                Step::Forget(at) if !classes.is_empty() => {
                    let class = classes.remove(at % classes.len());
                    classes.retain(|c| *c != class);
                    fleet.forget(class);
                    prop_assert!(fleet.identity(class).is_none());
                }
                Step::Forget(_) => {}
            }
        }
        for &client in &classes {
            let peers = fleet.peers(Side::Egress, client);
            for &server in &classes {
                let (from, to) = (fleet.identity(client).unwrap(), fleet.identity(server).unwrap());
                let (from, to) = (Peer::Workload(from), Peer::Workload(to));
                let flow = Flow { client: from, server: to, protocol: port.0, port: port.1 };
                let Peer::Workload(subject) = from else { unreachable!() };
                prop_assert_eq!(fleet.decide(client, server, port.0, port.1).unwrap(), fleet.rules().decide(&flow));
                let side = fleet.side(Side::Egress, client, server).unwrap();
                prop_assert_eq!(&side, &fleet.rules().side(Side::Egress, subject, &to));
                prop_assert_eq!(peers.contains(&server), !side.ranges.is_empty());
                let speaks = fleet.speakers(Side::Egress, server).contains(&client);
                prop_assert!(speaks || side.ranges.is_empty());
            }
        }
    }

    #[test]
    fn a_change_names_every_class_whose_verdicts_differ(
        before in changes(),
        change in changes(),
        identities in vec(an_identity(), 2..6),
    ) {
        let mut fleet = Fleet::default();
        for change in before {
            if let Change::Insert(policy) = change {
                fleet.insert(policy);
            }
        }
        let classes: Vec<Class> = identities.into_iter().map(|i| fleet.intern(Arc::new(i))).collect();
        let verdicts = |fleet: &Fleet| -> Vec<SideVerdict> {
            let pairs = classes.iter().flat_map(|a| classes.iter().map(move |b| (*a, *b)));
            pairs.map(|(a, b)| fleet.side(Side::Ingress, a, b).unwrap()).collect()
        };
        for change in change {
            let old = verdicts(&fleet);
            let Change::Insert(policy) = change else { continue };
            let touched = fleet.insert(policy);
            for (at, (old, new)) in old.iter().zip(verdicts(&fleet)).enumerate() {
                if *old != new {
                    let (a, b) = (classes[at / classes.len()], classes[at % classes.len()]);
                    prop_assert!(touched.contains(&a) && touched.contains(&b));
                }
            }
        }
    }
}

#[test]
fn equal_identities_are_one_class() {
    let mut fleet = Fleet::default();
    let web = Arc::new(Identity::from_pairs([("@namespace", "/shop"), ("app", "web")]).unwrap());
    let class = fleet.intern(Arc::clone(&web));
    assert_eq!(fleet.intern(web), class);
    assert_eq!(fleet.len(), 1);
    fleet.forget(class);
    assert!(fleet.is_empty() && fleet.decide(class, class, 6, 80).is_none());
}
