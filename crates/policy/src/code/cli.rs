//! `C6xxx`: what can go wrong between a person and the `stolos` command line.

use super::codes;

codes! {
    USAGE = "C6001", "the command line does not parse",
        "A verb, flag or value is not one that `stolos` knows. Nothing was done.",
        "Compare with `stolos VERB --help`; the message names the word it stumbled over.";
    CONFIG_MISSING = "C6002", "no operator's configuration",
        "The verb asks the server, and nothing says where that is and with which certificate.",
        "Name the file that `stolos server init` wrote with --config or STOLOS_CONFIG, or copy it to ~/.config/stolos/admin.yaml (mode 0600).";
    CONFIG_BAD = "C6003", "the operator's configuration cannot be used",
        "The file was read, but lacks something, or a certificate or key in it does not parse.",
        "Take the file as `stolos server init` wrote it; it is one piece with its certificate and key.";
    SERVER_UNREACHABLE = "C6004", "the server does not answer",
        "No connection to the address in the configuration: nothing listens, the name does not resolve, or the way is blocked. Enforcement on the nodes goes on without the server.",
        "Check that `stolos server run` runs, and the address in the configuration.";
    SERVER_UNTRUSTED = "C6005", "the server's certificate is not the expected one",
        "Whoever answers at that address shows a certificate that the configuration's authority did not sign, or for another name. Nothing was sent.",
        "If the server was set up anew, take its new admin.yaml; if it is reached by another name, add it with `stolos server init --name`. Otherwise somebody else answers there: find out who.";
    CREDENTIAL_REFUSED = "C6006", "the server refuses this certificate",
        "The operator's certificate in the configuration is expired, or not from this server's authority.",
        "Use the admin.yaml of this server; the message says when the certificate ended.";
    CLOCK_SKEW = "C6007", "the clocks differ too much",
        "The clock here and the server's differ by more than certificates and the handshake allow, so nothing can be checked.",
        "Set the clock (`timedatectl set-ntp true`), here or there; the message says which way it is off.";
    KIND_UNKNOWN = "C6008", "unknown kind",
        "There is no kind of objects by that name.",
        "Use the suggested one; `stolos get` lists all kinds.";
    FILE_UNREADABLE = "C6009", "a file cannot be read",
        "The file does not exist, may not be read by this user, or is no text.",
        "Check the path and the rights on it.";
    FILE_UNWRITABLE = "C6010", "the answer cannot be written",
        "The file, or standard output, does not take what was to be written.",
        "Check that the directory exists, that you may write there, and that there is room.";
    AGENT_UNREACHABLE = "C6011", "no agent answers on this machine",
        "Nobody listens at the agent's socket, or whoever does gives no answer. Programs already enforced stay enforced by the kernel; `stolos run` starts nothing.",
        "Start the agent (`systemctl start stolos-agent`), or name its socket with --socket.";
    ROOT_NEEDED = "C6012", "root is needed",
        "Only root may load kernel programs, and only root may talk to the agent, because labels and enforcement are in its hands.",
        "Run it as root, for example with sudo.";
    ANSWER_STRANGE = "C6013", "an answer that this version does not understand",
        "The server or the agent answered with something that is not in this version's contract. The two are probably of different versions.",
        "Compare `stolos version` on both sides and use the same one.";
    PROGRAM_MISSING = "C6014", "the program cannot be started",
        "There is no such program in PATH, or the file is not executable. Nothing was started or registered.",
        "Check the spelling, or give the whole path.";
    CGROUP_REFUSED = "C6015", "no cgroup for the workload",
        "The workload's cgroup could not be made below the agent's, or this process could not be moved into it. Nothing was started.",
        "Run it as root on a machine with cgroup v2; the message names the directory and the reason.";
    WORKLOAD_REFUSED = "C6016", "the workload was not accepted",
        "The agent or the server refuses the workload as it was described. Nothing was started.",
        "The message says what is refused: a label key or namespace that the cluster may not assert, or a name already taken.";
    CODE_UNKNOWN = "C6017", "unknown code",
        "There is no code of that id.",
        "Copy it from the message; `stolos explain code all` lists them.";
    FIELD_UNKNOWN = "C6018", "unknown field",
        "The kind has no such field.",
        "Use the suggested one, or ask for the kind alone, as in `stolos explain field policy`.";
    UNCONFIRMED = "C6019", "not every node has confirmed",
        "The change is stored and is on its way, but some nodes did not confirm in the time given. On those it may not be live yet.",
        "Look at `stolos status`: it goes on showing who has not confirmed. A node that is off confirms when it is back.";
    CHECK_FAILED = "C6020", "the doctor found something broken",
        "At least one check failed; enforcement on this node may be incomplete.",
        "Each failed check says what to do; run `stolos doctor` again afterwards.";
    NAME_UNKNOWN = "C6021", "no object of that name",
        "The kind has no object of that name in that namespace.",
        "Use the suggested name, or list them with `stolos get KIND`; -n names the namespace.";
    DIRECTORY_UNFIT = "C6022", "the data directory does not fit",
        "`server init` and `dev` need a directory that is absent or empty, `server run` one that `server init` has written.",
        "Choose another directory, or run `stolos server init` on this one first.";
    ADDRESS_TAKEN = "C6023", "cannot listen there",
        "Another process listens on that address and port, or the address is not this machine's.",
        "Stop the other process, or choose another address with --listen.";
    RESOURCES = "C6024", "the system gives no resources",
        "A thread, descriptor or signal handler that every process needs was refused by the system.",
        "Check the limits on processes and open files (`ulimit -a`), and the memory that is left.";
    TOKEN_UNREADABLE = "C6025", "no join token",
        "The file holds something else than a join token, or only a part of one.",
        "Make one with `stolos cluster join-token CLUSTER --out FILE`, and copy the file whole.";
    CONTEXT_UNKNOWN = "C6026", "no such context",
        "No context of that name is kept on this machine, or none is the current one.",
        "Use the suggested name; `stolos context list` shows them, `stolos context add NAME --from admin.yaml` keeps one.";
    EDITOR_FAILED = "C6027", "the editor failed",
        "The editor could not be started, or ended with an error, as editors do to say that nothing shall be stored. Nothing was.",
        "Name another one with VISUAL or EDITOR.";
    WAIT_ENDED = "C6028", "waited long enough",
        "What was waited for did not come about in the time given. Nothing was changed by waiting.",
        "Wait longer with --timeout; `stolos describe KIND NAME` and `stolos status` say what is in the way.";
    TRAIL_BROKEN = "C6029", "the audit trail does not hold",
        "An entry of the audit trail is missing, doubled, out of order or altered, so somebody with access to the database touched it.",
        "Keep the database and its backups as they are, compare with a copy of the trail, and find out who has access.";
}
