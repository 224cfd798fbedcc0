/* SPDX-License-Identifier: Apache-2.0 */
/* The client's side: what a SYN-ACK must be before the application sees a connection (rules 1, 2, 6, 9, 10, 11). */
#pragma once

#define AT_PLACE 0
#define NOT_AT_PLACE 1
#define NO_PLACE 2

/* Rule 1: does this workload belong at the dialled address? Sets the policy's port. */
NOINLINE int belongs(const union addr *dialled, struct decision *d, __u64 own)
{
	struct place *place = place_of(dialled, d ? d->port : 0, PROTO_TCP);

	if (!d || !dialled || d->peer == own)
		return AT_PLACE;
	if (is_loopback(dialled))
		return d->peer >> 16 == own >> 16 ? AT_PLACE : NOT_AT_PLACE;
	if (!place || place->kind == PLACE_DECLARED)
		return NO_PLACE;
	if (place->real_port)
		d->port = place->real_port;
	if (place->kind == PLACE_SERVICE)
		return is_member(d->peer, place->ref) ? AT_PLACE : NOT_AT_PLACE;
	if (place->kind == PLACE_NODE)
		return d->peer >> 16 == place->ref ? AT_PLACE : NOT_AT_PLACE;
	return d->peer == place->ref ? AT_PLACE : NOT_AT_PLACE;
}

/* The reason that a labelled SYN-ACK cannot be believed, 0 = it can. */
NOINLINE int synack_untrue(const struct config *cfg, const struct packet *p, struct decision *d, const struct local *l)
{
	struct mac_input in;
	struct node_keys *keys;
	__u32 node, pair;
	bool known;

	if (!cfg || !p || !d || !l)
		return R_PARSE_FAILED;
	if (p->option == OPT_BAD || !option_wellformed(p->opt, MESSAGE_SYNACK))
		return R_OPTION_MALFORMED;
	known = name_peer(d, p->opt);
	node = d->peer >> 16;
	keys = bpf_map_lookup_elem(&nodes, &node);
	pair = option_peer(p->opt) << 2 | option_own(p->opt);
	if (!keys || !(keys->valid & (1 << pair)))
		return R_KEY_UNKNOWN;
	if (!known)
		return R_PEER_UNKNOWN;
	in.t = time_accept(time_now(cfg), option_t(p->opt));
	if (!in.t)
		return R_TIME_OUTSIDE;
	in.client_isn = p->ack - 1;
	in.server_isn = p->seq;
	in.to = ref_of(cfg, l);
	in.from_instance = d->peer_instance;
	in.to_instance = l->instance;
	if (mac_pair(&pair_at(keys, pair)->rx, p->opt, &in) != option_mac(p->opt))
		return R_PAIR_MAC_BAD;
	d->proof = PROOF_PROVED;
	return option_echo(p->opt) == 0 ? 0 : R_FLAGS_MISMATCH;
}

/* Keeps what the established socket needs; it becomes live when the kernel has accepted the segment. */
INLINE int accepted(struct sock_state *st, const struct packet *p, const struct decision *d)
{
	st->client_isn = p->ack - 1;
	st->server_isn = p->seq;
	st->peer = d->peer;
	st->peer_instance = d->peer_instance;
	st->peer_class = d->class;
	st->rule = d->rule;
	st->port = d->port;
	st->proof = d->proof;
	st->reason = d->reason;
	st->would_allow = d->would_allow;
	st->option_made = 0;
	st->flags &= ~SF_LABELLED;
	if (d->proof == PROOF_PROVED) {
		st->flags |= SF_LABELLED;
		st->generations = option_peer(p->opt) << 2 | option_own(p->opt);
		st->peer_flags = option_flags(p->opt);
	}
	st->verified = d->live;
	return 1;
}

/* A MAC-valid answer: place, then verdict. A place that does not fit is asked for; only once that was
 * answered is a refusal final, and the application's (rule 11). */
INLINE int client_proved(struct __sk_buff *skb, const struct config *cfg, struct packet *p, struct decision *d,
			 struct local *l, struct sock_state *st)
{
	int place = belongs(&p->src, d, ref_of(cfg, l));
	if (place != AT_PLACE) {
		deny(d, place == NO_PLACE ? R_UNKNOWN_PLACE : R_PLACE_MISMATCH);
		if (st->asked_ns && st->asked_ns <= cfg->answered_ns) {
			if (!refused(skb, p, d, l, EF_RESET))
				return 0;
		} else {
			if (!st->asked_ns)
				st->asked_ns = bpf_ktime_get_boot_ns();
			if (!unknown(skb, p, d, l))
				return 0;
		}
	} else {
		judge_workload(d, cfg, l);
		if (!d->allow && !refused(skb, p, d, l, EF_RESET))
			return 0;
	}
	stage(S_SYNACK_OK);
	return accepted(st, p, d);
}

/* A plain answer that no external rule allows. From this node itself it came from a process without identity, and no
 * retransmission will bring any: refused at once. From elsewhere its option may have been lost: silence. */
INLINE int client_plain(struct __sk_buff *skb, const struct config *cfg, struct packet *p, struct decision *d,
			const struct local *l, const struct sock_state *st)
{
	__u32 flags = EF_RESET;

	if (d->reason == R_FLEET_ADDRESS_PLAIN && st->flags & SF_NO_SPACE) {
		d->reason = R_NO_OPTION_SPACE;
	} else if (d->reason == R_FLEET_ADDRESS_PLAIN && !is_home(cfg, p)) {
		d->reason = R_OPTION_MISSING;
		flags = 0;
	}
	return refused(skb, p, d, l, flags);
}

/* A segment at a socket in SYN_SENT. */
INLINE int client_syn_sent(struct __sk_buff *skb, const struct config *cfg, struct packet *p, struct decision *d,
			   struct local *l, struct sock_state *st, struct bpf_sock *sk)
{
	struct bpf_tcp_sock *tp;
	int reason;

	if (!(p->flags & TCP_SYN))
		return 1; /* only a reset can come of it */
	if (!(p->flags & TCP_ACK)) {
		deny(d, R_SIMULTANEOUS_OPEN);
		return refused(skb, p, d, l, 0);
	}
	d->port = p->sport;
	/* snd_una is our ISN; snd_nxt is set only after the SYN left, and a near answer is faster. */
	tp = bpf_tcp_sock(sk);
	if (!tp || tp->snd_una + 1 != p->ack) {
		deny(d, R_SEQUENCE_UNEXPECTED);
		return refused(skb, p, d, l, 0);
	}
	if (p->option == OPT_NONE) {
		judge_external(d, l, &p->src, d->port);
		if (!d->allow && !within_workload(skb, cfg, p, d, l, true) && !client_plain(skb, cfg, p, d, l, st))
			return 0;
		stage(S_EXTERNAL_OK);
		return accepted(st, p, d);
	}
	stage(S_SYNACK_SEEN);
	reason = synack_untrue(cfg, p, d, l);
	if (!reason)
		return client_proved(skb, cfg, p, d, l, st);
	deny(d, reason);
	if (d->proof != PROOF_PROVED)
		d->proof = PROOF_CLAIMED;
	if (reason == R_KEY_UNKNOWN || reason == R_PEER_UNKNOWN || reason == R_PAIR_MAC_BAD) {
		if (!unknown(skb, p, d, l))
			return 0;
	} else if (!refused(skb, p, d, l, reason == R_FLAGS_MISMATCH ? EF_RESET : 0)) {
		return 0;
	}
	return accepted(st, p, d);
}
