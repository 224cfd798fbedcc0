/* SPDX-License-Identifier: Apache-2.0 */
/* Optional (6.12): listeners older than the attach learn to answer with identity. */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include "core.h"
#include "walk.h"

SEC("iter/tcp")
int stolos_repair(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct config *cfg = configuration();
	struct tcp_sock *tp;
	int flags = 0;
	bool labels, done;

	if (!common || !cfg)
		return 0;
	tp = bpf_skc_to_tcp_sock(common);
	if (!tp || state_of_walked(tp) != TCP_STATE_LISTEN)
		return 0;
	flags = tp->bpf_sock_ops_cb_flags;
	labels = flags & OPS_FLAG_WRITE_HDR_OPT;
	flags |= OPS_FLAG_WRITE_HDR_OPT;
	done = bpf_setsockopt(tp, LEVEL_TCP, TCP_BPF_SOCK_OPS_CB_FLAGS, &flags, sizeof(flags)) == 0;
	tell_listener(ctx->meta->seq, cfg, tp, labels || done, (done && !labels ? WALK_REPAIRED : 0) | (done ? WALK_REPAIRS : 0));
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
