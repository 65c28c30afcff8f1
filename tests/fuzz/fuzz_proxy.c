/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as the beginning of a connection from a load balancer. The answer for what has come so
 * far must never be taken back: "more" until the last octet of a header, then "done" with the same
 * meaning whatever follows, and "none" for ever.
 */
#include "core/smtp/proxy.h"
#include "tests/fuzz/fuzz.h"

static enum proxy_result parse(struct slice in, size_t *used, struct proxy_header *out)
{
    char *copy = exact_copy(in);
    *used = 0;
    enum proxy_result result = proxy_parse(slice_of(copy, in.len), used, out);
    free(copy);
    return result;
}

static void check_header(const struct proxy_header *h)
{
    static const struct sockaddr_storage none;
    int family = h->source.ss_family;
    must(!h->is_local || !h->has_source);
    must(h->destination.ss_family == family);
    if (h->has_source)
        must(family == AF_INET || family == AF_INET6);
    else
        must(memcmp(&h->source, &none, sizeof none) == 0 &&
             memcmp(&h->destination, &none, sizeof none) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_of((const char *)data, size);
    struct proxy_header whole, part;
    size_t used, part_used, end = size;
    enum proxy_result result = parse(in, &used, &whole);
    must(result != PROXY_MORE || size < PROXY_HEADER_MAX);
    if (result == PROXY_DONE) {
        must(used > 0 && used <= size && used <= PROXY_HEADER_MAX);
        check_header(&whole);
        end = used;
    }
    bool was_bad = false;
    for (size_t len = 0; len < end && len <= PROXY_HEADER_MAX; len++) {
        enum proxy_result so_far = parse(slice_head(in, len), &part_used, &part);
        must(so_far != PROXY_DONE && (!was_bad || so_far == PROXY_BAD));
        was_bad = so_far == PROXY_BAD;
    }
    must(!was_bad || result == PROXY_BAD);
    if (result == PROXY_DONE) {
        must(parse(slice_head(in, used), &part_used, &part) == PROXY_DONE && part_used == used);
        must(memcmp(&part, &whole, sizeof whole) == 0);
    }
    return 0;
}
