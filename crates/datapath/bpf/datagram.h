/* SPDX-License-Identifier: Apache-2.0 */
/* UDP and ICMP: authorized by place and by recorded questions, not authenticated per packet (rule 17). */
#pragma once

/* DHCP and DHCPv6 always pass. */
INLINE bool is_dhcp(__u16 port)
{
	return port == 67 || port == 68 || port == 546 || port == 547;
}

INLINE void flow_key_of(struct flow_key *key, __u64 cookie, const union addr *remote, __u16 port)
{
	key->remote = *remote;
	key->cookie = cookie;
	key->port = port;
	key->pad[0] = 0;
	key->pad[1] = 0;
	key->pad[2] = 0;
}

/* A young exchange of this socket with that end; whether it was judged under the live epoch is the caller's to see. Only
 * what was is kept young: what an older epoch allowed runs out. */
NOINLINE struct flow *flow_of(const struct flow_key *key, __u64 live)
{
	struct flow *flow;
	__u32 now = uptime_seconds();

	if (!key)
		return NULL;
	flow = bpf_map_lookup_elem(&flows, key);
	if (!flow || now - flow->seconds > FLOW_SECONDS)
		return NULL;
	if (flow->live == live && flow->seconds != now)
		flow->seconds = now;
	return flow;
}

NOINLINE int flow_write(const struct flow_key *key, const struct decision *d)
{
	struct flow flow = {};

	if (!key || !d)
		return 0;
	flow.live = d->live;
	flow.peer = d->peer;
	flow.class = d->class;
	flow.rule = d->rule;
	flow.seconds = uptime_seconds();
	flow.policy_port = d->port;
	flow.direction = d->direction;
	flow.proof = d->proof;
	bpf_map_update_elem(&flows, key, &flow, 0);
	return 0;
}

/* Verdict on sending to an end: the sender's side. */
NOINLINE int judge_sending(struct decision *d, const struct config *cfg, const struct local *l, const union addr *to)
{
	struct place *place;

	if (!d || !cfg || !l || !to)
		return 0;
	if (l->flags & L_REVOKED) {
		deny(d, R_REVOKED);
		return 0;
	}
	if (is_loopback(to)) {
		allow(d); /* the receiving workload judges */
		return 0;
	}
	place = place_of(to, d->port, d->proto);
	if (!place) {
		__u64 network = network_of(to, d->live);

		if (NETWORK_FLAGS(network) & N_FLEET) {
			deny(d, d->proto == PROTO_UDP ? R_UDP_UNANNOUNCED : R_ICMP_DENY);
			return 0;
		}
		d->proof = PROOF_EXTERNAL;
		d->class = NETWORK_FLAGS(network) & N_CLASS ? NETWORK_CLASS(network) : CLASS_EXTERNAL;
		judge(d, CLASS_IN(l, d->live));
		return 0;
	}
	d->proof = PROOF_CLAIMED;
	if (place->kind == PLACE_DECLARED) {
		deny(d, R_UNKNOWN_PLACE);
		return 0;
	}
	if (!(l->flags & L_PLACED)) {
		deny(d, R_PENDING);
		return 0;
	}
	if (place->real_port)
		d->port = place->real_port;
	if (place->kind == PLACE_WORKLOAD) {
		d->peer = place->ref;
		if (!know_peer(d))
			deny(d, R_PEER_UNKNOWN);
		else
			judge_workload(d, cfg, l);
		return 0;
	}
	if (place->kind == PLACE_SERVICE && place->claimed_udp) {
		allow(d);
		if (CLASS_IN(place, d->live)) {
			d->class = CLASS_IN(place, d->live);
			judge(d, CLASS_IN(l, d->live));
		}
		return 0;
	}
	if (place->kind == PLACE_NODE && place->ref == cfg->node)
		allow(d); /* the receiving workload on this node judges */
	else
		deny(d, d->proto == PROTO_UDP ? R_UDP_UNANNOUNCED : R_ICMP_DENY);
	return 0;
}

/* The stamp of the socket on this node that a datagram came from; 0 = none here. */
NOINLINE __u32 stamp_of_sender(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock_tuple tuple = {};
	struct sock_state *st;
	struct bpf_sock *sk;
	__u32 stamp = 0;

	if (!p)
		return 0;
	sk = bpf_sk_lookup_udp(skb, &tuple, sender_tuple(&tuple, p), -1, 0);
	if (!sk)
		return 0;
	st = bpf_sk_storage_get(&socks, sk, 0, 0);
	if (st)
		stamp = st->stamp;
	bpf_sk_release(sk);
	return stamp;
}

INLINE bool claimed_here(const struct config *cfg, const struct local *l, __u16 port)
{
	return is_member(ref_of(cfg, l), CLAIMED_UDP | port);
}

