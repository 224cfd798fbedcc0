/* SPDX-License-Identifier: Apache-2.0 */
/* Reads a TCP segment into `struct packet`: hostile bytes, so every length is checked and a failure is a drop (rule 7). */
#pragma once

INLINE __u16 swap16(__u16 x)
{
	return __builtin_bswap16(x);
}

INLINE __u32 swap32(__u32 x)
{
	return __builtin_bswap32(x);
}

INLINE __u64 swap64(__u64 x)
{
	return __builtin_bswap64(x);
}

INLINE void addr_v4(union addr *a, __u32 ip4)
{
	a->d[0] = 0;
	a->w[2] = swap32(0xffff);
	a->w[3] = ip4;
}

INLINE bool addr_equal(const union addr *a, const union addr *b)
{
	return a->d[0] == b->d[0] && a->d[1] == b->d[1];
}

INLINE __u32 read32(const __u8 *p)
{
	return (__u32)p[0] | (__u32)p[1] << 8 | (__u32)p[2] << 16 | (__u32)p[3] << 24;
}

/* What names the socket of this namespace that sent a packet, as if one were on its way back. Gives the tuple's size. */
INLINE __u32 sender_tuple(struct bpf_sock_tuple *tuple, const struct packet *p)
{
	if (p->src.d[0] == 0 && p->src.w[2] == swap32(0xffff)) {
		tuple->ipv4.saddr = p->dst.w[3];
		tuple->ipv4.daddr = p->src.w[3];
		tuple->ipv4.sport = swap16(p->dport);
		tuple->ipv4.dport = swap16(p->sport);
		return sizeof(tuple->ipv4);
	}
	for (int i = 0; i < 4; i++) {
		tuple->ipv6.saddr[i] = p->dst.w[i];
		tuple->ipv6.daddr[i] = p->src.w[i];
	}
	tuple->ipv6.sport = swap16(p->dport);
	tuple->ipv6.dport = swap16(p->sport);
	return sizeof(tuple->ipv6);
}

/* Reads the option at p->at and steps over it. 0 = the list ends here. */
INLINE int walk_one(struct packet *p)
{
	__u32 at = p->at, kind, len;

	if (at >= p->list_len || at >= 40)
		return 0;
	kind = p->list[at];
	if (kind == 0)
		return 0;
	if (kind == 1) {
		p->at = at + 1;
		return 1;
	}
	len = p->list[at + 1];
	if (len < 2 || at + len > p->list_len) {
		p->count = 2;
		return 0;
	}
	p->at = at + len;
	if (kind == 34)
		p->fast_open = 1;
	if ((kind == OPTION_KIND || kind == 254) && len >= 4) {
		__u32 exid = (__u32)p->list[at + 2] << 8 | p->list[at + 3];

		if (exid == 0xF989) /* as Fast Open was sent before it had a kind of its own; Linux still takes it */
			p->fast_open = 1;
		if (exid == OPTION_EXID && kind == OPTION_KIND) {
			p->count += len == OPTION_LEN ? 1 : 2;
			p->found = at;
		}
	}
	return 1;
}

/* Looks through the option list for ours and for TCP Fast Open. */
NOINLINE int walk_options(struct packet *p)
{
	__u32 found;

	if (!p)
		return -1;
	p->at = 0;
	p->found = 0;
	p->count = 0;
	for (int i = 0; i < 40; i++) {
		if (!walk_one(p))
			break;
	}
	if (!p->count)
		return 0;
	found = p->found;
	if (p->count != 1 || found > 20) {
		p->option = OPT_BAD;
		return 0;
	}
	p->option = OPT_OURS;
	p->opt[0] = read32(p->list + found);
	p->opt[1] = read32(p->list + found + 4);
	p->opt[2] = read32(p->list + found + 8);
	p->opt[3] = read32(p->list + found + 12);
	p->opt[4] = read32(p->list + found + 16);
	return 0;
}

