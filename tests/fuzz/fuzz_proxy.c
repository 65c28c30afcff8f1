/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_proxy - any octets as a PROXY header: the answer is the same however they arrive, what is
 * used lies inside, and what follows the header is not looked at.
 */
#include "core/base/must.h"
#include "core/smtp/proxy.h"
#include "tests/fuzz/fuzz.h"
#include <stdlib.h>

/* Fed octet by octet: MORE until one step decides. */
static enum proxy_result in_steps(struct slice in, size_t *used, struct proxy_header *out)
{
    for (size_t len = 0; len <= in.len; len++) {
        enum proxy_result result = proxy_parse(slice_head(in, len), used, out);
        if (result != PROXY_MORE)
            return result;
    }
    return PROXY_MORE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_of((const char *)data, size);
    struct proxy_header whole, stepped, alone;
    size_t used = 0, used_stepped = 0, used_alone = 0;
    enum proxy_result result = proxy_parse(in, &used, &whole);
    must(in_steps(in, &used_stepped, &stepped) == result);
    if (result == PROXY_MORE)
        must(size < PROXY_HEADER_MAX);
    if (result != PROXY_DONE)
        return 0;
    must(used > 0 && used <= size && used <= PROXY_HEADER_MAX && used_stepped == used);
    char *copy = exact_copy(slice_head(in, used));
    must(proxy_parse(slice_of(copy, used), &used_alone, &alone) == PROXY_DONE);
    must(used_alone == used);
    free(copy);
    must(memcmp(&whole, &stepped, sizeof whole) == 0 && memcmp(&whole, &alone, sizeof whole) == 0);
    must(!whole.is_local || !whole.has_source);
    if (whole.has_source)
        must(whole.source.ss_family == whole.destination.ss_family &&
             (whole.source.ss_family == AF_INET || whole.source.ss_family == AF_INET6));
    return 0;
}
