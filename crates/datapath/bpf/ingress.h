/* SPDX-License-Identifier: Apache-2.0 */
/* cgroup_skb/ingress: the gate. An allowed connection costs one storage look-up and one compare per segment. */
#pragma once

/* A segment of a connection older than the attach: reported, and refused only when its time is over. */
INLINE int older(struct __sk_buff *skb, struct sock_state *st, const struct config *cfg, struct packet *p,
		 struct decision *d, struct local *l)
{
	judge_older(d, l, &p->src, (__u32)p->sport << 16 | p->dport);
	if (!d->allow && (cfg->end_older || l->flags & L_REVOKED)) {
		if (st->flags & SF_DENIED)
			return 0;
		if (!refused(skb, p, d, l, EF_CUT)) {
			st->flags |= SF_DENIED;
			return 0;
		}
	} else if (!d->allow && !st->told) {
		st->told = 1;
		count_denial(d, 1);
		record_packet(skb, p, d, E_REFUSED | EF_WOULD << 8);
	}
	st->live = d->live;
	return 1;
}

/* A segment of a connection without a verdict under this epoch. */
INLINE int again(struct __sk_buff *skb, struct sock_state *st, const struct config *cfg, struct packet *p,
		 struct decision *d, struct local *l)
{
	if (st->role == ROLE_UNMANAGED && !st->verified)
		st->role = ROLE_OLDER; /* opened before its cgroup became a workload's */
	if (st->role == ROLE_OLDER)
		return older(skb, st, cfg, p, d, l);
	if (!st->verified) {
		deny(d, R_NO_VERDICT);
		if (!refused(skb, p, d, l, 0))
			return 0;
		st->live = d->live;
		return 1;
	}
	judge_again(d, st, l, &p->src);
	if (!d->allow && !(st->flags & SF_DENIED)) {
		if (!refused(skb, p, d, l, EF_CUT))
			st->flags |= SF_DENIED;
	}
	if (!d->allow && st->flags & SF_DENIED)
		return 0;
	st->flags &= ~SF_DENIED;
	keep(st, d);
	st->live = d->live;
	return 1;
}

/* Every TCP segment that the fast path did not pass. */
INLINE int ingress_tcp(struct __sk_buff *skb, struct bpf_sock *sk, struct sock_state *st, const struct config *cfg)
{
	struct decision d = { .live = cfg->live, .proto = PROTO_TCP };
	__u32 zero = 0, state = sk->state;
	struct packet *p;
	struct local *l;

	if (!st) {
		struct sock_state fresh = {};

		fresh.role = state == TCP_STATE_LISTEN ? ROLE_LISTENER : cfg->marked ? ROLE_NONE : ROLE_OLDER;
		st = bpf_sk_storage_get(&socks, sk, &fresh, SK_STORAGE_CREATE);
		if (!st) {
			stage(S_NO_MEMORY);
			return 0;
		}
	}
	if (st->role == ROLE_EXEMPT) {
		if (state != TCP_STATE_LISTEN)
			st->live = d.live;
		return 1;
	}
	if (st->stamp_live != d.live && st->role != ROLE_CLIENT && st->role != ROLE_SERVER)
		restamp(skb, st, cfg);
	l = local_of(st->stamp);
	if (!l && st->stamp) {
		/* its workload is gone, its processes are not: they are the host's, or of whoever has their cgroup now */
		restamp(skb, st, cfg);
		l = local_of(st->stamp);
	}
	if (!l) {
		/* no workload: its processes are not ours to judge */
		if (state != TCP_STATE_LISTEN && state != TCP_STATE_SYN_SENT)
			st->live = d.live;
		return 1;
	}
	if (state == TCP_STATE_SYN_SENT && st->role == ROLE_NONE)
		st->role = ROLE_CLIENT; /* the kernel's own call: no hook saw it, its cgroup says whose it is (rule 8) */
	p = bpf_map_lookup_elem(&scratch, &zero);
	if (!p)
		return 0;
	d.stamp = st->stamp;
	d.direction = st->role == ROLE_CLIENT ? EGRESS : INGRESS;
	if (parse_tcp(skb, p) < 0) {
		deny(&d, R_PARSE_FAILED);
		count_denial(&d, !(l->flags & L_ENFORCE));
		return !(l->flags & L_ENFORCE);
	}
	if (p->flags & TCP_RST)
		return 1;
	d.port = d.direction == INGRESS ? p->dport : p->sport;
	if (state == TCP_STATE_LISTEN)
		return p->flags & TCP_SYN ? server_syn(skb, cfg, p, &d, l) : server_ack(skb, cfg, p, &d, l);
	if (state == TCP_STATE_SYN_SENT)
		return client_syn_sent(skb, cfg, p, &d, l, st, sk);
	return again(skb, st, cfg, p, &d, l);
}

SEC("cgroup_skb/ingress")
int stolos_ingress(struct __sk_buff *skb)
{
	struct config *cfg = configuration();
	struct bpf_sock *sk = skb->sk;
	struct sock_state *st;

	if (!cfg || !sk || !cfg->live)
		return 1;
	st = bpf_sk_storage_get(&socks, sk, 0, 0);
	if (st && st->live == cfg->live)
		return 1;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 1;
	return sk->protocol == PROTO_TCP ? ingress_tcp(skb, sk, st, cfg) : ingress_other(skb, sk, st, cfg);
}
