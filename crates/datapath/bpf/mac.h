/* SPDX-License-Identifier: Apache-2.0 */
/* The option's bytes and what stands under its MAC (docs/wire.md), as little-endian words. */
#pragma once

/* Who says what to whom, besides what the option itself carries. */
struct mac_input {
	__u32 client_isn;
	__u32 server_isn;
	__u64 t;
	__u64 to;            /* node << 16 | slot */
	__u64 from_instance;
	__u64 to_instance;
};

INLINE __u64 time_now(const struct config *cfg)
{
	return (boot_ns_coarse() + cfg->clock_offset_ns) / (T_SECONDS * 1000000000ULL);
}

/* The sender's T for its low eight bits: 0 = outside the window. */
INLINE __u64 time_accept(__u64 now, __u8 low)
{
	__s8 ahead = (__s8)(low - (__u8)now);

	if (ahead < -1 || ahead > 1)
		return 0;
	return now + (__s64)ahead;
}

INLINE void option_fill(__u32 *opt, __u8 message, __u8 own, __u8 peer, __u8 echo, __u8 flags, __u64 t, __u64 ref)
{
	__u8 kinds = OPTION_VERSION << 6 | message << 4 | (own & 3) << 2 | (peer & 3);

	opt[0] = OPTION_KIND | OPTION_LEN << 8 | (OPTION_EXID >> 8) << 16 | (__u32)(OPTION_EXID & 0xff) << 24;
	opt[1] = kinds | (__u32)(echo << 4 | (flags & 15)) << 8 | (__u32)(t & 0xff) << 16 | (__u32)(ref >> 32) << 24;
	opt[2] = swap32((__u32)ref);
}

INLINE __u8 option_version(const __u32 *opt) { return (opt[1] & 0xff) >> 6; }
INLINE __u8 option_message(const __u32 *opt) { return (opt[1] >> 4) & 3; }
INLINE __u8 option_own(const __u32 *opt) { return (opt[1] >> 2) & 3; }
INLINE __u8 option_peer(const __u32 *opt) { return opt[1] & 3; }
INLINE __u8 option_echo(const __u32 *opt) { return (opt[1] >> 12) & 15; }
INLINE __u8 option_flags(const __u32 *opt) { return (opt[1] >> 8) & 15; }
INLINE __u8 option_t(const __u32 *opt) { return (opt[1] >> 16) & 0xff; }
INLINE __u64 option_ref(const __u32 *opt) { return (__u64)(opt[1] >> 24) << 32 | swap32(opt[2]); }
INLINE __u64 option_mac(const __u32 *opt) { return opt[3] | (__u64)opt[4] << 32; }

/* Keys of one pair. The bound is set where it is used: verifiers before 6.8 forget it when the number was put aside. */
INLINE struct pair *pair_at(struct node_keys *keys, __u32 pair)
{
	barrier_var(pair);
	return &keys->pairs[pair & (GENERATIONS * GENERATIONS - 1)];
}

/* Shape of an option of the given message (rule 7): version, type, a node, no echo in a SYN. */
INLINE bool option_wellformed(const __u32 *opt, __u8 message)
{
	return option_version(opt) == OPTION_VERSION && option_message(opt) == message && option_ref(opt) >> 16 != 0 &&
	       (message != MESSAGE_SYN || option_echo(opt) == 0);
}

NOINLINE __u64 mac_syn(const struct key128 *key, const __u32 *opt, __u32 client_isn, __u64 t)
{
	__u64 m[3];

	m[0] = opt[0] | (__u64)opt[1] << 32;
	m[1] = opt[2] | (__u64)swap32(client_isn) << 32;
	m[2] = swap64(t);
	return siphash_syn(key, m);
}

NOINLINE __u64 mac_pair(const struct key128 *key, const __u32 *opt, const struct mac_input *in)
{
	__u64 to = swap64(in->to << 24);
	__u64 m[7];

	m[0] = opt[0] | (__u64)opt[1] << 32;
	m[1] = opt[2] | (__u64)swap32(in->client_isn) << 32;
	m[2] = swap32(in->server_isn) | (__u64)swap32(in->t >> 32) << 32;
	m[3] = swap32((__u32)in->t) | to << 32;
	m[4] = ((to >> 32) & 0xff) | (__u64)swap32(in->from_instance >> 32) << 32;
	m[5] = swap32((__u32)in->from_instance) | (__u64)swap32(in->to_instance >> 32) << 32;
	m[6] = swap32((__u32)in->to_instance);
	return siphash_pair(key, m);
}
