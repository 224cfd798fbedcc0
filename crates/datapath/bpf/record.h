/* SPDX-License-Identifier: Apache-2.0 */
/* What is told to the agent: exact denial counters, and records through the ring. */
#pragma once

INLINE __u64 netns_of(struct bpf_sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);

	return tp ? tp->inet_conn.icsk_inet.sk.__sk_common.skc_net.net->net_cookie : 0;
}

/* Reasons that rest on a name which anybody may write into a packet. */
#define HEARSAY (1ULL << R_OPTION_MALFORMED | 1ULL << R_FLEET_MAC_BAD | 1ULL << R_PAIR_MAC_BAD | 1ULL << R_TIME_OUTSIDE | \
		 1ULL << R_PEER_UNKNOWN | 1ULL << R_KEY_UNKNOWN | 1ULL << R_SEQUENCE_UNEXPECTED)

/* The end that a cell of the counters names. Invented names would use all cells up: they share one. */
INLINE __u64 counted_end(const struct decision *d)
{
	if (d->proof == PROOF_EXTERNAL)
		return d->class;
	return d->proof != PROOF_PROVED && HEARSAY >> (d->reason & (REASONS - 1)) & 1 ? 0 : d->peer;
}

/* Counts one refusal, carried out or not. Nothing is lost: without a cell it is counted by reason. */
NOINLINE int count_denial(const struct decision *d, __u32 would)
{
	struct denial_key key = {};
	__u64 *count, one = 1;

	if (!d)
		return 0;
	stage(S_STAGES + (would ? REASONS : 0) + (d->reason & (REASONS - 1)));
	key.peer = counted_end(d);
	key.rule = d->rule;
	key.stamp = d->stamp;
	key.port = d->port;
	key.proto = d->proto;
	key.direction = d->direction;
	key.reason = d->reason;
	key.would = would;
	key.proof = d->proof;
	count = bpf_map_lookup_elem(&denials, &key);
	if (!count) {
		if (bpf_map_update_elem(&denials, &key, &one, 1 /* only if absent */) == 0)
			return 0;
		count = bpf_map_lookup_elem(&denials, &key);
	}
	if (count) {
		__sync_fetch_and_add(count, 1);
		return 0;
	}
	stage(S_DENIAL_OVERFLOW);
	stage(S_STAGES + 2 * REASONS + (d->reason & (REASONS - 1)));
	return 0;
}

NOINLINE int fill_event(struct event *e, const struct decision *d, __u8 kind, __u8 flags)
{
	if (!e || !d)
		return 0;
	e->boot_ns = bpf_ktime_get_boot_ns();
	e->netns = 0;
	e->peer = d->peer;
	e->bytes_in = 0;
	e->bytes_out = 0;
	e->client_isn = 0;
	e->server_isn = 0;
	e->stamp = d->stamp;
	e->class = d->class;
	e->rule = d->rule;
	e->port = d->port;
	e->kind = kind;
	e->flags = flags;
	e->reason = d->reason;
	e->direction = d->direction;
	e->proof = d->proof;
	e->proto = d->proto;
	e->verdict = (d->allow ? V_ALLOW : 0) | (d->would_allow ? V_WOULD_ALLOW : 0);
	e->generations = 0;
	e->pad = 0;
	e->pad2 = 0;
	return 0;
}

/* Records for each tick and CPU of packets that have proved nothing: a flood of them must not take the ring's room from
 * openings, nor the agent's time. Counters are exact without records. */
#define TOLD_PER_TICK 16

INLINE bool is_crowded(const struct decision *d)
{
	struct clock *clock;
	__u32 zero = 0;

	if (d->proof == PROOF_PROVED)
		return false;
	boot_ns_coarse();
	clock = bpf_map_lookup_elem(&clocks, &zero);
	if (!clock || clock->told >= TOLD_PER_TICK)
		return true;
	clock->told++;
	return false;
}

/* A record about the packet in hand. Those that ask the agent for something wake it. */
NOINLINE int record_packet(struct __sk_buff *skb, const struct packet *p, const struct decision *d, __u32 kind_flags)
{
	__u8 kind = kind_flags & 0xff, flags = kind_flags >> 8;
	struct event *e;

	if (!p || !d)
		return 0;
	e = is_crowded(d) ? NULL : bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		stage(S_NOTICE_LOST);
		return 0;
	}
	fill_event(e, d, kind, flags);
	e->remote = p->src;
	e->local = p->dst;
	e->remote_port = p->sport;
	e->local_port = p->dport;
	if (d->direction == INGRESS) {
		e->client_isn = p->flags & TCP_SYN ? p->seq : p->seq - 1;
		e->server_isn = p->flags & TCP_ACK ? p->ack - 1 : 0;
	} else {
		e->client_isn = p->ack - 1;
		e->server_isn = p->seq;
	}
	if (p->option == OPT_OURS)
		e->generations = option_own(p->opt) << 2 | option_peer(p->opt);
	if (skb->sk)
		e->netns = netns_of(skb->sk);
	bpf_ringbuf_submit(e, flags & EF_RESET || kind == E_UNKNOWN ? RB_FORCE_WAKEUP : RB_NO_WAKEUP);
	return 0;
}

/* A refusal. Policy's own is carried out as judged; others as the workload is enforced. 1 = pass (observing), 0 = drop. */
INLINE int refused(struct __sk_buff *skb, const struct packet *p, const struct decision *d, const struct local *l,
		   __u32 flags)
{
	bool would = !d->judged && !(l->flags & L_ENFORCE) && d->reason != R_REVOKED;

	count_denial(d, would);
	record_packet(skb, p, d, E_REFUSED | (would ? EF_WOULD : flags) << 8);
	return would;
}

/* Unknown is not denied (rule 11): counted, asked for, dropped in silence. */
INLINE int unknown(struct __sk_buff *skb, const struct packet *p, const struct decision *d, const struct local *l)
{
	bool would = !(l->flags & L_ENFORCE);

	count_denial(d, would);
	record_packet(skb, p, d, E_UNKNOWN | (would ? EF_WOULD : 0) << 8);
	return would;
}
