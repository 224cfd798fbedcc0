/* SPDX-License-Identifier: Apache-2.0 */
/* cgroup_skb/egress: stops what a new epoch refuses from sending on (rule 14). Attached only while a sweep may be needed. */
#pragma once

/* The flags of the segment; 0 = cannot be read. Our own kernel built it: no IPv6 extension header stands before TCP. */
INLINE __u8 flags_sent(struct __sk_buff *skb)
{
	__u8 version = 0, flags = 0;

	if (bpf_skb_load_bytes(skb, 0, &version, 1) < 0)
		return 0;
	if (bpf_skb_load_bytes(skb, (version >> 4 == 4 ? (version & 15) * 4 : 40) + 13, &flags, 1) < 0)
		return 0;
	return flags;
}

INLINE void remote_of_socket(const struct bpf_sock *sk, union addr *remote)
{
	if (sk->family == FAMILY_INET) {
		addr_v4(remote, sk->dst_ip4);
		return;
	}
	remote->w[0] = ONCE(sk->dst_ip6[0]);
	remote->w[1] = ONCE(sk->dst_ip6[1]);
	remote->w[2] = ONCE(sk->dst_ip6[2]);
	remote->w[3] = ONCE(sk->dst_ip6[3]);
}

/* A datagram of a connected socket: no hook sees it, and what its epoch allowed may be over. */
INLINE int egress_udp(struct __sk_buff *skb, struct bpf_sock *sk, struct sock_state *st, const struct config *cfg)
{
	struct decision d = { .live = cfg->live, .proto = PROTO_UDP, .direction = EGRESS };
	struct local *l = local_of(st->stamp);
	struct flow_key key;
	struct flow *flow;
	union addr remote;
	bool would;

	if (!l || st->role == ROLE_EXEMPT || !sk->dst_port)
		return 1;
	d.stamp = st->stamp;
	d.port = swap16(sk->dst_port);
	if (is_dhcp(d.port) && is_dhcp(sk->src_port))
		return 1;
	remote_of_socket(sk, &remote);
	flow_key_of(&key, bpf_get_socket_cookie(skb), &remote, d.port);
	flow = flow_of(&key, d.live);
	if (flow && (flow->live == d.live || (flow->direction == INGRESS && !(l->flags & L_REVOKED))))
		return 1;
	judge_sending(&d, cfg, l, &remote);
	if (d.allow) {
		flow_write(&key, &d);
		return 1;
	}
	would = !d.judged && !(l->flags & L_ENFORCE) && d.reason != R_REVOKED;
	count_denial(&d, would);
	return would;
}

SEC("cgroup_skb/egress")
int stolos_egress(struct __sk_buff *skb)
{
	struct config *cfg = configuration();
	struct decision d = {};
	struct bpf_sock *sk = skb->sk;
	struct sock_state *st;
	union addr remote;
	struct local *l;

	if (!cfg || !sk || !cfg->live)
		return 1;
	st = bpf_sk_storage_get(&socks, sk, 0, 0);
	if (!st || st->live == cfg->live)
		return 1;
	sk = bpf_sk_fullsock(sk);
	if (sk && sk->protocol == PROTO_UDP)
		return egress_udp(skb, sk, st, cfg);
	if (!st->verified || (st->role != ROLE_CLIENT && st->role != ROLE_SERVER))
		return 1;
	l = local_of(st->stamp);
	if (!l || !sk || flags_sent(skb) & (TCP_RST | TCP_SYN))
		return 1;
	remote_of_socket(sk, &remote);
	d.live = cfg->live;
	judge_again(&d, st, l, &remote);
	/* What is allowed keeps its new verdict with the next segment that comes in. */
	return d.allow || (!d.judged && d.reason != R_REVOKED && !(l->flags & L_ENFORCE));
}
