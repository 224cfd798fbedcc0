/* SPDX-License-Identifier: Apache-2.0 */
/* Hooks in system calls: stamp at connect(), early refusals with an errno, and what a protected workload may not open. */
#pragma once

/* Set by the loader from the feature probe; a branch on 0 is never verified, so old kernels take the rest. */
struct features {
	__u8 set_retval;
	__u8 pad[7];
};
const volatile struct features features SEC(".rodata.features") = {};

INLINE int refuse_call(int error)
{
	if (features.set_retval)
		bpf_set_retval(-error);
	return 0;
}

/* Whose call this is: its process', as it is now. A socket that the kernel made calls for the workload whose cgroup it has,
 * whichever task or kernel thread happens to do it (rule 8: MPTCP's further paths, what a file system opens anew). */
INLINE __u32 stamp_of_caller(const struct config *cfg, struct bpf_sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);

	if (tp && BPF_CORE_READ_BITFIELD(&tp->inet_conn.icsk_inet.sk, sk_kern_sock))
		return stamp_of_walked(cfg, &tp->inet_conn.icsk_inet.sk);
	return stamp_of_current(cfg);
}

/* What can be said before the first packet. 1 = let it try. */
NOINLINE int judge_dial(struct decision *d, const union addr *to)
{
	const struct config *cfg = configuration();
	struct local *l;
	struct place *place;
	__u64 network;
	__u32 service;

	if (!d || !to || !cfg)
		return 1;
	l = local_of(d->stamp);
	if (!l)
		return 1;
	if (l->flags & L_REVOKED) {
		deny(d, R_REVOKED);
		return 0;
	}
	if (is_loopback(to))
		return 1;
	place = place_of(to, d->port, d->proto);
	if (!place) {
		network = network_of(to, d->live);
		if (NETWORK_FLAGS(network) & N_FLEET)
			return 1;
		d->proof = PROOF_EXTERNAL;
		d->class = NETWORK_FLAGS(network) & N_CLASS ? NETWORK_CLASS(network) : CLASS_EXTERNAL;
		judge(d, CLASS_IN(l, d->live));
		return d->allow;
	}
	if (place->kind == PLACE_DECLARED) {
		deny(d, R_UNKNOWN_PLACE);
		return 0;
	}
	if (!(l->flags & L_PLACED)) {
		deny(d, R_PENDING);
		return 0;
	}
	service = CLASS_IN(place, d->live);
	if (place->kind != PLACE_WORKLOAD && !(place->kind == PLACE_SERVICE && service))
		return 1;
	d->proof = PROOF_CLAIMED;
	if (place->real_port)
		d->port = place->real_port;
	if (place->kind == PLACE_SERVICE) {
		/* whichever member answers is of this class, and may be the caller itself if that is its own */
		if (service == CLASS_IN(l, d->live))
			return 1;
		d->class = service;
		judge(d, CLASS_IN(l, d->live));
		return d->allow;
	}
	d->peer = place->ref;
	if (!know_peer(d))
		return 1;
	judge_workload(d, cfg, l);
	return d->allow;
}

INLINE void record_dial(struct bpf_sock_addr *ctx, const struct decision *d, const union addr *to, __u32 kind_flags)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		stage(kind_flags == E_OPEN ? S_EVENT_LOST : S_NOTICE_LOST);
		return;
	}
	fill_event(e, d, kind_flags & 0xff, kind_flags >> 8);
	e->netns = bpf_get_netns_cookie(ctx);
	e->remote = *to;
	e->local.d[0] = 0;
	e->local.d[1] = 0;
	e->remote_port = swap16(ctx->user_port);
	e->local_port = 0;
	bpf_ringbuf_submit(e, RB_NO_WAKEUP);
}

/* A refusal before the first packet: an errno. 1 = the workload observes only; later records tell the rest. */
INLINE int refuse_dial(struct bpf_sock_addr *ctx, const struct decision *d, const struct local *l, const union addr *to)
{
	bool would = !d->judged && !(l->flags & L_ENFORCE) && d->reason != R_REVOKED;

	count_denial(d, would);
	if (would)
		return 1;
	stage(S_CONNECT_REFUSED);
	record_dial(ctx, d, to, E_REFUSED | EF_EARLY << 8);
	return refuse_call(ERRNO_CONNREFUSED);
}

/* A datagram from the own address of another workload: without rights IPv6 lets a socket claim one (rule 1). */
NOINLINE int is_another(const union addr *from, __u32 stamp)
{
	const struct config *cfg = configuration();
	struct local *l = local_of(stamp);
	struct place *place;

	if (!from || !cfg || !l)
		return 0;
	place = place_of(from, 0, 0);
	return place && place->kind == PLACE_WORKLOAD && !(l->flags & L_PLACED && place->ref == ref_of(cfg, l));
}