/* Verdict on a datagram that answers nothing: the receiver's side. */
NOINLINE int judge_receiving(struct __sk_buff *skb, struct decision *d, const struct local *l, const struct packet *p)
{
	const struct config *cfg = configuration();
	struct place *place;

	if (!d || !l || !p || !cfg)
		return 0;
	d->proof = PROOF_CLAIMED;
	if (l->flags & L_REVOKED) {
		deny(d, R_REVOKED);
		return 0;
	}
	place = place_of(&p->src, 0, 0);
	if (is_loopback(&p->src) || (place && place->kind == PLACE_NODE && place->ref == cfg->node)) {
		__u32 stamp = stamp_of_sender(skb, p);
		struct local *sender = local_of(stamp);

		if (stamp == d->stamp) {
			allow(d);
			return 0;
		}
		if (sender) {
			d->peer = sender->flags & L_PLACED ? ref_of(cfg, sender) : 0;
			d->class = CLASS_IN(sender, d->live);
			judge(d, CLASS_IN(l, d->live));
			return 0;
		}
	}
	if (place && place->kind == PLACE_WORKLOAD) {
		d->peer = place->ref;
		if (!know_peer(d))
			deny(d, R_PEER_UNKNOWN);
		else
			judge_workload(d, cfg, l);
		return 0;
	}
	if (place && place->kind == PLACE_NODE && claimed_here(cfg, l, d->port)) {
		allow(d);
		return 0;
	}
	judge_external(d, l, &p->src, 0);
	if (d->reason == R_FLEET_ADDRESS_PLAIN) {
		d->reason = R_UDP_UNANNOUNCED;
		d->proof = PROOF_NONE;
	}
	return 0;
}

/* A datagram for a socket of a workload. */
INLINE int receive_udp(struct __sk_buff *skb, const struct config *cfg, struct decision *d, struct local *l,
		       struct packet *p)
{
	struct flow_key key;
	struct flow *flow;

	if (parse_udp(skb, p) < 0) {
		deny(d, R_PARSE_FAILED);
		return refused(skb, p, d, l, 0);
	}
	if (is_dhcp(p->sport) && is_dhcp(p->dport))
		return 1;
	flow_key_of(&key, bpf_get_socket_cookie(skb), &p->src, p->sport);
	flow = flow_of(&key, d->live);
	if (flow && flow->live == d->live)
		return 1;
	if (flow && flow->direction == EGRESS) {
		d->port = p->sport;
		d->direction = EGRESS;
		judge_sending(d, cfg, l, &p->src);
	} else {
		d->port = p->dport;
		d->direction = INGRESS;
		judge_receiving(skb, d, l, p);
	}
	if (!d->allow && !refused(skb, p, d, l, 0))
		return 0;
	if (d->allow && !d->would_allow)
		count_denial(d, 1);
	flow_write(&key, d);
	record_packet(skb, p, d, E_OPEN);
	return 1;
}

/* An answer to a ping: passes when the workload may ping that end. Everything else that ICMP says passes. */
INLINE int receive_icmp(struct __sk_buff *skb, const struct config *cfg, struct decision *d, struct local *l,
			struct packet *p, __u32 proto)
{
	int type = parse_icmp(skb, p, proto);

	if (type != (proto == PROTO_ICMP ? 0 : 129))
		return 1;
	d->proto = proto;
	d->direction = EGRESS;
	d->port = 0;
	judge_sending(d, cfg, l, &p->src);
	return d->allow || refused(skb, p, d, l, 0);
}

/* Whatever is not TCP. */
INLINE int ingress_other(struct __sk_buff *skb, struct bpf_sock *sk, struct sock_state *st, const struct config *cfg)
{
	struct decision d = { .live = cfg->live, .proto = PROTO_UDP };
	__u32 zero = 0, proto = sk->protocol;
	struct packet *p;
	struct local *l;

	if (!st) {
		struct sock_state fresh = {};

		st = bpf_sk_storage_get(&socks, sk, &fresh, SK_STORAGE_CREATE);
		if (!st) {
			stage(S_NO_MEMORY);
			return 0;
		}
	}
	if (st->role == ROLE_EXEMPT) {
		st->live = d.live;
		return 1;
	}
	if (st->stamp_live != d.live)
		restamp(skb, st, cfg);
	l = local_of(st->stamp);
	if (!l) {
		st->live = d.live;
		return 1;
	}
	p = bpf_map_lookup_elem(&scratch, &zero);
	if (!p)
		return 0;
	d.stamp = st->stamp;
	if (proto == PROTO_UDP)
		return receive_udp(skb, cfg, &d, l, p);
	if (proto == PROTO_ICMP || proto == PROTO_ICMPV6)
		return receive_icmp(skb, cfg, &d, l, p, proto);
	return 1; /* raw sockets were refused when they were opened */
}
