/* SPDX-License-Identifier: Apache-2.0 */
/* sock_ops: writes the option, learns what the kernel accepted, and tells openings and closings. */
#pragma once

INLINE void remote_of(const struct bpf_sock_ops *ops, union addr *a)
{
	if (ops->family == FAMILY_INET) {
		addr_v4(a, ops->remote_ip4);
		return;
	}
	a->w[0] = ONCE(ops->remote_ip6[0]);
	a->w[1] = ONCE(ops->remote_ip6[1]);
	a->w[2] = ONCE(ops->remote_ip6[2]);
	a->w[3] = ONCE(ops->remote_ip6[3]);
}

INLINE void own_addr_of(const struct bpf_sock_ops *ops, union addr *a)
{
	if (ops->family == FAMILY_INET) {
		addr_v4(a, ops->local_ip4);
		return;
	}
	a->w[0] = ONCE(ops->local_ip6[0]);
	a->w[1] = ONCE(ops->local_ip6[1]);
	a->w[2] = ONCE(ops->local_ip6[2]);
	a->w[3] = ONCE(ops->local_ip6[3]);
}

INLINE __u16 remote_port_of(const struct bpf_sock_ops *ops)
{
	return swap16(ops->remote_port >> 16);
}

INLINE void set_flags(struct bpf_sock_ops *ops, __u32 set, __u32 clear)
{
	bpf_sock_ops_cb_flags_set(ops, (ops->bpf_sock_ops_cb_flags | set) & ~clear);
}

INLINE struct sock_state *state_of(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;

	return sk ? bpf_sk_storage_get(&socks, sk, 0, 0) : NULL;
}

/* Sequence numbers of the segment being written, host order. False: not to be seen. */
INLINE bool sequence_of(struct bpf_sock_ops *ops, __u32 *seq, __u32 *ack)
{
	void *data = ops->skb_data, *end = ops->skb_data_end;
	__be32 *words = data;

	if (data + 20 > end)
		return false;
	*seq = swap32(words[1]);
	*ack = swap32(words[2]);
	return true;
}

/* An opening or closing: sampled by the ring's room, the loss is counted. */
INLINE void record_socket(struct bpf_sock_ops *ops, const struct sock_state *st, __u8 kind)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	struct bpf_sock *sk = ops->sk;

	if (!e) {
		stage(S_EVENT_LOST);
		return;
	}
	e->boot_ns = bpf_ktime_get_boot_ns();
	e->netns = sk ? netns_of(sk) : 0;
	e->peer = st->proof == PROOF_EXTERNAL ? 0 : st->peer;
	e->bytes_in = ops->bytes_received;
	e->bytes_out = ops->bytes_acked;
	remote_of(ops, &e->remote);
	own_addr_of(ops, &e->local);
	e->client_isn = st->client_isn;
	e->server_isn = st->server_isn;
	e->stamp = st->stamp;
	e->class = st->peer_class;
	e->rule = st->rule;
	e->remote_port = remote_port_of(ops);
	e->local_port = ops->local_port;
	e->port = st->port;
	e->kind = kind;
	e->flags = 0;
	e->reason = st->reason;
	e->direction = st->role == ROLE_SERVER ? INGRESS : EGRESS;
	e->proof = st->proof;
	e->proto = PROTO_TCP;
	e->verdict = V_ALLOW | (st->would_allow ? V_WOULD_ALLOW : 0);
	e->generations = 0;
	e->pad = 0;
	e->pad2 = 0;
	bpf_ringbuf_submit(e, RB_NO_WAKEUP);
}

/* Whether the option goes to this destination. */
INLINE bool in_scope(struct bpf_sock_ops *ops, const struct config *cfg)
{
	union addr remote;

	remote_of(ops, &remote);
	if (in_private_scope(&remote))
		return true;
	if (place_of(&remote, remote_port_of(ops), PROTO_TCP))
		return true;
	return NETWORK_FLAGS(network_of(&remote, cfg->live)) & (N_SCOPE | N_FLEET);
}

