/* SPDX-License-Identifier: Apache-2.0 */
/* Rule 4: a verified ACK is good once. Buckets of eight, each entry 48 bits of keyed hash and 16 bits of seconds. */
#pragma once

#define BURN_OK 0
#define BURN_SEEN 1
#define BURN_NO_ROOM 2

INLINE __u64 burn_hash(const struct config *cfg, __u64 ref, __u32 client_isn, __u32 server_isn)
{
	__u64 h = mix(ref ^ cfg->secret[0]);

	h = mix(h ^ ((__u64)client_isn << 32 | server_isn));
	return mix(h + cfg->secret[1]);
}

INLINE __u16 seconds_now(void)
{
	return uptime_seconds();
}

INLINE __u32 burn_bucket(__u64 hash)
{
	return hash & (BURN_BUCKETS - 1);
}

INLINE __u64 burn_tag(__u64 hash)
{
	return hash & ~0xffffULL;
}

/* Whether it is burnt already, or whether there would be room. */
NOINLINE int burn_check(__u64 hash)
{
	__u32 index = burn_bucket(hash);
	struct burn_bucket *b = bpf_map_lookup_elem(&burnt, &index);
	__u16 now = seconds_now();
	int room = 0;

	if (!b)
		return BURN_NO_ROOM;
	for (int i = 0; i < BURN_SLOTS; i++) {
		__u64 slot = b->slots[i];

		if (!slot || (__u16)(now - (__u16)slot) > BURN_SECONDS)
			room = 1;
		else if (burn_tag(slot) == burn_tag(hash))
			return BURN_SEEN;
	}
	return room ? BURN_OK : BURN_NO_ROOM;
}

/* Burns it: BURN_SEEN when somebody was faster, BURN_NO_ROOM when all eight are young. */
NOINLINE int burn_write(__u64 hash)
{
	__u32 index = burn_bucket(hash);
	struct burn_bucket *b = bpf_map_lookup_elem(&burnt, &index);
	__u16 now = seconds_now();

	if (!b)
		return BURN_NO_ROOM;
	for (int i = 0; i < BURN_SLOTS; i++) {
		__u64 slot = b->slots[i];

		if (slot && (__u16)(now - (__u16)slot) <= BURN_SECONDS) {
			if (burn_tag(slot) == burn_tag(hash))
				return BURN_SEEN;
			continue;
		}
		if (__sync_val_compare_and_swap(&b->slots[i], slot, burn_tag(hash) | now) == slot)
			return BURN_OK;
	}
	stage(S_BURN_FULL);
	return BURN_NO_ROOM;
}
