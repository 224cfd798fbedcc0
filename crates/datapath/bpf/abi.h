/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel programs and the loader share, to the byte. `src/abi.rs` says the same in Rust; a test compares both.
 * Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d. Ports are host order. Multi-byte numbers are host order unless said. */
#pragma once

#define ABI_VERSION 1

#define OPTION_KIND 253
#define OPTION_LEN 20
#define OPTION_EXID 0x5354
#define OPTION_VERSION 1
#define MESSAGE_SYN 1
#define MESSAGE_SYNACK 2
#define MESSAGE_ACK 3

#define GENERATIONS 4
#define RANGES_MAX 32
#define ANCESTORS_MAX 16
#define BURN_SLOTS 8
#define BURN_SECONDS 256
#define T_SECONDS 64
#define REASONS 64

/* policy::reason::Reason; 0 = none. A test compares the numbers. */
#define R_POLICY_DENY 1
#define R_DEFAULT_DENY 2
#define R_PEER_SIDE_DENY 3
#define R_DEPTH_UNAVAILABLE 4
#define R_REVOKED 5
#define R_PENDING 6
#define R_EXTERNAL_DENY 7
#define R_FLEET_ADDRESS_PLAIN 8
#define R_UDP_UNANNOUNCED 9
#define R_ICMP_DENY 10
#define R_PLACE_MISMATCH 20
#define R_UNKNOWN_PLACE 21
#define R_SOURCE_MISMATCH 22
#define R_FLAGS_MISMATCH 23
#define R_OPTION_MALFORMED 30
#define R_FLEET_MAC_BAD 31
#define R_PAIR_MAC_BAD 32
#define R_TIME_OUTSIDE 33
#define R_PEER_UNKNOWN 34
#define R_KEY_UNKNOWN 35
#define R_REPLAY 36
#define R_BURN_FULL 37
#define R_DATA_BEFORE_PROOF 38
#define R_SIMULTANEOUS_OPEN 39
#define R_OPTION_MISSING 40
#define R_SEQUENCE_UNEXPECTED 41
#define R_PARSE_FAILED 42
#define R_NO_VERDICT 43
#define R_NO_OPTION_SPACE 44
#define R_MPTCP 45
#define R_RAW_SOCKET 46
#define R_CLOCK_OUTSIDE 47

/* Classes: ClassId. */
#define CLASS_ANY 0
#define CLASS_NONE 0x7fffffffU     /* of a peer: not known under this bank */
#define CLASS_EXTERNAL 0x80000000U /* top bit; alone: EXTERNAL_OTHER */

/* Direction, from the local workload's view. */
#define INGRESS 0
#define EGRESS 1

/* What a record rests on (rule 16). */
#define PROOF_NONE 0
#define PROOF_PROVED 1
#define PROOF_CLAIMED 2
#define PROOF_EXTERNAL 3
#define PROOF_OLDER 4 /* older than the attach, judged by address */
#define PROOF_HOME 5 /* both sockets are this workload's, by look-up inside one namespace */

/* Stages: per-CPU counters. */
#define S_SYN_SENT 0
#define S_SYN_SEEN 1
#define S_SYN_OK 2
#define S_SYNACK_SENT 3
#define S_SYNACK_SEEN 4
#define S_SYNACK_OK 5
#define S_ACK_SENT 6
#define S_ACK_SEEN 7
#define S_ACK_OK 8
#define S_OPENED_SERVER 9
#define S_OPENED_CLIENT 10
#define S_EXTERNAL_OK 11
#define S_CONNECT_REFUSED 12
#define S_EVENT_LOST 13
#define S_NOTICE_LOST 14
#define S_DENIAL_OVERFLOW 15
#define S_BURN_FULL 16
#define S_NO_MEMORY 17
#define S_CUT 18
#define S_STAGES 32

/* struct local.flags */
#define L_VALID 1
#define L_ENFORCE 2
#define L_REVOKED 4
#define L_HOST 8
#define L_PLACED 16

/* struct peer.flags */
#define P_REVOKED 1

/* struct verdict.flags */
#define V_ALLOW 1
#define V_WOULD_ALLOW 2

/* struct place.kind */
#define PLACE_NODE 1
#define PLACE_WORKLOAD 2
#define PLACE_SERVICE 3
#define PLACE_DECLARED 4

/* struct network.flags */
#define N_CLASS 1  /* `class` holds; otherwise only `scope` does */
#define N_FLEET 2  /* an address of the fleet */
#define N_SCOPE 4  /* the option is sent there */

