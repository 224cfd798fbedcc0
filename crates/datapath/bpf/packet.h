/* SPDX-License-Identifier: Apache-2.0 */
/* A segment as read, and what a verified ACK hands to the child it creates. */
#pragma once

#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4
#define TCP_ACK 16

#define OPT_NONE 0
#define OPT_OURS 1
#define OPT_BAD 2 /* ours by name, malformed; or a list that cannot be read */

struct packet {
	union addr src;
	union addr dst;
	__u32 seq;
	__u32 ack;
	__u16 sport;
	__u16 dport;
	__u8 flags;
	__u8 option;
	__u8 fast_open;
	__u8 has_data;
	__u32 opt[5];       /* our option, as it stood */
	__u32 list_len;
	/* The walk's state lies in memory and is volatile so that the verifier forgets its values between two options. */
	volatile __u32 at;
	volatile __u32 found;
	volatile __u32 count;
	__u8 list[64];      /* the option list; 40 bytes at most are used */
	__u8 header[40];
};

/* Between a verified ACK and the child it creates. */
struct verified {
	union addr remote;
	__u64 live;
	__u64 peer;
	__u64 peer_instance;
	__u64 burn;
	__u32 burn_bucket;
	__u32 client_isn;
	__u32 server_isn;
	__u32 stamp;
	__u32 peer_class;
	__u32 rule;
	__u16 remote_port;
	__u16 local_port;
	__u16 port;
	__u8 used; /* 1 = filled, not yet consumed */
	__u8 proof;
	__u8 reason;
	__u8 would_allow;
	__u8 peer_flags;
	__u8 burns; /* 1 = `burn` is to be written */
};
