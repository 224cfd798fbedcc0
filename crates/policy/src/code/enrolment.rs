//! `E4xxx`: enrolment of nodes, and what the server refuses on a Sync stream.

use super::codes;

codes! {
    TOKEN_UNKNOWN = "E4001", "the join token is not known",
        "No cluster has a join token with this secret: it was mistyped, or belongs to another control plane.",
        "Make a new one with `stolos cluster join-token CLUSTER` at the server that the node shall join.";
    TOKEN_SPENT = "E4002", "the join token was used already",
        "A join token admits one node; the first success spends it.",
        "Make a new one for this node. If nobody of yours used it, look at the cluster's newest Node and revoke it.";
    TOKEN_EXPIRED = "E4003", "the join token has expired",
        "Join tokens are short-lived.",
        "Make a new one, and use it soon; `--ttl` chooses how long it lasts.";
    CLUSTER_GONE = "E4004", "the token's cluster does not exist any more",
        "The Cluster was deleted, or is revoked, after the token was made.",
        "Apply the Cluster again, or delete its Revocation; then make a new token.";
    CSR_BAD = "E4005", "the certificate request is not valid",
        "The request cannot be read, is not signed by its own P-256 key, or asks for what a node may not have.",
        "Let the agent make it; an agent of another product or version may be calling.";
    NODE_KEY_BAD = "E4006", "the node's handshake key is not valid",
        "The X25519 key has a wrong length, is a low-order point, or is not signed by the key of the node's certificate.",
        "Restart the agent. If it stays so, enrol the node again with a new token.";
    HOSTNAME_BAD = "E4007", "the host name cannot be a node's name",
        "Node names are DNS labels joined by dots: a-z, 0-9 and `-` inside.",
        "Give the token a name for the node with `--node NAME`, or change the host's name.";
    NODES_EXHAUSTED = "E4008", "no node number is free",
        "All node numbers are in use, or were released and not yet acknowledged by every node.",
        "Delete the Nodes that are gone for good.";
    CLOCK_FAR = "E4009", "the node's clock is far off",
        "The node's clock differs from the server's by more than the handshake tolerates.",
        "Synchronise the node's clock (chrony, systemd-timesyncd).";

    NOT_A_NODE = "E4010", "the certificate is no node's",
        "Sync is for enrolled nodes: the connection has no client certificate, or one of another kind.",
        "Enrol the node with a join token.";
    NODE_UNKNOWN = "E4011", "the node is not enrolled here",
        "The certificate names a node that was deleted, or that enrolled into another control plane.",
        "Enrol it again with a new join token.";
    PROTOCOL_VERSION = "E4012", "agent and server speak no common protocol",
        "The agent offers a Sync protocol version that this server does not have.",
        "Upgrade the older of the two.";
    MESSAGE_UNEXPECTED = "E4013", "a Sync message out of place",
        "The stream did not begin with Hello, or carried a message that cannot be read.",
        "This is a defect of the agent, or something else is calling. Restart the agent and report it.";
    NODE_REVOKED = "E4014", "the node is revoked",
        "A Revocation takes this node or its cluster out of the fleet.",
        "Delete the Revocation to let it back in.";
    ROTATION_BUSY = "E4015", "a key rotation is still under way",
        "A key generation may be replaced only after every node has acknowledged the last change.",
        "Wait until `stolos status` shows every node up to date, or delete the Nodes that are gone for good.";
    REPLACED = "E4016", "another stream of the same node took over",
        "A node has one Sync stream; the newer one holds.",
        "Nothing, if the agent has just restarted. If it repeats, two agents run with one certificate: enrol one anew.";

    UID_BAD = "E4020", "the workload's uid is not a UUID",
        "A workload is known by the UUID of its instance.",
        "Let the agent or the container runtime make it.";
    NAME_BAD = "E4021", "not a workload name",
        "Workload names are DNS labels joined by dots: a-z, 0-9 and `-` inside.",
        "Choose another name, as in `stolos run --name web`.";
    NAME_TAKEN = "E4022", "the name is taken on this node",
        "Another live workload of the node, in the same namespace, has this name.",
        "Choose another name, or end the other workload.";
    TYPE_UNKNOWN = "E4023", "not a type of workload",
        "The type is none of process, unit, container, pod and host.",
        "Upgrade the server if the agent is newer.";
    NAMESPACE_REFUSED = "E4024", "the cluster may not use this namespace",
        "The namespace is not valid, or is not among those that the Cluster object allows its nodes.",
        "Add it to `spec.allowedNamespaces` of the Cluster, or run the workload elsewhere.";
    LABEL_REFUSED = "E4025", "the cluster may not use this label",
        "The label's key is not among those that the Cluster object allows its nodes.",
        "Add the key to `spec.labelKeys` of the Cluster, or take the label away.";
    LABEL_BAD = "E4026", "not a valid label",
        "The key or value has characters or a length that labels do not have, or there are too many of them.",
        "Use letters, digits and `-_./:` in keys; at most 128 attributes in all.";
    SYSTEM_KEY = "E4027", "the key is the system's",
        "Keys that begin with `@` are attested or derived; nobody can assert them as labels.",
        "Use a key without `@`.";
    ADDRESS_RANGE = "E4028", "the cluster may not declare this address",
        "Agents declare where workloads are only within the ranges that the Cluster object grants.",
        "Add the range to `spec.addressRanges` of the Cluster, or remove the address from the node.";
    ADDRESS_TAKEN = "E4029", "the address belongs to somebody else",
        "Another node or workload of the same network realm has declared this address before, and still lives.",
        "Find out who is right: two clusters with equal addresses are two realms (`spec.realm` of the Cluster).";
    SLOTS_EXHAUSTED = "E4030", "no slot is free on this node",
        "All slots of the node are in use, or were released and not yet acknowledged by every node.",
        "Let the nodes that are behind catch up, or delete the Nodes that are gone for good.";
    SERVICE_AMBIGUOUS = "E4031", "a Service endpoint means two places",
        "An endpoint's address exists in more than one network realm, so that it names nobody.",
        "Name the realms in the Service's addresses, or choose the members by selector.";
    TOO_MUCH = "E4032", "a node says too much",
        "Its agent reports more changes than the server takes from one node, and is heard more slowly.",
        "Look for a workload that is relabelled or restarted without end; if there is none, revoke the node.";
}