/* A datagram's destination, from connect() or sendmsg(): the answer is recorded so that replies find their way. */
INLINE int send_udp(struct bpf_sock_addr *ctx, const union addr *to, const union addr *from)
{
	struct config *cfg = configuration();
	struct decision d = { .proto = PROTO_UDP, .direction = EGRESS };
	struct sock_state fresh = {};
	struct bpf_sock *sk = ctx->sk;
	struct sock_state *st;
	struct flow_key key;
	struct flow *flow;
	struct local *l;

	if (!cfg || !cfg->live || !sk)
		return 1;
	st = bpf_sk_storage_get(&socks, sk, &fresh, SK_STORAGE_CREATE);
	if (!st) {
		stage(S_NO_MEMORY);
		return refuse_call(ERRNO_PERM);
	}
	if (st->role == ROLE_EXEMPT)
		return 1;
	d.live = cfg->live;
	if (st->stamp_live != d.live || !st->stamp) {
		st->stamp = stamp_of_current(cfg);
		st->stamp_live = d.live;
	}
	d.stamp = st->stamp;
	l = local_of(d.stamp);
	d.port = swap16(ctx->user_port);
	if (!l || (is_dhcp(d.port) && is_dhcp(sk->src_port)))
		return 1;
	if (from->d[1] && is_another(from, d.stamp)) {
		deny(&d, R_SOURCE_MISMATCH);
		return refuse_dial(ctx, &d, l, to);
	}
	flow_key_of(&key, bpf_get_socket_cookie(ctx), to, d.port);
	flow = flow_of(&key, d.live);
	if (flow && (flow->live == d.live || (flow->direction == INGRESS && !(l->flags & L_REVOKED))))
		return 1; /* an answer under an older epoch passes for a while; the next question is judged anew */
	judge_sending(&d, cfg, l, to);
	if (!d.allow && !refuse_dial(ctx, &d, l, to))
		return 0;
	if (d.allow && !d.would_allow)
		count_denial(&d, 1);
	flow_write(&key, &d);
	record_dial(ctx, &d, to, E_OPEN);
	return 1;
}

/* Rule 5: no data before proof. Both ways to TCP Fast Open, the socket option and MSG_FASTOPEN, come through connect. */
INLINE bool wants_fast_open(struct bpf_sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);

	return tp && (tp->fastopen_req || BPF_CORE_READ_BITFIELD(tp, fastopen_connect));
}

INLINE int dial(struct bpf_sock_addr *ctx, const union addr *to, const union addr *from)
{
	struct config *cfg = configuration();
	struct decision d = {};
	struct sock_state fresh = {};
	struct sock_state *st;
	struct bpf_sock *sk = ctx->sk;
	struct local *l;

	if (!cfg || !cfg->live || !sk)
		return 1;
	if (ctx->protocol != PROTO_TCP)
		return ctx->protocol == PROTO_UDP ? send_udp(ctx, to, from) : 1;
	st = bpf_sk_storage_get(&socks, sk, &fresh, SK_STORAGE_CREATE);
	if (!st) {
		stage(S_NO_MEMORY);
		return refuse_call(ERRNO_PERM);
	}
	if (st->role == ROLE_EXEMPT)
		return 1;
	d.live = cfg->live;
	d.stamp = stamp_of_caller(cfg, sk);
	st->stamp = d.stamp;
	st->stamp_live = d.live;
	st->live = 0;
	st->verified = 0;
	st->asked_ns = 0;
	st->opened = 0;
	st->flags = 0;
	st->role = ROLE_CLIENT;
	l = local_of(d.stamp);
	if (!l) {
		st->role = ROLE_UNMANAGED;
		return 1;
	}
	d.direction = EGRESS;
	d.proto = PROTO_TCP;
	d.port = swap16(ctx->user_port);
	if (wants_fast_open(sk)) {
		deny(&d, R_DATA_BEFORE_PROOF);
		return refuse_dial(ctx, &d, l, to);
	}
	return judge_dial(&d, to) || refuse_dial(ctx, &d, l, to);
}

/* A socket's own address; zero = it has none yet. */
INLINE void bound_v4(union addr *from, __u32 ip4)
{
	from->d[0] = 0;
	from->d[1] = 0;
	if (ip4)
		addr_v4(from, ip4);
}

