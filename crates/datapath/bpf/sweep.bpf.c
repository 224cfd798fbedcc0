/* SPDX-License-Identifier: Apache-2.0 */
/* Optional (6.5): judges every connection of a namespace under the live epoch and destroys what is refused (rule 14). */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include "core.h"
#include "again.h"
#include "walk.h"

extern int bpf_sock_destroy(struct sock_common *sock) __ksym;

/* The verdict for one connection. True: it goes. */
INLINE bool refuses(struct decision *d, const struct config *cfg, struct sock_state *st, struct local *l,
		    const union addr *remote, __u32 ports)
{
	d->stamp = st->stamp;
	d->proto = PROTO_TCP;
	d->live = cfg->live;
	if (st->role == ROLE_OLDER) {
		if (!cfg->end_older && !(l->flags & L_REVOKED))
			return false;
		judge_older(d, l, remote, ports);
	} else {
		if (!st->verified)
			return false; /* nothing passes to it anyway */
		judge_again(d, st, l, remote);
	}
	if (d->allow)
		return false;
	return d->judged || d->reason == R_REVOKED || l->flags & L_ENFORCE;
}

SEC("iter/tcp")
int stolos_sweep(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct config *cfg = configuration();
	struct decision d = {};
	struct swept told = {};
	struct sock_state *st;
	struct tcp_sock *tp;
	struct local *l;
	__u8 state;

	if (!common || !cfg || !cfg->live)
		return 0;
	tp = bpf_skc_to_tcp_sock(common);
	if (!tp)
		return 0;
	state = state_of_walked(tp);
	if (state == TCP_STATE_LISTEN || state == TCP_STATE_SYN_SENT || state == TCP_STATE_CLOSE)
		return 0;
	st = bpf_sk_storage_get(&socks, tp, 0, 0);
	if (!st || (st->role != ROLE_CLIENT && st->role != ROLE_SERVER && st->role != ROLE_OLDER))
		return 0;
	if (st->role == ROLE_OLDER)
		st->stamp = stamp_of_walked(cfg, tp);
	l = local_of(st->stamp);
	if (!l)
		return 0;
	ends_of_walked(tp, &told.remote, &told.local);
	told.remote_port = __builtin_bswap16(tp->inet_conn.icsk_inet.sk.__sk_common.skc_dport);
	told.local_port = port_of_walked(tp);
	if (!refuses(&d, cfg, st, l, &told.remote, (__u32)told.remote_port << 16 | told.local_port))
		return 0;
	told.peer = d.proof == PROOF_EXTERNAL ? 0 : d.peer;
	told.stamp = d.stamp;
	told.rule = d.rule;
	told.reason = d.reason;
	told.proof = d.proof;
	told.direction = d.direction;
	if (write_swept(ctx->meta->seq, &told) < 0)
		return 0; /* the buffer is full: the walk comes back to this one */
	if (!(st->flags & SF_DENIED)) {
		st->flags |= SF_DENIED;
		count_denial(&d, 0);
	}
	stage(S_CUT);
	bpf_sock_destroy(common);
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
