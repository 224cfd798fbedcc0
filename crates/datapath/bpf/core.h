/* SPDX-License-Identifier: Apache-2.0 */
/* What every object needs: layouts, maps, verdicts, records. */
#pragma once

#include "abi.h"

#define PENDING_ENTRIES 16384
#define BURN_BUCKETS 131072

#include "packet.h"
#include "maps.h"
#include "parse.h"
#include "siphash.h"
#include "mac.h"
#include "mix.h"
#include "judge.h"
#include "record.h"
