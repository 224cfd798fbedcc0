//! `K5xxx`: the node agent, the kernel under it, and what `stolos doctor` finds.

use super::codes;

codes! {
    ROOT_NEEDED = "K5001", "the agent needs root",
        "Only root may load kernel programs and enter network namespaces. Nothing was started.",
        "Start it as root, for example by its systemd unit.";
    KERNEL_TOO_OLD = "K5002", "the kernel is too old",
        "Enforcement needs Linux 5.15 or later with BPF and cgroup v2. Nothing was started.",
        "Boot a newer kernel; `uname -r` says which one runs.";
    CGROUP_UNUSABLE = "K5003", "the cgroup root cannot be used",
        "Programs attach to a cgroup v2 directory, and the configured one does not exist or is not on a cgroup v2 mount.",
        "Mount cgroup v2 (`mount -t cgroup2 none /sys/fs/cgroup/unified`), or name the right directory with --cgroup-root.";
    BPFFS_UNUSABLE = "K5004", "no BPF file system at the pin path",
        "Programs and maps are pinned on a BPF file system, so that enforcement outlives the agent; there is none at that path.",
        "Mount it on the host: `mount -t bpf bpf /sys/fs/bpf`, or name another with --bpf-pin.";
    PROGRAMS_REFUSED = "K5005", "the kernel refused the programs",
        "Loading or attaching failed although the machine fulfils the baseline. Nothing is enforced.",
        "Look at the message for the kernel's own words, at `stolos doctor`, and whether another agent holds the pin path.";
    DATA_UNUSABLE = "K5006", "the data directory cannot be used",
        "Keys and the last state are kept there; without them the agent would forget who it is.",
        "Check that the directory exists or can be made, that root may write there and that there is room.";
    SOCKET_UNUSABLE = "K5007", "the agent's socket cannot be used",
        "The path is taken by a live agent, or cannot be made.",
        "Stop the other agent, or give each its own path with --socket.";
    NOT_ENROLLED = "K5008", "the node is not enrolled and has no join token",
        "The agent has no certificate in its data directory, and nothing to get one with.",
        "Make a token with `stolos cluster join-token CLUSTER` and start with --join-token-file.";
    STATE_FILE_BAD = "K5009", "the state file cannot be used",
        "The file does not exist, is no JSON, or has a field that the datapath does not know.",
        "Compare with the example in docs; the message says line and column.";
    STATE_UNTRUSTED = "K5010", "a state is not the server's",
        "A state's seal does not fit its content, this node or this trust domain. It is not enforced; the kernel keeps what it has.",
        "Let the agent reach its server, which sends a whole state. If it happens again, find out who writes to the data directory.";
    STATE_OLDER = "K5011", "the server offers an older state than this node had",
        "Revisions only grow. An older one means a server restored from a backup, or somebody who replays. It is refused.",
        "If the server was restored on purpose, remove `state` and `floor.json` from the agent's data directory and restart the agent.";
    NOT_APPLIED = "K5012", "the kernel could not take the update",
        "A map is full or the kernel refused a write. The last good state stays in force, whole.",
        "Compare `stolos doctor` (map capacities) with the fleet; reduce policies or workloads, or raise the capacity.";
    OBJECT_UNUSABLE = "K5013", "an object from the server cannot be used",
        "The agent cannot read it, or it names something that is not there. The last good state stays in force, whole.",
        "Upgrade the agent if the server is newer; otherwise change or delete the object that the message names.";
    KEY_LOW_ORDER = "K5014", "a node's public key is of low order",
        "Anybody could share a secret with such a key, so nothing is proved to or by that node; its connections are refused.",
        "Re-enrol that node, and find out how the key came to be.";
    CLOCK_SKEW = "K5015", "this machine's clock is off",
        "It differs from the server's by more than 30 s. The handshake uses the server's time and goes on; certificates and logs suffer.",
        "Set the clock: `timedatectl set-ntp true`.";
    CLOCK_UNCONFIRMED = "K5016", "the server's time is not known since this boot",
        "The machine's own clock serves for the handshake until the server is heard, never below the last known time.",
        "Let the agent reach its server; if peers refuse meanwhile, set the clock.";
    STATE_EXPIRED = "K5017", "the outage budget is used up",
        "The state's seal has expired without word from the server. It stays in force, but revocations since then are unknown here.",
        "Bring the server back, or the way to it.";
    SERVER_UNREACHABLE = "K5018", "the server cannot be reached",
        "There is no Sync stream. Enforcement goes on with the last state; new workloads stay pending.",
        "Check the server and the way to it; the message has the last error.";
    ENROLMENT_FAILED = "K5019", "the node could not be enrolled",
        "The server refused the join token, or somebody else than the token's server answered. Nothing was stored.",
        "Make a new token (each is used once and expires); if the fingerprint differs, find out who answers at that address.";
    WORKLOAD_UNKNOWN = "K5020", "no such workload on this node",
        "Neither a name nor a uid of a workload here.",
        "`stolos agent status` lists them.";
    WORKLOAD_INVALID = "K5021", "the workload cannot be registered so",
        "Its uid, name, type, namespace or cgroup is not acceptable; the message says which.",
        "Mend what the message names.";
    WORKLOAD_CONFLICT = "K5022", "another workload has that name or cgroup",
        "Names and cgroups belong to one workload of a node at a time.",
        "Choose another name, or end the other workload first.";
    LABEL_INVALID = "K5023", "the label is not acceptable",
        "Keys that begin with @ belong to the system, and keys and values have limits of form and length.",
        "Write KEY=VALUE with a key as Kubernetes has them.";
    WORKLOAD_PENDING = "K5024", "the workload is pending",
        "The agent knows it and the server has not placed it yet; peers refuse it until then.",
        "Wait for the server, or bring it back; `stolos agent status` shows whether it is connected.";
    WORKLOAD_REFUSED = "K5025", "the server refused the workload",
        "Its Cluster does not allow its namespace or one of its label keys, or its name is taken.",
        "Change the label or namespace, or what the Cluster allows.";
    CALLER_NOT_ROOT = "K5026", "only root may talk to the agent",
        "Labels and enforcement are in the agent's hands, so its socket serves root alone.",
        "Run the command as root.";
    DETACHED = "K5027", "enforcement is off on this node",
        "Somebody with root took it off (break-glass). Connections are neither labelled nor refused here.",
        "`stolos agent attach` puts it back.";
    REQUEST_INVALID = "K5028", "the request cannot be read",
        "The body is no JSON of the expected form, or the path is unknown.",
        "Use the `stolos` of the same version as the agent.";
    LISTENER_OLDER = "K5029", "a listener is older than the enforcement",
        "It listened before the programs were attached, and this kernel cannot repair it in place, so its answers carry no identity and peers refuse it.",
        "Restart that program, or use Linux 6.12 or later.";
    NOT_CAPTURED = "K5030", "traffic passes by the programs",
        "A process holds a packet socket, raw socket or TUN device; what goes through it carries no identity and is not judged.",
        "Stop the process if it should not have it; otherwise know that it is not protected.";
    FEATURE_ABSENT = "K5031", "an optional kernel feature is absent",
        "Enforcement works without it, with a limit that the message names.",
        "Use the newer kernel that the message names, if the limit matters.";
    SYSCTL_HINDERS = "K5032", "a kernel setting hinders identity",
        "TCP Fast Open or MPTCP take the room of the identity option, so such connections are refused or start slower.",
        "Set it as the message says, for the namespaces of protected workloads.";
    DECLARED_LIST_BAD = "K5033", "the list of workloads cannot be used",
        "The file is not readable, not YAML of the expected form, or an entry is not acceptable.",
        "Mend what the message names; the workloads known before stay.";
    COVERS_FLEET = "K5034", "an ExternalNetwork covers addresses of the fleet",
        "Addresses of workloads, nodes and declared gateways are never external, so the rule does not reach them.",
        "Select workloads by their attributes instead, or narrow the network.";
    MAP_NEARLY_FULL = "K5035", "a kernel map is nearly full",
        "When it is full, updates are refused as a whole and the last good state stays.",
        "Reduce what fills it, or raise its capacity and restart the agent.";
    STOPPING = "K5036", "the agent is stopping",
        "It takes no new requests; enforcement stays in the kernel.",
        "Ask again when it runs.";
    NOT_SERVED = "K5037", "the agent enforces a state from a file",
        "Without a server there is nobody who could place workloads or take labels.",
        "Change the file and restart the agent, or enrol the node.";
}
