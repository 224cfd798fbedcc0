/* SPDX-License-Identifier: Apache-2.0 */
/* Walk at the attach: sockets that were there before get their mark (rule 7), and listeners are told of. */
#pragma once

SEC("iter/tcp")
int stolos_mark(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct config *cfg = configuration();
	struct sock_state fresh = {};
	struct tcp_sock *tp;

	if (!common || !cfg)
		return 0;
	tp = bpf_skc_to_tcp_sock(common);
	if (!tp)
		return 0;
	if (state_of_walked(tp) == TCP_STATE_LISTEN) {
		tell_listener(ctx->meta->seq, cfg, tp, tp->bpf_sock_ops_cb_flags & OPS_FLAG_WRITE_HDR_OPT, 0);
		return 0;
	}
	fresh.role = ROLE_OLDER;
	if (!cfg->marked)
		bpf_sk_storage_get(&socks, tp, &fresh, SK_STORAGE_CREATE);
	return 0;
}