/* struct event.kind */
#define E_OPEN 1
#define E_CLOSE 2
#define E_REFUSED 3
#define E_UNKNOWN 4

/* struct event.flags */
#define EF_WOULD 1    /* recorded, not carried out */
#define EF_RESET 2    /* answer with a reset (rule 13) */
#define EF_EARLY 4    /* refused in connect(), before any packet */
#define EF_CUT 8      /* a live connection was cut */

union addr {
	__u8 b[16];
	__u32 w[4];
	__u64 d[2];
};

struct key128 {
	__u64 k0;
	__u64 k1;
};

struct config {
	__u64 live; /* epoch << 1 | bank; written last, in one store; 0 = nothing is applied */
	__s64 clock_offset_ns;
	__u64 secret[2];
	struct key128 fleet[GENERATIONS];
	__u32 node;
	__u32 host; /* stamp of the host workload, 0 = none */
	__u8 fleet_valid; /* a bit per generation */
	__u8 fleet_generation;
	__u8 own_generation;
	__u8 marked; /* every socket older than the attach is marked */
	__u8 end_older; /* connections older than the attach are judged by address and cut when refused */
	__u8 pad[3];
	__u64 answered_ns; /* boot time: what was asked up to then was answered, and the answer is live */
	__u64 port_places; /* which ports places name: bit = low six bits of the port */
};

/* Classes stand in two cells, one for each bank of verdicts: while a relabelling goes live, the class that a verdict is asked
 * for and the bank that is asked are of one state. The reader takes the cell of the `live` that it read first (rule 14). */
#define BANKS 2
#define CLASS_IN(entry, live) ((live) & 1 ? (entry)->class[1] : (entry)->class[0])

/* A workload of this node. A stamp is generation << 16 | index; index 0 is never used. */
struct local {
	__u64 instance;
	__u32 class[BANKS];
	__u16 generation;
	__u16 slot;
	__u32 flags;
};

/* Key: node << 16 | slot. */
struct peer {
	__u64 instance;
	__u32 class[BANKS]; /* CLASS_NONE: unknown under that bank (rule 11) */
	__u32 flags;
	__u32 pad;
};

struct pair {
	struct key128 tx;
	struct key128 rx;
};

/* Keys with one node; pairs[own generation << 2 | peer generation]. */
struct node_keys {
	__u8 own_generation;
	__u8 peer_generation;
	__u16 valid; /* a bit per pair */
	__u32 pad;
	struct pair pairs[GENERATIONS * GENERATIONS];
};

struct place_key {
	union addr addr;
	__u16 port;
	__u8 proto;
	__u8 pad;
	__u32 pad2;
};

struct place {
	__u64 ref; /* node, node << 16 | slot, or Service id */
	__u32 class[BANKS]; /* of a Service: the one class of all its members, 0 = they differ */
	__u16 real_port; /* 0 = the dialled one */
	__u8 kind;
	__u8 claimed_udp;
	__u32 pad;
};

struct member_key {
	__u64 ref;
	__u32 service; /* or CLAIMED_UDP | port: a UDP port of a local workload that a Service declares */
	__u32 pad;
};

#define CLAIMED_UDP 0x80000000U

struct verdict {
	__u32 rule;
	__u8 flags;
	__u8 reason;
	__u16 pad;
};

struct verdict_key {
	__u32 local;
	__u32 peer;
	__u32 direction;
};

struct verdict_set {
	struct verdict otherwise;
	__u32 ports; /* index into the port sets, 0 = none */
	__u32 pad;
};

struct port_range {
	__u16 first;
	__u16 last;
	__u8 proto;
	__u8 pad[3];
	struct verdict verdict;
};

struct port_set {
	__u32 count;
	__u32 pad;
	struct port_range ranges[RANGES_MAX];
};

struct network_key {
	__u32 prefix_len;
	union {
		__u8 b[16];
		__u32 w[4];
	} addr;
};

struct network {
	__u32 class;
	__u32 flags;
};

/* What one bucket has seen burnt: 48 bits of keyed hash, 16 bits of seconds. */
struct burn_bucket {
	__u64 slots[BURN_SLOTS];
};

