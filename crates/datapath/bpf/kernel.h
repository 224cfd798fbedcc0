/* SPDX-License-Identifier: Apache-2.0 */
/* The few kernel types and constants that the programs use, picked by hand so that the build needs no kernel headers.
 * Contexts are stable kernel ABI; internal structs carry preserve_access_index and are relocated at load (CO-RE). */
#pragma once

typedef unsigned char __u8;
typedef signed char __s8;
typedef unsigned short __u16;
typedef short __s16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef __u16 __sum16;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

#define MAP_HASH 1
#define MAP_ARRAY 2
#define MAP_PERCPU_ARRAY 6
#define MAP_LRU_HASH 9
#define MAP_LPM_TRIE 11
#define MAP_ARRAY_OF_MAPS 12
#define MAP_SK_STORAGE 24
#define MAP_RINGBUF 27

#define F_NO_PREALLOC (1U << 0)
#define F_CLONE (1U << 9)
#define F_MMAPABLE (1U << 10)
#define F_INNER_MAP (1U << 12)

#define SK_STORAGE_CREATE 1ULL
#define RB_NO_WAKEUP 1ULL
#define RB_FORCE_WAKEUP 2ULL

/* sock_ops */
#define OPS_TCP_CONNECT_CB 3
#define OPS_ACTIVE_ESTABLISHED_CB 4
#define OPS_PASSIVE_ESTABLISHED_CB 5
#define OPS_STATE_CB 10
#define OPS_TCP_LISTEN_CB 11
#define OPS_HDR_OPT_LEN_CB 14
#define OPS_WRITE_HDR_OPT_CB 15
#define OPS_FLAG_STATE (1 << 2)
#define OPS_FLAGS_PARSE (1 << 4 | 1 << 5) /* all options, unknown options */
#define OPS_FLAG_WRITE_HDR_OPT (1 << 6)
#define WRITE_TCP_CURRENT_MSS 1
#define WRITE_TCP_SYNACK_COOKIE 2

#define TCP_STATE_ESTABLISHED 1
#define TCP_STATE_SYN_SENT 2
#define TCP_STATE_SYN_RECV 3
#define TCP_STATE_CLOSE 7
#define TCP_STATE_LISTEN 10

#define FAMILY_INET 2
#define FAMILY_INET6 10
#define ETHERTYPE_IP 0x0800
#define ETHERTYPE_IPV6 0x86DD
#define PROTO_ICMP 1
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_ICMPV6 58
#define PROTO_MPTCP 262
#define SOCKET_STREAM 1
#define SOCKET_DGRAM 2
#define SOCKET_RAW 3

#define ERRNO_CONNREFUSED 111
#define ERRNO_PERM 1

#define LEVEL_TCP 6
#define TCP_BPF_SOCK_OPS_CB_FLAGS 1008 /* 6.12 */

#define MD_PTR(type, name)           \
	union {                      \
		type name;           \
		__u64 : 64;          \
	} __attribute__((aligned(8)))

struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
	__u32 napi_id;
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 data_meta;
	MD_PTR(struct bpf_flow_keys *, flow_keys);
	__u64 tstamp;
	__u32 wire_len;
	__u32 gso_segs;
	MD_PTR(struct bpf_sock *, sk);
	__u32 gso_size;
	__u8 tstamp_type;
	__u64 hwtstamp;
};

struct bpf_sock {
	__u32 bound_dev_if;
	__u32 family;
	__u32 type;
	__u32 protocol;
	__u32 mark;
	__u32 priority;
	__u32 src_ip4;
	__u32 src_ip6[4];
	__u32 src_port;
	__be16 dst_port;
	__u32 dst_ip4;
	__u32 dst_ip6[4];
	__u32 state;
	__s32 rx_queue_mapping;
};

