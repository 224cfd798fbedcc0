/* SPDX-License-Identifier: Apache-2.0 */
/* A cheap mixer for tables. Not a MAC: where an attacker chooses the input, a secret goes in. */
#pragma once

INLINE __u64 mix(__u64 x)
{
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ULL;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ULL;
	x ^= x >> 32;
	return x;
}
