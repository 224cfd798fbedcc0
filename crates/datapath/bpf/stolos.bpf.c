/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel side of the datapath, one object. Start reading at ingress.h. */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include "abi.h"

#define PENDING_ENTRIES 16384
#define BURN_BUCKETS 131072

#include "packet.h"
#include "maps.h"
#include "parse.h"
#include "siphash.h"
#include "mac.h"
#include "judge.h"
#include "record.h"
#include "burn.h"
#include "server.h"
#include "client.h"
#include "ingress.h"
#include "socket.h"
#include "hooks.h"

char _license[] SEC("license") = "Dual MIT/GPL";
