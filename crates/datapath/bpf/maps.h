/* SPDX-License-Identifier: Apache-2.0 */
/* Every map. Sizes of hashes are set by the loader from `Capacity`; docs/capacity.md lists them all. */
#pragma once

#define INLINE static __attribute__((always_inline)) inline
#define NOINLINE static __attribute__((noinline, unused))
/* One load of its own: two neighbours merged into one are refused for a context. */
#define ONCE(x) (*(const volatile __typeof__(x) *)&(x))

struct {
	__uint(type, MAP_ARRAY);
	__uint(map_flags, F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} config SEC(".maps");

/* cgroup id -> stamp */
struct {
	__uint(type, MAP_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, __u32);
} workloads SEC(".maps");

/* index of a stamp -> workload */
struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct local);
} locals SEC(".maps");

struct {
	__uint(type, MAP_HASH);
	__uint(map_flags, F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, __u64);
	__type(value, struct peer);
} peers SEC(".maps");

struct {
	__uint(type, MAP_HASH);
	__uint(map_flags, F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct node_keys);
} nodes SEC(".maps");

struct {
	__uint(type, MAP_HASH);
	__uint(map_flags, F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct place_key);
	__type(value, struct place);
} places SEC(".maps");

struct {
	__uint(type, MAP_HASH);
	__uint(map_flags, F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct member_key);
	__type(value, __u32);
} members SEC(".maps");

/* Policy: two banks of inner maps, the live one named by config.live's low bit. The templates have sizes, not types: before 6.2
 * the kernel takes a map that is made without types, as the loader's are, for another kind than one with them. */
struct verdicts_inner {
	__uint(type, MAP_HASH);
	__uint(map_flags, F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct verdict_key));
	__uint(value_size, sizeof(struct verdict_set));
} verdicts_empty SEC(".maps");

struct {
	__uint(type, MAP_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct verdicts_inner);
} verdicts SEC(".maps") = { .values = { &verdicts_empty, &verdicts_empty } };

struct ports_inner {
	__uint(type, MAP_ARRAY);
	__uint(map_flags, F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct port_set));
} ports_empty SEC(".maps");

struct {
	__uint(type, MAP_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct ports_inner);
} ports SEC(".maps") = { .values = { &ports_empty, &ports_empty } };

struct networks_inner {
	__uint(type, MAP_LPM_TRIE);
	__uint(map_flags, F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct network_key));
	__uint(value_size, sizeof(struct network));
} networks_empty SEC(".maps");

struct {
	__uint(type, MAP_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct networks_inner);
} networks SEC(".maps") = { .values = { &networks_empty, &networks_empty } };

/* Direct-mapped by a keyed hash of the tuple; a colliding newcomer takes the place. */
struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, PENDING_ENTRIES);
	__type(key, __u32);
	__type(value, struct pending);
} pending SEC(".maps");

/* Rule 4. Entries expire by age and are never pushed out. */
struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, BURN_BUCKETS);
	__type(key, __u32);
	__type(value, struct burn_bucket);
} burnt SEC(".maps");

struct {
	__uint(type, MAP_SK_STORAGE);
	__uint(map_flags, F_NO_PREALLOC | F_CLONE);
	__type(key, int);
	__type(value, struct sock_state);
} socks SEC(".maps");

struct {
	__uint(type, MAP_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

/* Answers only to recorded questions (rule 17). The least used give way; what gave way is judged anew. */
struct {
	__uint(type, MAP_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

/* Exact and cumulative; what finds no room is counted per reason in `stages`. */
struct {
	__uint(type, MAP_HASH);
	__uint(max_entries, 16384);
	__type(key, struct denial_key);
	__type(value, __u64);
} denials SEC(".maps");

/* Stages, then carried-out refusals by reason, would-be refusals by reason, denials without a cell by reason. */
struct {
	__uint(type, MAP_PERCPU_ARRAY);
	__uint(max_entries, S_STAGES + 3 * REASONS);
	__type(key, __u32);
	__type(value, __u64);
} stages SEC(".maps");

/* The packet in hand (see parse.h). Ingress runs with bottom halves off: never two on one CPU. */
struct {
	__uint(type, MAP_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct packet);
} scratch SEC(".maps");

/* From the verified ACK at the listener to the child's birth: same CPU, same softirq. */
struct {
	__uint(type, MAP_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct verified);
} verified SEC(".maps");

/* The clock, read once per tick and CPU, and what was told in this tick of ends that have proved nothing. */
struct clock {
	__u64 jiffies;
	__u64 boot_ns;
	__u32 told;
	__u32 pad;
};

struct {
	__uint(type, MAP_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct clock);
} clocks SEC(".maps");

/* The boot clock to the tick: fine for windows of seconds, and cheaper than reading it a dozen times per handshake. */
INLINE __u64 boot_ns_coarse(void)
{
	__u32 zero = 0;
	struct clock *clock = bpf_map_lookup_elem(&clocks, &zero);
	__u64 jiffies = bpf_jiffies64();

	if (!clock)
		return bpf_ktime_get_boot_ns();
	if (clock->jiffies != jiffies) {
		clock->boot_ns = bpf_ktime_get_boot_ns();
		clock->jiffies = jiffies;
		clock->told = 0;
	}
	return clock->boot_ns;
}

INLINE __u32 uptime_seconds(void)
{
	return boot_ns_coarse() / 1000000000ULL;
}

INLINE struct config *configuration(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&config, &zero);
}

INLINE void stage(__u32 which)
{
	__u64 *count = bpf_map_lookup_elem(&stages, &which);
	if (count)
		*count += 1;
}

INLINE struct local *local_of(__u32 stamp)
{
	__u32 index = stamp & 0xffff;
	struct local *l = bpf_map_lookup_elem(&locals, &index);
	if (!index || !l || !(l->flags & L_VALID) || l->generation != stamp >> 16)
		return NULL;
	return l;
}

INLINE __u64 ref_of(const struct config *cfg, const struct local *l)
{
	return (__u64)cfg->node << 16 | l->slot;
}