INLINE void on_connect(struct bpf_sock_ops *ops, const struct config *cfg)
{
	struct sock_state *st = state_of(ops);
	struct local *l;

	if (!st || st->role != ROLE_CLIENT)
		return;
	l = local_of(st->stamp);
	if (!l || !(l->flags & L_PLACED) || !in_scope(ops, cfg))
		return;
	if (ops->bpf_sock_ops_cb_flags & (OPS_FLAG_WRITE_HDR_OPT | OPS_FLAGS_PARSE))
		st->flags |= SF_WRITE_SHARED;
	set_flags(ops, OPS_FLAG_WRITE_HDR_OPT, 0);
}

/* Writing is one flag for all programs of a socket. One that writes options also reads them: then the flag stays. */
INLINE __u32 writing(const struct bpf_sock_ops *ops)
{
	return ops->bpf_sock_ops_cb_flags & OPS_FLAGS_PARSE ? 0 : OPS_FLAG_WRITE_HDR_OPT;
}

INLINE void on_active(struct bpf_sock_ops *ops)
{
	struct sock_state *st = state_of(ops);
	__u32 clear = 0;

	if (!st || st->role != ROLE_CLIENT)
		return;
	if (!(st->flags & (SF_LABELLED | SF_WRITE_SHARED)))
		clear = writing(ops);
	if (!st->verified || ops->rcv_nxt != st->server_isn + 1)
		return;
	st->live = st->verified;
	st->opened = 1;
	stage(S_OPENED_CLIENT);
	record_socket(ops, st, E_OPEN);
	set_flags(ops, OPS_FLAG_STATE, clear);
}

INLINE bool same_segment(struct bpf_sock_ops *ops, const struct verified *v)
{
	union addr remote;
	__u32 seq, ack;

	remote_of(ops, &remote);
	return v->used && v->remote_port == remote_port_of(ops) && v->local_port == ops->local_port &&
	       addr_equal(&remote, &v->remote) && sequence_of(ops, &seq, &ack) && seq == v->client_isn + 1 &&
	       ack == v->server_isn + 1;
}

/* A child of a listener: takes over what was verified at the listener, and burns it. */
INLINE void on_passive(struct bpf_sock_ops *ops, const struct config *cfg)
{
	__u32 zero = 0;
	struct verified *v = bpf_map_lookup_elem(&verified, &zero);
	struct bpf_sock *sk = ops->sk;
	struct sock_state fresh = {};
	struct sock_state *st;

	if (!sk || !v)
		return;
	st = bpf_sk_storage_get(&socks, sk, &fresh, SK_STORAGE_CREATE);
	if (!st) {
		stage(S_NO_MEMORY);
		return;
	}
	if (st->role == ROLE_EXEMPT || !local_of(st->stamp)) {
		if (st->role != ROLE_EXEMPT)
			st->role = ROLE_UNMANAGED;
		st->live = cfg->live;
		set_flags(ops, 0, writing(ops));
		return;
	}
	st->role = ROLE_SERVER;
	st->live = 0;
	st->verified = 0;
	if (!same_segment(ops, v)) {
		set_flags(ops, 0, writing(ops));
		return;
	}
	v->used = 0;
	st->stamp = v->stamp;
	st->peer = v->peer;
	st->peer_instance = v->peer_instance;
	st->peer_class = v->peer_class;
	st->client_isn = v->client_isn;
	st->server_isn = v->server_isn;
	st->rule = v->rule;
	st->port = v->port;
	st->proof = v->proof;
	st->reason = v->reason;
	st->would_allow = v->would_allow;
	st->peer_flags = v->peer_flags;
	set_flags(ops, OPS_FLAG_STATE, writing(ops));
	if (v->burns && burn_write(v->burn) == BURN_SEEN)
		return; /* somebody was faster with the same ACK: no verdict for this one */
	st->verified = v->live;
	st->live = v->live;
	st->opened = 1;
	stage(S_OPENED_SERVER);
	record_socket(ops, st, E_OPEN);
}

