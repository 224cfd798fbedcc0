/* SPDX-License-Identifier: Apache-2.0 */
/* Optional: judges every connection of a namespace under the live epoch and destroys what is refused (rule 14). Before 6.5 it
 * only tells what is refused, and the loader destroys it. */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include "core.h"
#include "again.h"
#include "datagram.h"
#include "walk.h"

extern int bpf_sock_destroy(struct sock_common *sock) __ksym __weak;

/* The verdict for one connection. True: it goes. */
INLINE bool refuses(struct decision *d, const struct config *cfg, struct sock_state *st, struct local *l,
		    const union addr *remote, __u32 ports)
{
	d->stamp = st->stamp;
	d->proto = PROTO_TCP;
	d->live = cfg->live;
	if (st->role == ROLE_OLDER || (st->role == ROLE_UNMANAGED && !st->verified)) {
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

/* Tells of a refused socket and destroys it. */
INLINE void cut(struct seq_file *seq, struct sock_common *common, struct swept *told, const struct decision *d,
		struct sock_state *st)
{
	told->peer = d->proof == PROOF_EXTERNAL ? 0 : d->peer;
	told->stamp = d->stamp;
	told->rule = d->rule;
	told->reason = d->reason;
	told->proof = d->proof;
	told->direction = d->direction;
	told->cookie = bpf_get_socket_cookie(common);
	told->device = common->skc_bound_dev_if;
	told->destroyed = !!bpf_ksym_exists(bpf_sock_destroy);
	if (write_swept(seq, told) < 0)
		return; /* the buffer is full: the walk comes back to this one */
	if (!(st->flags & SF_DENIED)) {
		st->flags |= SF_DENIED;
		count_denial(d, 0);
	}
	stage(S_CUT);
	if (bpf_ksym_exists(bpf_sock_destroy))
		bpf_sock_destroy(common);
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
	struct sock *sk;
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
	if (!st || st->role == ROLE_NONE || st->role == ROLE_LISTENER || st->role == ROLE_EXEMPT)
		return 0;
	sk = &tp->inet_conn.icsk_inet.sk;
	if (st->role == ROLE_OLDER || st->role == ROLE_UNMANAGED)
		st->stamp = stamp_of_walked(cfg, sk);
	l = local_of(st->stamp);
	if (!l)
		return 0;
	ends_of_walked(sk, &told.remote, &told.local);
	told.remote_port = remote_port_of_walked(sk);
	told.local_port = port_of_walked(sk);
	if (refuses(&d, cfg, st, l, &told.remote, (__u32)told.remote_port << 16 | told.local_port))
		cut(ctx->meta->seq, common, &told, &d, st);
	return 0;
}

/* A connected UDP socket sends without a hook: what may no longer be sent to its end is stopped here (rules 14 and 17). */
SEC("iter/udp")
int stolos_sweep_udp(struct bpf_iter__udp *ctx)
{
	struct udp_sock *udp = ctx->udp_sk;
	struct config *cfg = configuration();
	struct decision d = { .proto = PROTO_UDP, .direction = EGRESS };
	struct swept told = {};
	struct sock_state *st;
	struct flow_key key;
	struct flow *flow;
	struct local *l;
	struct sock *sk;

	if (!udp || !cfg || !cfg->live)
		return 0;
	sk = &udp->inet.sk;
	told.remote_port = remote_port_of_walked(sk);
	if (!told.remote_port)
		return 0;
	st = bpf_sk_storage_get(&socks, udp, 0, 0);
	if (!st || st->role == ROLE_EXEMPT)
		return 0;
	l = local_of(st->stamp);
	if (!l)
		return 0;
	ends_of_walked(sk, &told.remote, &told.local);
	told.local_port = port_of_walked(sk);
	if (is_dhcp(told.remote_port) && is_dhcp(told.local_port))
		return 0;
	d.live = cfg->live;
	d.stamp = st->stamp;
	d.port = told.remote_port;
	flow_key_of(&key, bpf_get_socket_cookie(udp), &told.remote, told.remote_port);
	flow = flow_of(&key, cfg->live);
	if (flow && flow->direction == INGRESS && !(l->flags & L_REVOKED))
		return 0; /* it answers */
	judge_sending(&d, cfg, l, &told.remote);
	if (!d.allow && (d.judged || d.reason == R_REVOKED || l->flags & L_ENFORCE))
		cut(ctx->meta->seq, (struct sock_common *)udp, &told, &d, st);
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
