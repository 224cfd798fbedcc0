/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel side of the datapath, one object. Start reading at ingress.h. */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "core.h"
#include "burn.h"
#include "home.h"
#include "server.h"
#include "client.h"
#include "again.h"
#include "datagram.h"
#include "ingress.h"
#include "egress.h"
#include "socket.h"
#include "walk.h"
#include "hooks.h"
#include "mark.h"

/* Never called nor loaded: leaves in the object what the untyped inner maps hold, for the comparison with the loader's layouts. */
int inner_layouts(struct verdict_key *key, struct verdict_set *set, struct port_set *ports_of, struct network_key *network,
		  struct network *of)
{
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
