/* SPDX-License-Identifier: Apache-2.0 */
/* Verdicts for connections that live already: under a new epoch, and for those older than the attach (rules 7 and 14). */
#pragma once

/* The stamp of a socket that the connect hook has not stamped: by its cgroup, once per epoch. */
NOINLINE int restamp(struct __sk_buff *skb, struct sock_state *st, const struct config *cfg)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk || !st || !cfg)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 0;
	st->stamp = stamp_of_socket(cfg, sk);
	st->stamp_live = cfg->live;
	return 0;
}

/* Verdict for a live connection under a new epoch, from what is stored of it. */
NOINLINE int judge_again(struct decision *d, const struct sock_state *st, const struct local *l, const union addr *remote)
{
	const struct config *cfg = configuration();

	if (!d || !st || !l || !cfg || !remote)
		return 0;
	d->peer = st->peer;
	d->peer_instance = st->peer_instance;
	d->stamp = st->stamp;
	d->port = st->port;
	d->proof = st->proof;
	d->proto = PROTO_TCP;
	d->direction = st->role == ROLE_SERVER ? INGRESS : EGRESS;
	if (st->proof == PROOF_PROVED) {
		if (!know_peer(d) || d->peer_instance != st->peer_instance) {
			deny(d, R_PEER_UNKNOWN);
			return 0;
		}
		judge_workload(d, cfg, l);
		return 0;
	}
	if (st->proof == PROOF_HOME) {
		if (l->flags & L_REVOKED)
			deny(d, R_REVOKED);
		else
			allow(d);
		return 0;
	}
	if (st->proof == PROOF_CLAIMED) {
		/* it passed only because the workload observed */
		deny(d, l->flags & L_REVOKED ? R_REVOKED : st->reason);
		return 0;
	}
	judge_external(d, l, remote, st->role == ROLE_CLIENT ? st->port : 0);
	return 0;
}

INLINE void keep(struct sock_state *st, const struct decision *d)
{
	st->rule = d->rule;
	st->reason = d->reason;
	st->would_allow = d->would_allow;
	st->peer_class = d->class;
}

/* A connection older than the attach has no handshake: judged by its address, as server or as client. */
NOINLINE int judge_older(struct decision *d, const struct local *l, const union addr *remote, __u32 ports)
{
	const struct config *cfg = configuration();
	struct place *place;

	if (!d || !l || !cfg || !remote)
		return 0;
	place = place_of(remote, 0, 0);
	for (int i = 0; i < 2; i++) {
		d->direction = i == 0 ? INGRESS : EGRESS;
		d->port = i == 0 ? ports & 0xffff : ports >> 16;
		if (place && place->kind == PLACE_WORKLOAD) {
			d->peer = place->ref;
			if (!know_peer(d))
				return 0;
			judge_workload(d, cfg, l);
		} else {
			judge_external(d, l, remote, i == 0 ? 0 : d->port);
		}
		if (d->allow)
			break;
	}
	d->proof = PROOF_OLDER;
	return 0;
}
