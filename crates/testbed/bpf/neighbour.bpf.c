/* SPDX-License-Identifier: Apache-2.0 */
/* Somebody else's sock_ops program: four bytes of its own on every segment that has room for them. */
#include "kernel.h"
#include <bpf/bpf_helpers.h>

#define OPS_PARSE_HDR_OPT_CB 13
#define OPS_FLAG_PARSE_ALL (1 << 4)

static const __u8 option[4] = { 254, 4, 0xAB, 0xCD };

SEC("sockops")
int neighbour(struct bpf_sock_ops *ops)
{
	switch (ops->op) {
	case OPS_TCP_CONNECT_CB:
	case OPS_TCP_LISTEN_CB:
	case OPS_ACTIVE_ESTABLISHED_CB:
	case OPS_PASSIVE_ESTABLISHED_CB:
		bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | OPS_FLAG_WRITE_HDR_OPT | OPS_FLAG_PARSE_ALL);
		break;
	case OPS_HDR_OPT_LEN_CB:
		bpf_reserve_hdr_opt(ops, sizeof(option), 0);
		break;
	case OPS_WRITE_HDR_OPT_CB:
		bpf_store_hdr_opt(ops, option, sizeof(option), 0);
		break;
	}
	return 1;
}

char _license[] SEC("license") = "Dual MIT/GPL";
