/* SPDX-License-Identifier: Apache-2.0 */
/* Decisions: which workload a socket belongs to, which place an address is, and the verdict of the live bank. */
#pragma once

/* A question and its answer. */
struct decision {
	__u64 live; /* read before anything else (rule 14) */
	__u64 peer;
	__u64 peer_instance;
	__u32 class;
	__u32 rule;
	__u32 stamp;
	__u32 peer_flags; /* P_* of the peer in the table */
	__u16 port;
	__u8 direction;
	__u8 proto;
	__u8 proof;
	__u8 reason;
	__u8 allow;
	__u8 would_allow;
	__u8 judged; /* the policy said so; modes are in it */
};

/* The stamp of a process' own or nearest enclosing workload; the host's otherwise. */
NOINLINE __u32 stamp_of_current(const struct config *cfg)
{
	__u64 id = bpf_get_current_cgroup_id();
	__u32 *stamp = bpf_map_lookup_elem(&workloads, &id);

	if (stamp)
		return *stamp;
	for (int level = ANCESTORS_MAX; level > 0; level--) {
		id = bpf_get_current_ancestor_cgroup_id(level);
		if (!id)
			continue;
		stamp = bpf_map_lookup_elem(&workloads, &id);
		if (stamp)
			return *stamp;
	}
	return cfg ? cfg->host : 0;
}

/* The same for the cgroup a socket was created in. */
INLINE __u32 stamp_of_socket(const struct config *cfg, struct bpf_sock *sk)
{
	__u64 id = bpf_sk_cgroup_id(sk);
	__u32 *stamp = bpf_map_lookup_elem(&workloads, &id);

	if (stamp)
		return *stamp;
	for (int level = ANCESTORS_MAX; level > 0; level--) {
		id = bpf_sk_ancestor_cgroup_id(sk, level);
		if (!id)
			continue;
		stamp = bpf_map_lookup_elem(&workloads, &id);
		if (stamp)
			return *stamp;
	}
	return cfg->host;
}

/* Whether any place may name this port: most look-ups by port are saved by one bit. */
INLINE bool names_port(__u16 port)
{
	struct config *cfg = configuration();

	return cfg && cfg->port_places >> (port & 63) & 1;
}

/* 127/8, ::1 and 127/8 mapped: always a place of this node, whatever is declared, and never external. */
INLINE bool is_loopback(const union addr *a)
{
	return a->d[0] == 0 && (a->d[1] == swap64(1) || (a->w[2] == swap32(0xffff) && a->b[12] == 127));
}

/* The kernel takes an unspecified destination for loopback, but only after the hooks have seen it. */
INLINE void name_loopback(union addr *to)
{
	if (to->d[0])
		return;
	if (!to->d[1])
		to->d[1] = swap64(1);
	else if (to->w[2] == swap32(0xffff) && !to->w[3])
		to->w[3] = swap32(0x7f000001);
}

/* The place of an address: a Service's (address, port) first, then the address alone. Loopback is not looked up. */
NOINLINE struct place *place_of(const union addr *addr, __u16 port, __u8 proto)
{
	struct place_key key = {};
	struct place *place;

	if (!addr || is_loopback(addr))
		return NULL;
	key.addr.d[0] = addr->d[0];
	key.addr.d[1] = addr->d[1];
	if (port && names_port(port)) {
		key.port = port;
		key.proto = proto;
		place = bpf_map_lookup_elem(&places, &key);
		if (place)
			return place;
		key.port = 0;
		key.proto = 0;
	}
	return bpf_map_lookup_elem(&places, &key);
}

/* The longest network that covers an address; 0 = none. class | flags << 32. */
NOINLINE __u64 network_of(const union addr *addr, __u64 live)
{
	__u32 bank = live & 1;
	struct network_key key;
	struct network *network;
	void *inner;

	if (!addr)
		return 0;
	inner = bpf_map_lookup_elem(&networks, &bank);
	if (!inner)
		return 0;
	key.prefix_len = 128;
	key.addr.w[0] = addr->w[0];
	key.addr.w[1] = addr->w[1];
	key.addr.w[2] = addr->w[2];
	key.addr.w[3] = addr->w[3];
	network = bpf_map_lookup_elem(inner, &key);
	return network ? network->class | (__u64)network->flags << 32 : 0;
}

#define NETWORK_CLASS(n) ((__u32)(n))
#define NETWORK_FLAGS(n) ((__u32)((n) >> 32))

INLINE bool is_member(__u64 ref, __u32 service)
{
	struct member_key key = { .ref = ref, .service = service };

	return bpf_map_lookup_elem(&members, &key) != NULL;
}