SEC("cgroup/connect4")
int stolos_connect4(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	union addr to, from;

	addr_v4(&to, ctx->user_ip4);
	name_loopback(&to);
	bound_v4(&from, sk ? sk->src_ip4 : 0);
	return dial(ctx, &to, &from);
}

SEC("cgroup/connect6")
int stolos_connect6(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	union addr to, from = {};

	to.w[0] = ONCE(ctx->user_ip6[0]);
	to.w[1] = ONCE(ctx->user_ip6[1]);
	to.w[2] = ONCE(ctx->user_ip6[2]);
	to.w[3] = ONCE(ctx->user_ip6[3]);
	name_loopback(&to);
	if (sk) {
		from.w[0] = ONCE(sk->src_ip6[0]);
		from.w[1] = ONCE(sk->src_ip6[1]);
		from.w[2] = ONCE(sk->src_ip6[2]);
		from.w[3] = ONCE(sk->src_ip6[3]);
	}
	return dial(ctx, &to, &from);
}

SEC("cgroup/sendmsg4")
int stolos_sendmsg4(struct bpf_sock_addr *ctx)
{
	union addr to, from;

	addr_v4(&to, ctx->user_ip4);
	name_loopback(&to);
	bound_v4(&from, ctx->msg_src_ip4);
	return ctx->protocol == PROTO_UDP ? send_udp(ctx, &to, &from) : 1;
}

SEC("cgroup/sendmsg6")
int stolos_sendmsg6(struct bpf_sock_addr *ctx)
{
	union addr to, from;

	to.w[0] = ONCE(ctx->user_ip6[0]);
	to.w[1] = ONCE(ctx->user_ip6[1]);
	to.w[2] = ONCE(ctx->user_ip6[2]);
	to.w[3] = ONCE(ctx->user_ip6[3]);
	name_loopback(&to);
	from.w[0] = ONCE(ctx->msg_src_ip6[0]);
	from.w[1] = ONCE(ctx->msg_src_ip6[1]);
	from.w[2] = ONCE(ctx->msg_src_ip6[2]);
	from.w[3] = ONCE(ctx->msg_src_ip6[3]);
	return ctx->protocol == PROTO_UDP ? send_udp(ctx, &to, &from) : 1;
}

/* Records and counts what a protected workload may not open. 1 = it observes only. */
INLINE int refuse_socket(struct bpf_sock *sk, __u32 stamp, const struct local *l, __u8 reason, __u64 netns)
{
	struct decision d = { .stamp = stamp, .direction = EGRESS, .reason = reason };
	bool would = !(l->flags & L_ENFORCE);
	struct event *e;

	d.proto = sk->protocol == PROTO_MPTCP ? PROTO_TCP : sk->protocol;
	count_denial(&d, would);
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (e) {
		fill_event(e, &d, E_REFUSED, would ? EF_WOULD : EF_EARLY);
		e->netns = netns;
		e->remote.d[0] = 0;
		e->remote.d[1] = 0;
		e->local.d[0] = 0;
		e->local.d[1] = 0;
		e->remote_port = 0;
		e->local_port = 0;
		bpf_ringbuf_submit(e, RB_NO_WAKEUP);
	} else {
		stage(S_NOTICE_LOST);
	}
	return would;
}

/* What the other programs judge, and ping's sockets, raw or not. */
INLINE bool is_judged(__u32 type, __u32 protocol)
{
	if (protocol == PROTO_ICMP || protocol == PROTO_ICMPV6)
		return type == SOCKET_DGRAM || type == SOCKET_RAW;
	return (type == SOCKET_STREAM && protocol == PROTO_TCP) || (type == SOCKET_DGRAM && protocol == PROTO_UDP);
}

/* Rules 8 and 15: what would carry data around the handshake is not opened: MPTCP, raw sockets, SCTP, UDP-Lite, SMC. */
SEC("cgroup/sock_create")
int stolos_create(struct bpf_sock *sk)
{
	struct config *cfg = configuration();
	__u32 stamp, protocol = sk->protocol;
	struct local *l;

	if (!cfg || !cfg->live || is_judged(sk->type, protocol))
		return 1;
	stamp = stamp_of_current(cfg);
	l = local_of(stamp);
	/* a host that nobody protects by name opens what it likes; of one that is protected nobody is left out, the agent
	 * neither: it answers refusals by ping's kind of sockets (src/refuse.rs) */
	if (!l || (l->flags & (L_HOST | L_ENFORCE)) == L_HOST)
		return 1;
	return refuse_socket(sk, stamp, l, protocol == PROTO_MPTCP ? R_MPTCP : R_RAW_SOCKET, bpf_get_netns_cookie(sk));
}
