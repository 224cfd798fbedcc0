/* SPDX-License-Identifier: Apache-2.0 */
/* The server's side, all of it at the listening socket: SYN, then the third ACK or first data (rules 1, 3, 4, 5, 7, 9). */
#pragma once

INLINE __u32 pending_index(const struct config *cfg, const union addr *remote, __u16 rport, __u16 lport)
{
	__u64 h = mix(remote->d[0] ^ cfg->secret[1]);

	h = mix(h ^ remote->d[1] ^ ((__u64)rport << 48 | (__u64)lport << 32));
	return h & (PENDING_ENTRIES - 1);
}

/* The entry of a SYN with this ISN, or NULL: it may have been displaced. */
NOINLINE struct pending *pending_find(const struct config *cfg, const union addr *remote, __u32 ports)
{
	__u16 rport = ports >> 16, lport = ports & 0xffff;
	struct pending *e;
	__u32 index;

	if (!cfg || !remote)
		return NULL;
	index = pending_index(cfg, remote, rport, lport);
	e = bpf_map_lookup_elem(&pending, &index);
	if (!e || e->remote_port != rport || e->local_port != lport || !addr_equal(&e->remote, remote))
		return NULL;
	return e;
}

/* Two CPUs may write one entry at once: a mixture does not check. */
INLINE __u64 pending_check(const struct pending *e)
{
	__u64 h = mix(e->remote.d[0] ^ e->live);

	h = mix(h ^ e->remote.d[1] ^ e->peer_instance);
	h = mix(h ^ ((__u64)e->client_isn << 32 | e->stamp));
	return h ^ e->peer ^ ((__u64)e->rule << 32 | (__u32)e->remote_port << 16 | e->local_port);
}

INLINE void pending_write(const struct config *cfg, const struct packet *p, const struct decision *d,
			  const struct local *l)
{
	__u32 index = pending_index(cfg, &p->src, p->sport, p->dport);
	struct pending *e = bpf_map_lookup_elem(&pending, &index);

	if (!e)
		return;
	e->remote = p->src;
	e->remote_port = p->sport;
	e->local_port = p->dport;
	e->client_isn = p->seq;
	e->stamp = d->stamp;
	e->peer = d->peer;
	e->peer_instance = d->peer_instance;
	e->own_instance = l->instance;
	e->own_slot = l->slot;
	e->flags = option_flags(p->opt);
	e->cookie = 0;
	e->generation = option_own(p->opt);
	e->seconds = uptime_seconds();
	e->live = d->live;
	e->rule = d->rule;
	e->reason = d->reason;
	e->would_allow = d->would_allow;
	e->check = pending_check(e);
}

/* The peer that an option names, from our own table. False: unknown (rule 11). */
INLINE bool name_peer(struct decision *d, const __u32 *opt)
{
	d->peer = option_ref(opt);
	return know_peer(d);
}

/* The reason that a labelled SYN cannot be believed, 0 = it can. */
NOINLINE int syn_untrue(const struct config *cfg, const struct packet *p)
{
	const struct key128 *key;
	__u64 t;

	if (!cfg || !p)
		return R_PARSE_FAILED;
	if (p->option == OPT_BAD || !option_wellformed(p->opt, MESSAGE_SYN))
		return R_OPTION_MALFORMED;
	if (!(cfg->fleet_valid & (1 << option_peer(p->opt))))
		return R_KEY_UNKNOWN;
	key = &cfg->fleet[option_peer(p->opt)];
	t = time_accept(time_now(cfg), option_t(p->opt));
	if (!t)
		return R_TIME_OUTSIDE;
	return mac_syn(key, p->opt, p->seq, t) == option_mac(p->opt) ? 0 : R_FLEET_MAC_BAD;
}

/* A SYN at a listener. */
INLINE int server_syn(struct __sk_buff *skb, const struct config *cfg, struct packet *p, struct decision *d,
		      struct local *l)
{
	struct place *place;
	int reason;

	stage(S_SYN_SEEN);
	if (p->has_data || p->fast_open) {
		deny(d, R_DATA_BEFORE_PROOF);
		return refused(skb, p, d, l, 0);
	}
	if (p->option == OPT_NONE) {
		judge_external(d, l, &p->src, 0);
		if (!d->allow && !within_workload(skb, cfg, p, d, l, false))
			return refused(skb, p, d, l, EF_RESET);
		return 1;
	}
	if (!(l->flags & L_PLACED)) {
		deny(d, R_PENDING);
		return refused(skb, p, d, l, 0);
	}
	reason = syn_untrue(cfg, p);
	if (reason) {
		deny(d, reason);
		if (p->option == OPT_OURS)
			d->peer = option_ref(p->opt);
		d->proof = PROOF_CLAIMED;
		return reason == R_KEY_UNKNOWN ? unknown(skb, p, d, l) : refused(skb, p, d, l, 0);
	}
	d->proof = PROOF_CLAIMED;
	if (!name_peer(d, p->opt)) {
		deny(d, R_PEER_UNKNOWN);
		return unknown(skb, p, d, l);
	}
	place = place_of(&p->src, 0, 0);
	if (place && place->kind == PLACE_WORKLOAD && place->ref != d->peer) {
		deny(d, R_SOURCE_MISMATCH);
		return refused(skb, p, d, l, EF_RESET);
	}
	judge_workload(d, cfg, l);
	if (!d->allow)
		return refused(skb, p, d, l, EF_RESET);
	stage(S_SYN_OK);
	pending_write(cfg, p, d, l);
	return 1;
}