struct bpf_tcp_sock {
	__u32 snd_cwnd;
	__u32 srtt_us;
	__u32 rtt_min;
	__u32 snd_ssthresh;
	__u32 rcv_nxt;
	__u32 snd_nxt;
	__u32 snd_una;
	__u32 mss_cache;
	__u32 ecn_flags;
	__u32 rate_delivered;
	__u32 rate_interval_us;
	__u32 packets_out;
	__u32 retrans_out;
	__u32 total_retrans;
	__u32 segs_in;
	__u32 data_segs_in;
	__u32 segs_out;
	__u32 data_segs_out;
	__u32 lost_out;
	__u32 sacked_out;
	__u64 bytes_received;
	__u64 bytes_acked;
	__u32 dsack_dups;
	__u32 delivered;
	__u32 delivered_ce;
	__u32 icsk_retransmits;
};

struct bpf_sock_ops {
	__u32 op;
	union {
		__u32 args[4];
		__u32 reply;
		__u32 replylong[4];
	};
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 is_fullsock;
	__u32 snd_cwnd;
	__u32 srtt_us;
	__u32 bpf_sock_ops_cb_flags;
	__u32 state;
	__u32 rtt_min;
	__u32 snd_ssthresh;
	__u32 rcv_nxt;
	__u32 snd_nxt;
	__u32 snd_una;
	__u32 mss_cache;
	__u32 ecn_flags;
	__u32 rate_delivered;
	__u32 rate_interval_us;
	__u32 packets_out;
	__u32 retrans_out;
	__u32 total_retrans;
	__u32 segs_in;
	__u32 data_segs_in;
	__u32 segs_out;
	__u32 data_segs_out;
	__u32 lost_out;
	__u32 sacked_out;
	__u32 sk_txhash;
	__u64 bytes_received;
	__u64 bytes_acked;
	MD_PTR(struct bpf_sock *, sk);
	MD_PTR(void *, skb_data);
	MD_PTR(void *, skb_data_end);
	__u32 skb_len;
	__u32 skb_tcp_flags;
	__u64 skb_hwtstamp;
};

struct bpf_sock_addr {
	__u32 user_family;
	__u32 user_ip4;
	__u32 user_ip6[4];
	__u32 user_port;
	__u32 family;
	__u32 type;
	__u32 protocol;
	__u32 msg_src_ip4;
	__u32 msg_src_ip6[4];
	MD_PTR(struct bpf_sock *, sk);
};

struct bpf_sock_tuple {
	union {
		struct {
			__be32 saddr;
			__be32 daddr;
			__be16 sport;
			__be16 dport;
		} ipv4;
		struct {
			__be32 saddr[4];
			__be32 daddr[4];
			__be16 sport;
			__be16 dport;
		} ipv6;
	};
};

#define KERNEL __attribute__((preserve_access_index))

struct net {
	__u64 net_cookie;
} KERNEL;

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_addr {
	__u32 w[4];
};

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	int skc_bound_dev_if;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
} KERNEL;

struct cgroup;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
} KERNEL;

struct kernfs_node {
	__u64 id;
} KERNEL;

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
} KERNEL;

struct sock_cgroup_data {
	struct cgroup *cgroup;
} KERNEL;

struct sock {
	struct sock_common __sk_common;
	__u8 sk_kern_sock : 1;
	struct sock_cgroup_data sk_cgrp_data;
} KERNEL;

struct inet_sock {
	struct sock sk;
} KERNEL;

struct inet_connection_sock {
	struct inet_sock icsk_inet;
} KERNEL;

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u8 bpf_sock_ops_cb_flags;
	__u8 fastopen_connect : 1;
	void *fastopen_req;
} KERNEL;

struct udp_sock {
	struct inet_sock inet;
} KERNEL;

struct seq_file;

struct bpf_iter_meta {
	MD_PTR(struct seq_file *, seq);
	__u64 session_id;
	__u64 seq_num;
} KERNEL;

struct bpf_iter__tcp {
	MD_PTR(struct bpf_iter_meta *, meta);
	MD_PTR(struct sock_common *, sk_common);
	__u32 uid;
} KERNEL;

struct bpf_iter__udp {
	MD_PTR(struct bpf_iter_meta *, meta);
	MD_PTR(struct udp_sock *, udp_sk);
	__u32 uid;
	int bucket;
} KERNEL;
