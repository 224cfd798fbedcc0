/* SPDX-License-Identifier: Apache-2.0 */
/* SipHash-2-4 over whole 8-byte words, unrolled. Words are the message's bytes read little-endian. */
#pragma once

#define ROTATE(x, n) (((x) << (n)) | ((x) >> (64 - (n))))

#define SIP_ROUND                    \
	do {                         \
		v0 += v1;            \
		v1 = ROTATE(v1, 13); \
		v1 ^= v0;            \
		v0 = ROTATE(v0, 32); \
		v2 += v3;            \
		v3 = ROTATE(v3, 16); \
		v3 ^= v2;            \
		v0 += v3;            \
		v3 = ROTATE(v3, 21); \
		v3 ^= v0;            \
		v2 += v1;            \
		v1 = ROTATE(v1, 17); \
		v1 ^= v2;            \
		v2 = ROTATE(v2, 32); \
	} while (0)

#define SIP_WORD(m)        \
	do {               \
		v3 ^= (m); \
		SIP_ROUND; \
		SIP_ROUND; \
		v0 ^= (m); \
	} while (0)

#define SIP_INIT(k)                                       \
	__u64 v0 = (k)->k0 ^ 0x736f6d6570736575ULL;       \
	__u64 v1 = (k)->k1 ^ 0x646f72616e646f6dULL;       \
	__u64 v2 = (k)->k0 ^ 0x6c7967656e657261ULL;       \
	__u64 v3 = (k)->k1 ^ 0x7465646279746573ULL

#define SIP_FINISH(length)                        \
	do {                                      \
		SIP_WORD((__u64)(length) << 56);  \
		v2 ^= 0xff;                       \
		SIP_ROUND;                        \
		SIP_ROUND;                        \
		SIP_ROUND;                        \
		SIP_ROUND;                        \
	} while (0)

/* The 24 bytes under a SYN's MAC. */
static __attribute__((noinline)) __u64 siphash_syn(const struct key128 *key, const __u64 *m)
{
	SIP_INIT(key);
	SIP_WORD(m[0]);
	SIP_WORD(m[1]);
	SIP_WORD(m[2]);
	SIP_FINISH(24);
	return v0 ^ v1 ^ v2 ^ v3;
}

/* The 56 bytes under a SYN-ACK's and an ACK's MAC. */
static __attribute__((noinline)) __u64 siphash_pair(const struct key128 *key, const __u64 *m)
{
	SIP_INIT(key);
	SIP_WORD(m[0]);
	SIP_WORD(m[1]);
	SIP_WORD(m[2]);
	SIP_WORD(m[3]);
	SIP_WORD(m[4]);
	SIP_WORD(m[5]);
	SIP_WORD(m[6]);
	SIP_FINISH(56);
	return v0 ^ v1 ^ v2 ^ v3;
}