INLINE void on_state(struct bpf_sock_ops *ops)
{
	struct sock_state *st;

	if (ops->args[1] != TCP_STATE_CLOSE)
		return;
	st = state_of(ops);
	if (st && st->opened)
		record_socket(ops, st, E_CLOSE);
}

/* The SYN that a SYN-ACK answers, if it is ours to label. */
INLINE struct pending *pending_of(struct bpf_sock_ops *ops, const struct config *cfg)
{
	union addr remote;

	remote_of(ops, &remote);
	return pending_find(cfg, &remote, (__u32)remote_port_of(ops) << 16 | ops->local_port);
}

/* The server has answered when it acknowledged data or sent some. */
INLINE bool answered(const struct bpf_sock_ops *ops, const struct sock_state *st)
{
	return ops->rcv_nxt != st->server_isn + 1 || ops->snd_una != st->client_isn + 1;
}

/* A SYN-ACK that goes out bare, so that the client drops it: without a key to answer this node with, which is asked for
 * (rule 11), or without room for the option. */
NOINLINE int unlabelled_answer(const struct pending *e, __u8 reason, __u32 client_isn)
{
	struct decision d = { .proto = PROTO_TCP, .direction = INGRESS, .proof = PROOF_CLAIMED, .reason = reason };
	struct event *event;

	if (!e)
		return 0;
	d.peer = e->peer;
	d.stamp = e->stamp;
	d.port = e->local_port;
	count_denial(&d, 0);
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		stage(S_NOTICE_LOST);
		return 0;
	}
	fill_event(event, &d, reason == R_KEY_UNKNOWN ? E_UNKNOWN : E_REFUSED, 0);
	event->client_isn = client_isn;
	event->generations = e->generation << 2;
	event->remote = e->remote;
	event->local.d[0] = 0;
	event->local.d[1] = 0;
	event->remote_port = e->remote_port;
	event->local_port = e->local_port;
	bpf_ringbuf_submit(event, RB_FORCE_WAKEUP);
	return 0;
}

/* A SYN without room for the option (rule 7: MD5, AO, another program's). Outside the fleet it may go bare; inside, the
 * caller is told at once. It leaves all the same, and proves nothing. */
NOINLINE int no_space(struct bpf_sock_ops *ops, struct sock_state *st)
{
	struct decision d = { .proto = PROTO_TCP, .direction = EGRESS, .reason = R_NO_OPTION_SPACE };
	struct config *cfg = configuration();
	struct event *event;
	struct local *l;
	union addr to;
	bool would;

	if (!st || !cfg || st->flags & SF_NO_SPACE)
		return 0;
	st->flags |= SF_NO_SPACE;
	l = local_of(st->stamp);
	d.stamp = st->stamp;
	d.port = remote_port_of(ops);
	remote_of(ops, &to);
	if (!l || (!place_of(&to, d.port, PROTO_TCP) && !(NETWORK_FLAGS(network_of(&to, cfg->live)) & N_FLEET)))
		return 0;
	would = !(l->flags & L_ENFORCE);
	count_denial(&d, would);
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		stage(S_NOTICE_LOST);
		return 0;
	}
	fill_event(event, &d, E_REFUSED, would ? EF_WOULD : EF_RESET);
	event->netns = ops->sk ? netns_of(ops->sk) : 0;
	event->client_isn = ops->snd_una;
	event->remote = to;
	own_addr_of(ops, &event->local);
	event->remote_port = d.port;
	event->local_port = ops->local_port;
	bpf_ringbuf_submit(event, RB_FORCE_WAKEUP);
	return 0;
}