/* What is known of a SYN until its ACK: a cache, lossy by design. */
struct pending {
	union addr remote;
	__u64 peer;
	__u64 peer_instance;
	__u64 own_instance;
	__u32 client_isn;
	__u32 stamp;
	__u16 remote_port;
	__u16 local_port;
	__u16 own_slot;
	__u8 flags; /* of the SYN */
	__u8 cookie; /* the SYN-ACK was a SYN cookie */
	__u32 seconds;
	__u32 rule;
	__u8 generation; /* the client's own */
	__u8 reason;
	__u8 would_allow;
	__u8 pad;
	__u64 live; /* under which the SYN was allowed */
	__u64 check;
};

/* sk_storage of every socket we saw. */
struct sock_state {
	__u64 live; /* the config.live under which it may pass at once; 0 = look closer */
	__u64 stamp_live; /* the config.live under which `stamp` was resolved by cgroup */
	__u64 peer;
	__u64 peer_instance;
	__u64 verified; /* client: config.live under which the SYN-ACK was judged */
	__u64 asked_ns; /* boot time of the first question about this connection's place, 0 = none */
	__u32 stamp;
	__u32 peer_class;
	__u32 client_isn;
	__u32 server_isn;
	__u32 rule;
	__u16 port; /* the policy's port */
	__u8 role;
	__u8 proof;
	__u8 reason; /* why it would have been refused */
	__u8 would_allow;
	__u8 told; /* older than the attach: its would-be refusal was reported */
	__u8 flags;
	__u8 peer_flags; /* identity flags as received */
	__u8 option_t; /* low bits of the T that `option` was made at */
	__u8 option_made;
	__u8 opened; /* an open record was written */
	__u8 option[OPTION_LEN];
	__u8 generations; /* to send the ACK with: own << 2 | peer */
	__u8 pad[3];
};

#define ROLE_NONE 0
#define ROLE_CLIENT 1
#define ROLE_SERVER 2
#define ROLE_LISTENER 3
#define ROLE_UNMANAGED 4
#define ROLE_OLDER 5
#define ROLE_EXEMPT 6 /* the agent's own; set through the descriptor */

#define SF_LABELLED 1 /* the peer answered with identity */
#define SF_WRITE_SHARED 2 /* another program had asked for header options before us */
#define SF_DENIED 4 /* a record of the cut was written */
#define SF_NO_SPACE 8 /* its SYN had no room for the option */

/* A UDP exchange that was allowed: answers pass while it is young. */
struct flow_key {
	union addr remote;
	__u64 cookie;
	__u16 port; /* the remote one */
	__u16 pad[3];
};

struct flow {
	__u64 live;
	__u64 peer;
	__u32 class;
	__u32 rule;
	__u32 seconds; /* last used */
	__u16 policy_port;
	__u8 direction;
	__u8 proof;
};

#define FLOW_SECONDS 180

struct denial_key {
	__u64 peer; /* node << 16 | slot, or the class when proof is external; 0 = unknown */
	__u32 rule;
	__u32 stamp;
	__u16 port;
	__u8 proto;
	__u8 direction;
	__u8 reason;
	__u8 would;
	__u8 proof;
	__u8 pad;
};

struct event {
	__u64 boot_ns;
	__u64 netns;
	__u64 peer; /* 0 = unknown */
	__u64 bytes_in;
	__u64 bytes_out;
	union addr remote;
	union addr local;
	__u32 client_isn;
	__u32 server_isn;
	__u32 stamp;
	__u32 class;
	__u32 rule;
	__u16 remote_port;
	__u16 local_port;
	__u16 port; /* the policy's port */
	__u8 kind;
	__u8 flags;
	__u8 reason;
	__u8 direction;
	__u8 proof;
	__u8 proto;
	__u8 verdict; /* V_* */
	__u8 generations; /* own << 2 | peer, for unknown keys */
	__u16 pad;
	__u32 pad2;
};

/* What the sweep writes for each connection that it destroyed. */
struct swept {
	__u64 peer;
	__u64 cookie;
	union addr remote;
	union addr local;
	__u32 stamp;
	__u32 rule;
	__u16 remote_port;
	__u16 local_port;
	__u8 reason;
	__u8 proof;
	__u8 direction;
	__u8 destroyed; /* by the walk itself */
	__u32 device;   /* that it is bound to, 0 = none */
	__u32 pad;
};

#define WALK_REPAIRED 1 /* it answers with identity since this walk */
#define WALK_REPAIRS 2  /* the kernel lets a walk do that, whether or not it was needed */

/* What a walk over listeners writes for each of them. */
struct listener {
	union addr local;
	__u32 stamp;
	__u16 port;
	__u8 labels;   /* it answers with identity */
	__u8 repaired; /* WALK_* */
};
