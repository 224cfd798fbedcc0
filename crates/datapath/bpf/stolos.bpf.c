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

char _license[] SEC("license") = "Dual MIT/GPL";