/* Where the transport header starts, with the addresses read; 0 = cannot be read. */
NOINLINE int parse_network(struct __sk_buff *skb, struct packet *p, __u32 proto)
{
	__u8 next;
	__u32 off;

	if (!p)
		return 0;
	if (skb->protocol == swap16(ETHERTYPE_IP)) {
		if (bpf_skb_load_bytes(skb, 0, p->header, 20) < 0)
			return 0;
		addr_v4(&p->src, read32(p->header + 12));
		addr_v4(&p->dst, read32(p->header + 16));
		off = (p->header[0] & 15) * 4;
		if (p->header[0] >> 4 != 4 || off < 20 || p->header[9] != proto)
			return 0;
		return off;
	}
	if (skb->protocol != swap16(ETHERTYPE_IPV6) || bpf_skb_load_bytes(skb, 0, p->header, 40) < 0)
		return 0;
	for (int i = 0; i < 4; i++) {
		p->src.w[i] = read32(p->header + 8 + 4 * i);
		p->dst.w[i] = read32(p->header + 24 + 4 * i);
	}
	if (p->header[0] >> 4 != 6)
		return 0;
	next = p->header[6];
	off = 40;
	for (int i = 0; i < 6; i++) {
		if (next == proto)
			return off;
		/* hop-by-hop, routing, destination options: eight octets times length plus one; authentication: four;
		 * the fragment header of a packet that is its only fragment: eight in all. */
		if (next != 0 && next != 43 && next != 60 && next != 51 && next != 44)
			return 0;
		if (bpf_skb_load_bytes(skb, off, p->header, 2) < 0)
			return 0;
		off += next == 44 ? 8 : next == 51 ? (p->header[1] + 2) * 4 : (p->header[1] + 1) * 8;
		next = p->header[0];
	}
	return 0;
}

/* 0 = read, negative = cannot be read. */
NOINLINE int parse_tcp(struct __sk_buff *skb, struct packet *p)
{
	__u32 off, len;

	if (!p)
		return -1;
	p->option = OPT_NONE;
	p->fast_open = 0;
	off = parse_network(skb, p, PROTO_TCP);
	if (!off || off > 2048 || bpf_skb_load_bytes(skb, off, p->header, 20) < 0)
		return -1;
	p->sport = (__u16)p->header[0] << 8 | p->header[1];
	p->dport = (__u16)p->header[2] << 8 | p->header[3];
	p->seq = swap32(read32(p->header + 4));
	p->ack = swap32(read32(p->header + 8));
	p->flags = p->header[13];
	len = (p->header[12] >> 4) * 4;
	if (len < 20)
		return -1;
	p->has_data = skb->len > off + len;
	len -= 20;
	p->list_len = len;
	if (!len)
		return 0;
	/* Two tests that the compiler must leave apart: verifiers before 6.8 learn no lower bound from `!= 0`. */
	barrier_var(len);
	if (len > 40)
		return -1;
	barrier_var(len);
	if ((__s32)len < 1 || bpf_skb_load_bytes(skb, off + 20, p->list, len) < 0)
		return -1;
	return walk_options(p);
}

/* The ends of a datagram. 0 = read, negative = cannot be read. */
NOINLINE int parse_udp(struct __sk_buff *skb, struct packet *p)
{
	__u32 off;

	if (!p)
		return -1;
	p->option = OPT_NONE;
	p->flags = 0;
	off = parse_network(skb, p, PROTO_UDP);
	if (!off || off > 2048 || bpf_skb_load_bytes(skb, off, p->header, 8) < 0)
		return -1;
	p->sport = (__u16)p->header[0] << 8 | p->header[1];
	p->dport = (__u16)p->header[2] << 8 | p->header[3];
	p->seq = 1;
	p->ack = 1;
	return 0;
}

/* The type of an ICMP message, with the addresses read. Negative = cannot be read. */
NOINLINE int parse_icmp(struct __sk_buff *skb, struct packet *p, __u32 proto)
{
	__u32 off;

	if (!p)
		return -1;
	p->option = OPT_NONE;
	p->flags = 0;
	off = parse_network(skb, p, proto);
	if (!off || off > 2048 || bpf_skb_load_bytes(skb, off, p->header, 1) < 0)
		return -1;
	p->sport = 0;
	p->dport = 0;
	p->seq = 1;
	p->ack = 1;
	return p->header[0];
}