INLINE void on_length(struct bpf_sock_ops *ops, const struct config *cfg)
{
	struct sock_state *st;
	struct pending *e;

	if (!ops->is_fullsock) {
		e = pending_of(ops, cfg);
		if (e && bpf_reserve_hdr_opt(ops, OPTION_LEN, 0) < 0)
			unlabelled_answer(e, R_NO_OPTION_SPACE, e->client_isn);
		return;
	}
	if (ops->state == TCP_STATE_SYN_SENT) {
		st = state_of(ops);
		if (st && st->role == ROLE_CLIENT && bpf_reserve_hdr_opt(ops, OPTION_LEN, 0) < 0)
			no_space(ops, st);
		return;
	}
	st = state_of(ops);
	if (!st || st->role != ROLE_CLIENT)
		return;
	if (!(st->flags & SF_LABELLED) || answered(ops, st)) {
		if (!(st->flags & SF_WRITE_SHARED) && ops->args[0] != WRITE_TCP_CURRENT_MSS)
			set_flags(ops, 0, writing(ops));
		return;
	}
	bpf_reserve_hdr_opt(ops, OPTION_LEN, 0);
}

NOINLINE int write_syn(struct bpf_sock_ops *ops, const struct config *cfg, const struct local *l)
{
	__u32 opt[5], seq, ack;
	__u64 t, mac;

	if (!cfg || !l || !sequence_of(ops, &seq, &ack))
		return 0;
	t = time_now(cfg);
	option_fill(opt, MESSAGE_SYN, cfg->own_generation, cfg->fleet_generation, 0, 0, t, ref_of(cfg, l));
	mac = mac_syn(&cfg->fleet[cfg->fleet_generation & 3], opt, seq, t);
	opt[3] = mac;
	opt[4] = mac >> 32;
	if (bpf_store_hdr_opt(ops, opt, OPTION_LEN, 0) == 0)
		stage(S_SYN_SENT);
	return 0;
}

NOINLINE int write_synack(struct bpf_sock_ops *ops, const struct config *cfg)
{
	struct mac_input in;
	struct node_keys *keys;
	struct pending *e;
	__u32 opt[5], node, pair;
	__u64 mac;

	if (!cfg)
		return 0;
	e = pending_of(ops, cfg);
	if (!e || !sequence_of(ops, &in.server_isn, &in.client_isn))
		return 0;
	in.client_isn -= 1;
	if (e->client_isn != in.client_isn)
		return 0;
	if (ops->args[0] == WRITE_TCP_SYNACK_COOKIE)
		e->cookie = 1;
	in.to = e->peer;
	in.from_instance = e->own_instance;
	in.to_instance = e->peer_instance;
	in.t = time_now(cfg);
	node = in.to >> 16;
	keys = bpf_map_lookup_elem(&nodes, &node);
	pair = (cfg->own_generation & 3) << 2 | (e->generation & 3);
	if (!keys || !(keys->valid & (1 << pair))) {
		unlabelled_answer(e, R_KEY_UNKNOWN, in.client_isn);
		return 0;
	}
	option_fill(opt, MESSAGE_SYNACK, pair >> 2, pair & 3, e->flags, 0, in.t, (__u64)cfg->node << 16 | e->own_slot);
	mac = mac_pair(&pair_at(keys, pair)->tx, opt, &in);
	opt[3] = mac;
	opt[4] = mac >> 32;
	if (bpf_store_hdr_opt(ops, opt, OPTION_LEN, 0) == 0)
		stage(S_SYNACK_SENT);
	return 0;
}

