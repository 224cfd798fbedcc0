/* SPDX-License-Identifier: Apache-2.0 */
/* Inside one node no middlebox strips options and sockets can be looked up: who is at the other end, without a handshake.
 * Slow paths only: a plain segment over loopback or at the node's own address (rule 15). */
#pragma once

/* Whether a segment came from this machine: over loopback, from its own destination, or from the node's own address. */
INLINE bool is_home(const struct config *cfg, const struct packet *p)
{
	struct place *place;

	if (is_loopback(&p->src) || addr_equal(&p->src, &p->dst))
		return true;
	place = place_of(&p->src, 0, 0);
	return place && place->kind == PLACE_NODE && place->ref == cfg->node;
}

/* The socket of this namespace that sends from (`p->src`, `p->sport`) to where `p` goes: its stamp, its state << 32. */
NOINLINE __u64 sender_of(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock_tuple tuple = {};
	struct sock_state *st;
	struct bpf_sock *sk;
	__u64 found;

	if (!p)
		return 0;
	sk = bpf_sk_lookup_tcp(skb, &tuple, sender_tuple(&tuple, p), -1, 0);
	if (!sk)
		return 0;
	st = bpf_sk_storage_get(&socks, sk, 0, 0);
	found = (__u64)sk->state << 32 | (st ? st->stamp : 0);
	bpf_sk_release(sk);
	return found;
}

/* Rule 15: inside one workload a connection always passes, labelled or not. A caller is a socket that has called; whoever
 * answers is a listener. Forging this takes raw packets inside the namespace. */
INLINE bool within_workload(struct __sk_buff *skb, const struct config *cfg, const struct packet *p, struct decision *d,
			    const struct local *l, bool answers)
{
	__u64 found;

	if (l->flags & L_REVOKED || !is_home(cfg, p))
		return false;
	found = sender_of(skb, p);
	if ((__u32)found != d->stamp || (found >> 32 == TCP_STATE_LISTEN) != answers)
		return false;
	d->proof = PROOF_HOME;
	d->peer = l->flags & L_PLACED ? ref_of(cfg, l) : 0;
	d->class = CLASS_IN(l, d->live);
	allow(d);
	return true;
}
