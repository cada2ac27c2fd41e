/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Weft's kernel engine: one object, one program a stage, joined by tail calls. docs/pipeline.md says what it does;
 * each stage's header says what it guarantees.
 */
#include "stateless.h"
#include "outbound.h"
#include "tagged.h"
#include "expire.h"

char _license[] SEC("license") = "Dual MIT/GPL";