/* The ACK's option is the same for every segment until T moves on: made once. */
NOINLINE int make_ack(struct sock_state *st, const struct config *cfg, const struct local *l)
{
	struct mac_input in;
	struct node_keys *keys;
	__u32 opt[5], node, pair;
	__u64 mac;

	if (!st || !cfg || !l)
		return 0;
	in.t = time_now(cfg);
	if (st->option_made && st->option_t == (__u8)in.t)
		return 1;
	in.client_isn = st->client_isn;
	in.server_isn = st->server_isn;
	in.to = st->peer;
	in.from_instance = l->instance;
	in.to_instance = st->peer_instance;
	node = in.to >> 16;
	keys = bpf_map_lookup_elem(&nodes, &node);
	pair = st->generations & 15;
	if (!keys || !(keys->valid & (1 << pair)))
		return 0;
	option_fill(opt, MESSAGE_ACK, pair >> 2, pair & 3, st->peer_flags, 0, in.t, ref_of(cfg, l));
	mac = mac_pair(&pair_at(keys, pair)->tx, opt, &in);
	opt[3] = mac;
	opt[4] = mac >> 32;
	__builtin_memcpy(st->option, opt, OPTION_LEN);
	st->option_t = in.t;
	st->option_made = 1;
	return 1;
}

INLINE void on_write(struct bpf_sock_ops *ops, const struct config *cfg)
{
	struct sock_state *st;
	struct local *l;

	if (!ops->is_fullsock) {
		write_synack(ops, cfg);
		return;
	}
	st = state_of(ops);
	if (!st || st->role != ROLE_CLIENT)
		return;
	l = local_of(st->stamp);
	if (!l)
		return;
	if (ops->skb_tcp_flags & TCP_SYN) {
		write_syn(ops, cfg, l);
		return;
	}
	if (st->flags & SF_LABELLED && !answered(ops, st) && make_ack(st, cfg, l) &&
	    bpf_store_hdr_opt(ops, st->option, OPTION_LEN, 0) == 0)
		stage(S_ACK_SENT);
}

/* A socket that called before, or was judged as something else, starts anew as a listener. */
INLINE void on_listen(struct bpf_sock_ops *ops)
{
	struct sock_state *st = state_of(ops);

	if (st && st->role != ROLE_EXEMPT) {
		st->role = ROLE_LISTENER;
		st->live = 0;
		st->verified = 0;
		st->stamp_live = 0;
	}
	set_flags(ops, OPS_FLAG_WRITE_HDR_OPT, 0);
}

/* Until a state is live nothing is judged: what opens now is older than enforcement, and listeners learn to answer. */
INLINE void before_live(struct bpf_sock_ops *ops, __u32 op)
{
	struct sock_state fresh = { .role = ROLE_OLDER };
	struct bpf_sock *sk = ops->sk;

	if (op == OPS_TCP_LISTEN_CB)
		set_flags(ops, OPS_FLAG_WRITE_HDR_OPT, 0);
	else if (sk && (op == OPS_ACTIVE_ESTABLISHED_CB || op == OPS_PASSIVE_ESTABLISHED_CB))
		bpf_sk_storage_get(&socks, sk, &fresh, SK_STORAGE_CREATE);
}

SEC("sockops")
int stolos_socket(struct bpf_sock_ops *ops)
{
	struct config *cfg;
	__u32 op = ops->op;

	/* asked often, answered never: initial window, time-outs, ECN, base round trip */
	if (op < OPS_TCP_CONNECT_CB || (op > OPS_PASSIVE_ESTABLISHED_CB && op < OPS_STATE_CB))
		return 1;
	cfg = configuration();
	if (!cfg)
		return 1;
	if (!cfg->live) {
		before_live(ops, op);
		return 1;
	}
	switch (op) {
	case OPS_TCP_CONNECT_CB:
		on_connect(ops, cfg);
		break;
	case OPS_ACTIVE_ESTABLISHED_CB:
		on_active(ops);
		break;
	case OPS_PASSIVE_ESTABLISHED_CB:
		on_passive(ops, cfg);
		break;
	case OPS_STATE_CB:
		on_state(ops);
		break;
	case OPS_TCP_LISTEN_CB:
		on_listen(ops);
		break;
	case OPS_HDR_OPT_LEN_CB:
		on_length(ops, cfg);
		break;
	case OPS_WRITE_HDR_OPT_CB:
		on_write(ops, cfg);
		break;
	}
	return 1;
}
