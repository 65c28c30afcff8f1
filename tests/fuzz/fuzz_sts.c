/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as what MTA-STS reads: a TXT record (first octet 0), a policy file (1), an HTTP reply
 * (2: still coming, 3: ended). What is taken keeps its bounds; a reply that was whole stays what it
 * was when more comes.
 */
#include "core/relay/http_reply.h"
#include "core/relay/sts.h"
#include "tests/fuzz/fuzz.h"

static void record(struct slice in)
{
    char id[STS_ID_MAX + 1];
    if (sts_read_record(&in, 1, id))
        must(strlen(id) >= 1 && strlen(id) <= STS_ID_MAX);
}

static void policy(struct slice in)
{
    static struct sts_policy p;
    const char *why = NULL;
    if (!sts_read_policy(in, &p, &why)) {
        must(why != NULL);
        return;
    }
    must(p.mx_count <= STS_MX_MAX && p.max_age_s <= STS_AGE_S_MAX);
    must(p.mode == STS_NONE || p.mx_count > 0);
    for (uint32_t i = 0; i < p.mx_count; i++)
        must(sts_allows(&p, p.mx[i]) || p.mx[i][0] == '*');
}

static void reply(struct slice in, bool is_ended)
{
    struct http_reply r;
    struct buf plain;
    buf_init(&plain, 4096);
    if (http_read(in, is_ended, &r, &plain) == HTTP_DONE) {
        must(r.status >= 200 && r.status <= 999);
        must(slice_lies_in(r.body, in) || slice_lies_in(r.body, buf_slice(&plain)));
        must(slice_lies_in(r.type, in));
    }
    buf_done(&plain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    char *copy = exact_copy(slice_of((const char *)data + 1, size - 1));
    struct slice in = slice_of(copy, size - 1);
    switch (data[0] % 4) {
    case 0: record(in); break;
    case 1: policy(in); break;
    case 2: reply(in, false); break;
    case 3: reply(in, true); break;
    }
    free(copy);
    return 0;
}
