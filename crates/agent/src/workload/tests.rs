use super::*;

/// A directory with the files of an empty cgroup.
pub(crate) fn fake_cgroup(root: &Path, name: &str) -> PathBuf {
    let path = root.join(name);
    std::fs::create_dir_all(&path).expect("made");
    std::fs::write(path.join("cgroup.procs"), "").expect("written");
    std::fs::write(path.join("cgroup.events"), "populated 0\n").expect("written");
    path
}

/// Directories that look like cgroups; what the kernel does with real ones is tested in the testbed.
struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self { dir: tempfile::tempdir().expect("a directory") };
        std::fs::create_dir(fixture.root()).expect("made");
        fixture
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn cgroup(&self, name: &str, populated: bool) -> PathBuf {
        let path = fake_cgroup(&self.root(), name);
        std::fs::write(path.join("cgroup.events"), format!("populated {}\n", u8::from(populated))).expect("written");
        path
    }

    fn registry(&self) -> (Disk, Registry) {
        let disk = Disk::open(&self.dir.path().join("data")).expect("made");
        let registry = Registry::open(&disk, &self.root()).expect("opened");
        (disk, registry)
    }
}

fn request(name: &str, cgroup: &Path) -> Register {
    let uid = Uuid::now_v7().to_string();
    serde_json::from_value(serde_json::json!({"uid": uid, "name": name, "cgroup": cgroup})).expect("a request")
}

#[test]
fn a_restart_keeps_uids_and_labels() {
    let fixture = Fixture::new();
    let cgroup = fixture.cgroup("web", true);
    let (disk, mut registry) = fixture.registry();
    let uid = registry.register(&request("web", &cgroup)).expect("taken");
    let change = LabelChange { set: BTreeMap::from([("app".into(), "web".into())]), ..Default::default() };
    registry.label("web", &change).expect("labelled");
    registry.save(&disk).expect("saved");
    let host = registry.find("host").expect("always there").uid.clone();
    let (_, again) = fixture.registry();
    assert_eq!(again.find("web").expect("kept").uid, uid);
    assert_eq!(again.find(&uid).expect("by uid").labels.get("app").map(String::as_str), Some("web"));
    assert_eq!(again.find("host").expect("kept").uid, host);
}

#[test]
fn another_cgroup_under_the_same_path_is_another_workload() {
    let fixture = Fixture::new();
    let cgroup = fixture.cgroup("web", true);
    let (disk, mut registry) = fixture.registry();
    registry.register(&request("web", &cgroup)).expect("taken");
    registry.save(&disk).expect("saved");
    std::fs::rename(&cgroup, fixture.root().join("old")).expect("moved");
    fixture.cgroup("web", true);
    assert!(fixture.registry().1.find("web").is_err());
}

#[test]
fn it_ends_with_its_last_process_and_not_before_its_first() {
    let fixture = Fixture::new();
    let cgroup = fixture.cgroup("web", false);
    let (_, mut registry) = fixture.registry();
    let uid = registry.register(&request("web", &cgroup)).expect("taken");
    assert!(registry.reap().is_empty(), "nothing has lived in it yet");
    fixture.cgroup("web", true);
    assert!(registry.reap().is_empty());
    fixture.cgroup("web", false);
    assert_eq!(registry.reap(), [uid]);
    assert!(registry.find("web").is_err());
}

#[test]
fn a_program_that_ends_before_anybody_looked_has_lived() {
    let fixture = Fixture::new();
    let cgroup = fixture.cgroup("web", true);
    let (_, mut registry) = fixture.registry();
    let uid = registry.register(&request("web", &cgroup)).expect("taken");
    fixture.cgroup("web", false);
    assert_eq!(registry.reap(), [uid]);
}

#[test]
fn names_and_cgroups_belong_to_one() {
    let fixture = Fixture::new();
    let (web, api) = (fixture.cgroup("web", true), fixture.cgroup("api", true));
    let (_, mut registry) = fixture.registry();
    let first = request("web", &web);
    registry.register(&first).expect("taken");
    assert_eq!(registry.register(&first).expect("the same again is the same"), first.uid);
    let name = registry.register(&request("web", &api)).expect_err("the name is taken");
    let cgroup = registry.register(&request("other", &web)).expect_err("the cgroup is taken");
    assert!(matches!(name, WorkloadError::Conflict { what: "name", .. }));
    assert!(matches!(cgroup, WorkloadError::Conflict { what: "cgroup", .. }));
}

#[test]
fn what_is_not_acceptable_is_named() {
    let fixture = Fixture::new();
    let cgroup = fixture.cgroup("web", true);
    let (_, mut registry) = fixture.registry();
    let good = request("web", &cgroup);
    let field = |registry: &mut Registry, request: Register| match registry.register(&request) {
        Err(WorkloadError::Invalid { field, .. }) => field.to_owned(),
        Err(WorkloadError::Label { key, .. }) => key,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(&mut registry, Register { uid: "1".into(), ..good.clone() }), "uid");
    assert_eq!(field(&mut registry, Register { name: "Web".into(), ..good.clone() }), "name");
    assert_eq!(field(&mut registry, Register { kind: "host".into(), ..good.clone() }), "type");
    assert_eq!(field(&mut registry, Register { namespace: "/abs".into(), ..good.clone() }), "namespace");
    assert_eq!(field(&mut registry, Register { cgroup: "/tmp".into(), ..good.clone() }), "cgroup");
    assert_eq!(field(&mut registry, Register { cgroup: fixture.root().join("../data"), ..good.clone() }), "cgroup");
    let labels = BTreeMap::from([("@node".to_owned(), "x".to_owned())]);
    assert_eq!(field(&mut registry, Register { labels, ..good }), "@node");
}

#[test]
fn the_declared_list_is_followed() {
    let fixture = Fixture::new();
    fixture.cgroup("system.slice/db.service", true);
    let (_, mut registry) = fixture.registry();
    let declared = |tier: &str| Declared {
        name: "db".into(),
        unit: Some("db.service".into()),
        cgroup: None,
        namespace: String::new(),
        labels: BTreeMap::from([("tier".into(), tier.into())]),
    };
    let mut problems = Vec::new();
    assert!(registry.declare(&[declared("a")], &mut problems));
    let uid = registry.find("db").expect("found by its unit").uid.clone();
    assert!(!registry.declare(&[declared("a")], &mut problems), "nothing new");
    assert!(registry.declare(&[declared("b")], &mut problems));
    assert_eq!(registry.find("db").expect("there").uid, uid, "a label does not change who it is");
    assert!(registry.declare(&[], &mut problems));
    assert!(registry.find("db").is_err() && problems.is_empty());
}
