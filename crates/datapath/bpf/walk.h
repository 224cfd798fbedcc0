/* SPDX-License-Identifier: Apache-2.0 */
/* What the walks over a namespace's sockets share: addresses and workload of a socket seen from outside a hook. */
#pragma once

/* The stamp of the nearest workload around the cgroup in which a socket was created. */
INLINE __u32 stamp_of_walked(const struct config *cfg, struct sock *sk)
{
	struct cgroup *cgroup = sk->sk_cgrp_data.cgroup;

	for (int level = 0; level < ANCESTORS_MAX && cgroup; level++) {
		struct cgroup_subsys_state *parent;
		struct kernfs_node *kn = cgroup->kn;
		__u64 id = kn ? kn->id : 0;
		__u32 *stamp = bpf_map_lookup_elem(&workloads, &id);

		if (stamp)
			return *stamp;
		parent = cgroup->self.parent;
		cgroup = parent ? parent->cgroup : NULL;
	}
	return cfg->host;
}

INLINE void ends_of_walked(struct sock *sk, union addr *remote, union addr *local)
{
	struct sock_common *c = &sk->__sk_common;

	if (c->skc_family == FAMILY_INET) {
		addr_v4(remote, c->skc_daddr);
		addr_v4(local, c->skc_rcv_saddr);
		return;
	}
	for (int i = 0; i < 4; i++) {
		remote->w[i] = c->skc_v6_daddr.w[i];
		local->w[i] = c->skc_v6_rcv_saddr.w[i];
	}
}

INLINE __u8 state_of_walked(struct tcp_sock *tp)
{
	return tp->inet_conn.icsk_inet.sk.__sk_common.skc_state;
}

INLINE __u16 port_of_walked(struct sock *sk)
{
	return sk->__sk_common.skc_num;
}

INLINE __u16 remote_port_of_walked(struct sock *sk)
{
	return swap16(sk->__sk_common.skc_dport);
}

NOINLINE int write_listener(struct seq_file *seq, const struct listener *told)
{
	return bpf_seq_write(seq, told, sizeof(*told));
}

NOINLINE int write_swept(struct seq_file *seq, const struct swept *told)
{
	return bpf_seq_write(seq, told, sizeof(*told));
}

/* Tells of one listener. */
INLINE void tell_listener(struct seq_file *seq, const struct config *cfg, struct tcp_sock *tp, bool labels, __u8 repaired)
{
	struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	struct listener told = {};
	union addr remote;

	ends_of_walked(sk, &remote, &told.local);
	told.stamp = stamp_of_walked(cfg, sk);
	told.port = port_of_walked(sk);
	told.labels = labels;
	told.repaired = repaired;
	write_listener(seq, &told);
}
