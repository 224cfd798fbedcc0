//! `P1xxx`: why a packet, connection or flow was refused. One page for each [`crate::reason::Reason`].

use super::codes;

codes! {
    POLICY_DENY = "P1001", "a policy denies it",
        "A policy with `action: deny` matches the flow. On each side any matching deny wins over every allow.",
        "Run `stolos explain flow` to see which policy decides; narrow that policy, or delete it.";
    DEFAULT_DENY = "P1002", "no policy allows it",
        "No policy that speaks for this end allows the flow, and the posture of its namespace denies what is not allowed.",
        "Run `stolos explain flow`: it names the attribute that was missing and the smallest rule that would allow the flow.";
    PEER_SIDE_DENY = "P1003", "the other side refused it",
        "This end allows the flow, the other end does not. Its policies are not shown to those who may not read them.",
        "Ask the owner of the other namespace; give them the request id or the two workloads and the port.";
    DEPTH_UNAVAILABLE = "P1004", "the demanded depth is not available",
        "The deciding policy asks for encryption or HTTP rules, and no enforcer at this end can give it.",
        "Take the demand out of the policy, or run an enforcer that can meet it.";
    REVOKED = "P1005", "revoked",
        "The workload, its node or its cluster is the target of a Revocation. Every verdict both ways is deny.",
        "Find out why it was revoked with `stolos get revocations`; deleting the Revocation undoes it.";
    PENDING = "P1006", "not placed yet",
        "The agent knows the workload, the server has not given it a slot yet, so peers cannot know it.",
        "Wait a moment. If it lasts, check that the agent reaches the server: `stolos agent status`, `stolos doctor`.";
    EXTERNAL_DENY = "P1007", "an external end that nothing allows",
        "The other end speaks no identity, and no policy allows an ExternalNetwork that covers its address.",
        "If it should be let in, write an ExternalNetwork for its addresses and a policy with `@external=NAME`; if it is a workload of the fleet, run an agent on its node.";
    FLEET_ADDRESS_PLAIN = "P1008", "plain traffic with an address of the fleet",
        "A packet without the identity option came from, or went to, an address of the fleet. Such addresses are never external.",
        "Run an agent on that node, or find what strips TCP options on the way (`stolos doctor`).";
    UDP_UNANNOUNCED = "P1009", "UDP that nobody announced",
        "UDP between workloads passes only where the place table can name both ends; this datagram could not be attributed.",
        "Declare the port in a Service, or use TCP; see the page of stated limits for what UDP is covered.";
    ICMP_DENY = "P1010", "no policy allows the echo",
        "ICMP echo is subject to policy, and none allows it. ICMP errors always pass.",
        "Add `icmp` to the ports of the policy that allows the two ends.";

    PLACE_MISMATCH = "P1020", "the wrong workload answered",
        "The workload that answered proved who it is, but it does not belong at the address that was dialled.",
        "If the address is a balancer or gateway, declare it in a Service with this workload as a member. Otherwise somebody relays the connection: look into it.";
    UNKNOWN_PLACE = "P1021", "the dialled address is no declared place",
        "Nobody declared the dialled address, so nothing says who may answer there, and a plain connection is refused.",
        "Declare a Service with that address and its members, or dial an address that is known.";
    SOURCE_MISMATCH = "P1022", "the source address belongs to another workload",
        "The client's address is the unshared address of another workload in the server's realm.",
        "If something rewrites sources on the way, declare its address as a NAT or gateway address of the cluster.";
    FLAGS_MISMATCH = "P1023", "the flags changed on the way",
        "The flags that the peer says it received differ from those that were sent.",
        "Something rewrites TCP options on the path: find it, or exclude the path.";

    OPTION_MALFORMED = "P1030", "a malformed identity option",
        "The TCP option has our experiment id, but its length, version or type is wrong.",
        "If the peer is an agent of a newer version, upgrade this one. Otherwise something else uses the same experiment id.";
    FLEET_MAC_BAD = "P1031", "not of this fleet",
        "The MAC of a SYN is wrong under the fleet key.",
        "Check that both nodes are enrolled in the same trust domain and that both agents are connected.";
    PAIR_MAC_BAD = "P1032", "the proof of identity is wrong",
        "The MAC of a SYN-ACK or ACK is wrong under the key of the two nodes. The sender does not hold the key of the node it names.",
        "A single one may be a corrupted or stale packet. Many are an attack or a node restored from an old copy: enrol it anew.";
    TIME_OUTSIDE = "P1033", "too old or from the future",
        "The coarse time in the option is outside the window of one step (64 s) either way.",
        "Check the clocks of both nodes with `stolos doctor`; if they are right, this was a replay.";
    PEER_UNKNOWN = "P1034", "a workload that is not in the table",
        "The node and slot in the option are not known here. The agent asks the server, and a retransmission succeeds if it exists.",
        "If it lasts, check that this agent is connected and up to date: `stolos status`.";
    KEY_UNKNOWN = "P1035", "a key that is not in the table",
        "No key of that node and generation is known here. The agent asks the server for it.",
        "If it lasts, check that both agents are connected: `stolos status`.";
    REPLAY = "P1036", "already used",
        "This proof was already used to open a connection.",
        "Somebody sends captured packets again, or a middlebox duplicates them. Nothing was accepted.";
    BURN_FULL = "P1037", "too many connections to rule out a replay",
        "The table of used proofs is full, and nothing else proves that this one is fresh.",
        "Raise the capacity of the table (`stolos doctor` shows it) or find the source of the connections.";
    DATA_BEFORE_PROOF = "P1038", "data before the proof",
        "A SYN carried data or the TCP Fast Open option. No byte reaches an application before both ends are proved.",
        "Switch TCP Fast Open off in the client.";
    SIMULTANEOUS_OPEN = "P1039", "simultaneous open",
        "A SYN arrived at a socket that is itself connecting. The handshake has no proof for this form of opening.",
        "Let one end listen and the other connect.";
    OPTION_MISSING = "P1040", "no identity where one is demanded",
        "A peer that must speak identity answered, or opened, without the option.",
        "Find what strips TCP options on the way, or run an agent on the peer's node.";
    SEQUENCE_UNEXPECTED = "P1041", "the first segment does not fit the handshake",
        "The numbers of the first segment are not those of the handshake. A retransmission heals it.",
        "Nothing, unless it lasts; then look for a middlebox that rewrites sequence numbers.";
    PARSE_FAILED = "P1042", "a packet that could not be read",
        "The packet's headers are damaged or of an unknown form. What cannot be read is dropped.",
        "Look for damaged or exotic packets on the path; the counter shows how many.";
    NO_VERDICT = "P1043", "an established connection without a verdict",
        "The connection's socket has no stored verdict, so it never passed the handshake here.",
        "Open the connection anew.";
    NO_OPTION_SPACE = "P1044", "no room for the identity option",
        "Other TCP options (TCP-MD5, TCP-AO) leave no room for the identity option.",
        "Do without those options on this connection, or make the peer an ExternalNetwork.";
    MPTCP = "P1045", "multipath TCP",
        "Multipath TCP sockets are refused in protected workloads: their subflows escape the handshake.",
        "Switch MPTCP off for the program.";
    RAW_SOCKET = "P1046", "a raw socket",
        "The workload opened a raw or packet socket, which goes round the handshake.",
        "Run the program outside a protected workload, or do without raw sockets.";
    CLOCK_OUTSIDE = "P1047", "this node's clock is outside the window",
        "The node's clock differs so much from the server's that nothing can be proved. It fails closed.",
        "Set the clock (NTP); `stolos doctor` shows the difference.";
}
