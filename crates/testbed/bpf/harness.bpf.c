/* SPDX-License-Identifier: Apache-2.0 */
/* The datapath's own code under BPF_PROG_TEST_RUN, which has no TCP socket to give: what a packet is read as, and what a
 * listener and a calling socket of the workload `skb->mark` would say to it. */
#include "stolos.bpf.c"

/* What a packet was read as. */
struct reading {
	union addr src;
	union addr dst;
	__u32 seq;
	__u32 ack;
	__u32 opt[5];
	__s32 parsed;
	__u16 sport;
	__u16 dport;
	__u8 flags;
	__u8 option;
	__u8 fast_open;
	__u8 has_data;
};

struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct reading);
} readings SEC(".maps");

SEC("cgroup_skb/ingress")
int try_parse(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct reading *r = bpf_map_lookup_elem(&readings, &zero);
	struct packet *p = bpf_map_lookup_elem(&scratch, &zero);

	if (!r || !p)
		return 0;
	r->parsed = parse_tcp(skb, p);
	r->src = p->src;
	r->dst = p->dst;
	r->seq = p->seq;
	r->ack = p->ack;
	r->sport = p->sport;
	r->dport = p->dport;
	r->flags = p->flags;
	r->option = p->option;
	r->fast_open = p->fast_open;
	r->has_data = p->has_data;
	for (int i = 0; i < 5; i++)
		r->opt[i] = p->opt[i];
	return 1;
}

SEC("cgroup_skb/ingress")
int try_listener(struct __sk_buff *skb)
{
	struct config *cfg = configuration();
	struct decision d = { .proto = PROTO_TCP, .direction = INGRESS };
	__u32 zero = 0;
	struct packet *p = bpf_map_lookup_elem(&scratch, &zero);
	struct local *l = local_of(skb->mark);

	if (!cfg || !p || !l)
		return 1;
	d.live = cfg->live;
	d.stamp = skb->mark;
	if (parse_tcp(skb, p) < 0) {
		deny(&d, R_PARSE_FAILED);
		count_denial(&d, 0);
		return 0;
	}
	if (p->flags & TCP_RST)
		return 1;
	d.port = p->dport;
	return p->flags & TCP_SYN ? server_syn(skb, cfg, p, &d, l) : server_ack(skb, cfg, p, &d, l);
}

SEC("cgroup_skb/ingress")
int try_caller(struct __sk_buff *skb)
{
	struct config *cfg = configuration();
	struct decision d = { .proto = PROTO_TCP, .direction = EGRESS };
	__u32 zero = 0;
	struct packet *p = bpf_map_lookup_elem(&scratch, &zero);
	struct local *l = local_of(skb->mark);
	int reason;

	if (!cfg || !p || !l)
		return 1;
	d.live = cfg->live;
	d.stamp = skb->mark;
	if (parse_tcp(skb, p) < 0) {
		deny(&d, R_PARSE_FAILED);
		count_denial(&d, 0);
		return 0;
	}
	d.port = p->sport;
	reason = p->option == OPT_NONE ? R_OPTION_MISSING : synack_untrue(cfg, p, &d, l);
	if (!reason && belongs(&p->src, &d, ref_of(cfg, l)) != AT_PLACE)
		reason = R_UNKNOWN_PLACE;
	if (!reason)
		return 1;
	deny(&d, reason);
	count_denial(&d, 0);
	return 0;
}