/* The reason that a labelled ACK cannot be believed, 0 = it can. The pending entry is only a cache (rule 3). */
NOINLINE int ack_untrue(const struct config *cfg, const struct packet *p, struct decision *d, const struct local *l)
{
	struct mac_input in;
	struct node_keys *keys;
	struct pending *e;
	__u32 node, pair;
	bool known;

	if (!cfg || !p || !d || !l)
		return R_PARSE_FAILED;
	if (p->option == OPT_BAD || !option_wellformed(p->opt, MESSAGE_ACK))
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
	in.client_isn = p->seq - 1;
	in.server_isn = p->ack - 1;
	in.to = ref_of(cfg, l);
	in.from_instance = d->peer_instance;
	in.to_instance = l->instance;
	if (mac_pair(&pair_at(keys, pair)->rx, p->opt, &in) == option_mac(p->opt)) {
		d->proof = PROOF_PROVED;
		return option_echo(p->opt) == 0 ? 0 : R_FLAGS_MISMATCH;
	}
	e = pending_find(cfg, &p->src, (__u32)p->sport << 16 | p->dport);
	return e && e->client_isn != in.client_isn ? R_SEQUENCE_UNEXPECTED : R_PAIR_MAC_BAD;
}

/* Whether a live SYN of ours, not a SYN cookie, stands behind this ACK. */
INLINE bool fresh_by_pending(const struct config *cfg, const struct packet *p)
{
	struct pending *e = pending_find(cfg, &p->src, (__u32)p->sport << 16 | p->dport);
	__u32 now = uptime_seconds();

	return e && e->client_isn == p->seq - 1 && !e->cookie && now - e->seconds < T_SECONDS;
}

/* Hands the result to the child that this packet creates. */
INLINE void hand_over(const struct packet *p, const struct decision *d, __u64 burn, __u8 burns)
{
	__u32 zero = 0;
	struct verified *v = bpf_map_lookup_elem(&verified, &zero);

	if (!v)
		return;
	v->remote = p->src;
	v->remote_port = p->sport;
	v->local_port = p->dport;
	v->client_isn = p->seq - 1;
	v->server_isn = p->ack - 1;
	v->live = d->live;
	v->peer = d->peer;
	v->peer_instance = d->peer_instance;
	v->peer_class = d->class;
	v->stamp = d->stamp;
	v->rule = d->rule;
	v->port = d->port;
	v->proof = d->proof;
	v->reason = d->reason;
	v->would_allow = d->would_allow;
	v->peer_flags = p->option == OPT_OURS ? option_flags(p->opt) : 0;
	v->burn = burn;
	v->burns = burns;
	v->used = 1;
}

/* Whether the same peer's SYN was judged and allowed under the live epoch: then so is its ACK. Fills in the verdict. */
INLINE bool judged_at_syn(const struct config *cfg, const struct packet *p, struct decision *d)
{
	struct pending *e = pending_find(cfg, &p->src, (__u32)p->sport << 16 | p->dport);

	if (!e || e->live != d->live || e->client_isn != p->seq - 1 || e->peer != d->peer ||
	    e->peer_instance != d->peer_instance || e->stamp != d->stamp || e->check != pending_check(e))
		return false;
	if (d->peer_flags & P_REVOKED)
		return false;
	d->rule = e->rule;
	d->reason = e->reason;
	d->would_allow = e->would_allow;
	d->allow = 1;
	d->judged = 1;
	return true;
}

/* Source and policy as for the SYN. 1 = goes on. */
INLINE int judge_ack(struct __sk_buff *skb, const struct config *cfg, struct packet *p, struct decision *d,
		     struct local *l)
{
	struct place *place = place_of(&p->src, 0, 0);

	if (place && place->kind == PLACE_WORKLOAD && place->ref != d->peer) {
		deny(d, R_SOURCE_MISMATCH);
		return refused(skb, p, d, l, 0);
	}
	judge_workload(d, cfg, l);
	return d->allow || refused(skb, p, d, l, EF_RESET);
}

/* The third ACK, or the first data, at a listener. */
INLINE int server_ack(struct __sk_buff *skb, const struct config *cfg, struct packet *p, struct decision *d,
		      struct local *l)
{
	__u64 hash;
	int reason;

	if (p->option == OPT_NONE) {
		judge_external(d, l, &p->src, 0);
		if (!d->allow && !within_workload(skb, cfg, p, d, l, false)) {
			if (d->reason == R_FLEET_ADDRESS_PLAIN)
				d->reason = R_OPTION_MISSING;
			if (!refused(skb, p, d, l, 0))
				return 0;
		}
		hand_over(p, d, 0, 0);
		return 1;
	}
	stage(S_ACK_SEEN);
	reason = l->flags & L_PLACED ? ack_untrue(cfg, p, d, l) : R_PENDING;
	if (reason) {
		int pass;

		deny(d, reason);
		if (d->proof != PROOF_PROVED)
			d->proof = PROOF_CLAIMED;
		if (reason == R_KEY_UNKNOWN || reason == R_PEER_UNKNOWN || reason == R_PAIR_MAC_BAD)
			pass = unknown(skb, p, d, l);
		else
			pass = refused(skb, p, d, l, 0);
		if (pass)
			hand_over(p, d, 0, 0);
		return pass;
	}
	if (!judged_at_syn(cfg, p, d) && !judge_ack(skb, cfg, p, d, l))
		return 0;
	hash = burn_hash(cfg, d->peer, p->seq - 1, p->ack - 1);
	reason = burn_check(hash);
	if (reason == BURN_SEEN || (reason == BURN_NO_ROOM && !fresh_by_pending(cfg, p))) {
		deny(d, reason == BURN_SEEN ? R_REPLAY : R_BURN_FULL);
		if (!refused(skb, p, d, l, 0))
			return 0;
	}
	stage(S_ACK_OK);
	hand_over(p, d, hash, 1);
	return 1;
}