/* Private, unique-local, link-local and loopback ranges: the option is always sent there. */
INLINE bool in_private_scope(const union addr *a)
{
	if (a->d[0] == 0 && a->w[2] == swap32(0xffff)) {
		__u32 ip = swap32(a->w[3]);

		return ip >> 24 == 10 || ip >> 24 == 127 || ip >> 20 == 0xac1 || ip >> 16 == 0xc0a8 || ip >> 16 == 0xa9fe;
	}
	return (a->b[0] & 0xfe) == 0xfc || (a->b[0] == 0xfe && (a->b[1] & 0xc0) == 0x80) ||
	       (a->d[0] == 0 && a->d[1] == swap64(1));
}

INLINE void take(struct decision *d, const struct verdict *v)
{
	d->rule = v->rule;
	d->reason = v->reason;
	d->judged = 1;
	d->allow = v->flags & V_ALLOW;
	d->would_allow = (v->flags & V_WOULD_ALLOW) != 0;
}

/* Fills in the verdict between a local class and d->class on d->port. No entry at all is a deny. */
NOINLINE int judge(struct decision *d, __u32 local_class)
{
	struct verdict_key key;
	struct verdict_set *set;
	struct port_set *ranges;
	void *inner;
	__u32 bank, index, count;

	if (!d)
		return 0;
	bank = d->live & 1;
	key.local = local_class;
	key.peer = d->class;
	key.direction = d->direction;
	d->judged = 1;
	d->allow = 0;
	d->would_allow = 0;
	d->rule = 0;
	d->reason = d->class & CLASS_EXTERNAL ? R_EXTERNAL_DENY : R_DEFAULT_DENY;
	inner = bpf_map_lookup_elem(&verdicts, &bank);
	if (!inner)
		return 0;
	set = bpf_map_lookup_elem(inner, &key);
	if (!set) {
		key.peer = d->class & CLASS_EXTERNAL ? CLASS_EXTERNAL : CLASS_ANY;
		set = bpf_map_lookup_elem(inner, &key);
	}
	if (!set)
		return 0;
	take(d, &set->otherwise);
	index = set->ports;
	if (!index)
		return 0;
	inner = bpf_map_lookup_elem(&ports, &bank);
	if (!inner)
		return 0;
	ranges = bpf_map_lookup_elem(inner, &index);
	if (!ranges)
		return 0;
	count = ranges->count;
	for (__u32 i = 0; i < RANGES_MAX; i++) {
		const struct port_range *r = &ranges->ranges[i];

		if (i >= count)
			break;
		if (d->port >= r->first && d->port <= r->last && (!r->proto || r->proto == d->proto)) {
			take(d, &r->verdict);
			break;
		}
	}
	return 0;
}

INLINE void deny(struct decision *d, __u8 reason)
{
	d->allow = 0;
	d->would_allow = 0;
	d->judged = 0;
	d->reason = reason;
	d->rule = 0;
}

INLINE void allow(struct decision *d)
{
	d->allow = 1;
	d->would_allow = 1;
	d->judged = 1;
	d->reason = 0;
	d->rule = 0;
}

/* Looks d->peer up in our own table. False: unknown (rule 11). */
INLINE bool know_peer(struct decision *d)
{
	struct peer *peer = bpf_map_lookup_elem(&peers, &d->peer);
	__u32 class;

	if (!peer)
		return false;
	class = CLASS_IN(peer, d->live);
	if (class == CLASS_NONE)
		return false;
	d->peer_instance = peer->instance;
	d->class = class;
	d->peer_flags = peer->flags;
	return true;
}

/* Verdict with a proved (or placed) workload: own workload always, revocation before policy, unknown peers never. */
INLINE void judge_workload(struct decision *d, const struct config *cfg, const struct local *l)
{
	if (l->flags & L_REVOKED || d->peer_flags & P_REVOKED) {
		deny(d, R_REVOKED);
		return;
	}
	if (l->flags & L_PLACED && d->peer == ref_of(cfg, l)) {
		allow(d);
		return;
	}
	judge(d, CLASS_IN(l, d->live));
}

/* Verdict with a plain end (rule 9): loopback, an address of the fleet and a Service's (address, `port`) are never external.
 * `port` is the dialled one, 0 where the end is the caller. */
INLINE void judge_external(struct decision *d, const struct local *l, const union addr *addr, __u16 port)
{
	__u64 network = network_of(addr, d->live);
	struct place *place;

	d->proof = PROOF_EXTERNAL;
	d->class = CLASS_EXTERNAL;
	if (l->flags & L_REVOKED) {
		deny(d, R_REVOKED);
		return;
	}
	place = place_of(addr, port, d->proto);
	if (place || is_loopback(addr) || NETWORK_FLAGS(network) & N_FLEET) {
		deny(d, R_FLEET_ADDRESS_PLAIN);
		return;
	}
	if (NETWORK_FLAGS(network) & N_CLASS)
		d->class = NETWORK_CLASS(network);
	judge(d, CLASS_IN(l, d->live));
}
