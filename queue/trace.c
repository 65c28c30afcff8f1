/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trace - four fields with tabs between them: when, tenant, recipient, sender. No mailbox holds a
 * control character (P-45).
 */
#include "queue/trace.h"
#include "core/base/must.h"
#include <stdlib.h>

void queue_trace_encode(const struct return_path *path, const struct queue_trace *trace,
                        uint64_t kept_ms, struct buf *out)
{
    must(buf_printf(out, "%llu\t%s.%u\t%lld\t%.*s\t%.*s\t%.*s", (unsigned long long)kept_ms,
                    path->id, path->rcpt, (long long)trace->delivered_ms, SLICE_ARG(trace->tenant),
                    SLICE_ARG(trace->rcpt), SLICE_ARG(trace->sender)) == STATUS_OK);
}

static struct slice take(struct slice *rest)
{
    size_t len = slice_find(*rest, '\t');
    struct slice field = slice_head(*rest, len);
    *rest = slice_skip(*rest, len + 1);
    return field;
}

enum status queue_trace_decode(struct slice value, struct queue_trace *out)
{
    char when[24];
    size_t tabs = 0;
    for (size_t i = 0; i < value.len; i++)
        tabs += value.ptr[i] == '\t';
    struct slice digits = take(&value);
    if (tabs != 3 || digits.len == 0 || digits.len >= sizeof when)
        return STATUS_BAD;
    memcpy(when, digits.ptr, digits.len);
    when[digits.len] = '\0';
    out->delivered_ms = strtoll(when, NULL, 10);
    out->tenant = take(&value);
    out->rcpt = take(&value);
    out->sender = take(&value);
    return out->rcpt.len > 0 ? STATUS_OK : STATUS_BAD;
}
