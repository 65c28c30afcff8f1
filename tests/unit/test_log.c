/* SPDX-License-Identifier: Apache-2.0 */
/* log (P-121): nothing a peer sends can end a line, start one, or leave its value. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/log.h"
#include "core/base/must.h"
#include <stdio.h>

static struct now now = { 0, 1795392741042 };
static struct log lines;

static const char *text(void)
{
    static char copy[LOG_OUT_MAX + 1];
    memcpy(copy, lines.out.ptr, lines.out.len);
    copy[lines.out.len] = '\0';
    return copy;
}

static const char *one_value(enum log_format format, struct slice value)
{
    log_done(&lines);
    log_init(&lines, format, LOG_INFO, &now);
    log_begin(&lines, LOG_INFO, "e");
    log_str(&lines, "k", value);
    log_end(&lines);
    const char *key = strstr(text(), format == LOG_JSON ? "\"k\":" : "k=");
    assert_non_null(key);
    return key + (format == LOG_JSON ? 4 : 2);
}

static void a_line_in_both_forms(void **state)
{
    static const char *const expect[] = {
        [LOG_PLAIN] =
            "2026-11-23T00:12:21.042Z warn msg.accepted msg=7f3a size=-9223372036854775808"
            " from=a@b.c\n",
        [LOG_JSON] = "{\"time\":\"2026-11-23T00:12:21.042Z\",\"level\":\"warn\",\"event\":"
                     "\"msg.accepted\",\"msg\":\"7f3a\",\"size\":-9223372036854775808,"
                     "\"from\":\"a@b.c\"}\n",
    };
    for (int format = LOG_PLAIN; format <= LOG_JSON; format++) {
        log_init(&lines, (enum log_format)format, LOG_INFO, &now);
        log_begin(&lines, LOG_WARN, "msg.accepted");
        log_cstr(&lines, "msg", "7f3a");
        log_num(&lines, "size", INT64_MIN);
        log_str(&lines, "from", SLICE("a@b.c"));
        log_end(&lines);
        assert_string_equal(text(), expect[format]);
        log_done(&lines);
    }
}

static void values_are_escaped(void **state)
{
    static const struct {
        struct slice value;
        const char *plain, *json;
    } rows[] = {
        { SLICE("word"), "word\n", "\"word\"}\n" },
        { SLICE(""), "\"\"\n", "\"\"}\n" },
        { SLICE("two words"), "\"two words\"\n", "\"two words\"}\n" },
        { SLICE("a=b"), "\"a=b\"\n", "\"a=b\"}\n" },
        { SLICE("q\"\\"), "\"q\\\"\\\\\"\n", "\"q\\\"\\\\\"}\n" },
        { SLICE("a\r\nb\tc"), "\"a\\r\\nb\\tc\"\n", "\"a\\r\\nb\\tc\"}\n" },
        { SLICE("\0\x1b[31m\x7f"), "\"\\u0000\\u001b[31m\\u007f\"\n",
          "\"\\u0000\\u001b[31m\\u007f\"}\n" },
        { SLICE("\xc3\xa9\xf0\x9f\x98\x80"), "\"\xc3\xa9\xf0\x9f\x98\x80\"\n",
          "\"\xc3\xa9\xf0\x9f\x98\x80\"}\n" },
        { SLICE("\xff\xc3"), "\"\\xff\\xc3\"\n", "\"\\\\xff\\\\xc3\"}\n" },
        { SLICE("\xc0\xaf"), "\"\\xc0\\xaf\"\n", "\"\\\\xc0\\\\xaf\"}\n" }, /* overlong */
        { SLICE("\xe0\x80\xaf"), "\"\\xe0\\x80\\xaf\"\n", "\"\\\\xe0\\\\x80\\\\xaf\"}\n" },
        { SLICE("\xf0\x80\x80\xaf"), "\"\\xf0\\x80\\x80\\xaf\"\n",
          "\"\\\\xf0\\\\x80\\\\x80\\\\xaf\"}\n" },
        { SLICE("\xed\xa0\x80"), "\"\\xed\\xa0\\x80\"\n", "\"\\\\xed\\\\xa0\\\\x80\"}\n" },
        { SLICE("\xf4\x90\x80\x80"), "\"\\xf4\\x90\\x80\\x80\"\n",
          "\"\\\\xf4\\\\x90\\\\x80\\\\x80\"}\n" },                    /* > 10FFFF */
        { SLICE("\xc2\x85"), "\"\\u0085\"\n", "\"\\u0085\"}\n" },     /* C1: NEL */
        { SLICE("\xe2\x80\xae"), "\"\\u202e\"\n", "\"\\u202e\"}\n" }, /* override */
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_string_equal(one_value(LOG_PLAIN, rows[i].value), rows[i].plain);
        assert_string_equal(one_value(LOG_JSON, rows[i].value), rows[i].json);
    }
    log_done(&lines);
}

/* Every pair of octets: one line, printable or UTF-8 only, quotes balanced. */
static void no_pair_of_octets_breaks_a_line(void **state)
{
    for (int pair = 0; pair < 65536; pair++) {
        char value[2] = { (char)(pair >> 8), (char)pair };
        for (int format = LOG_PLAIN; format <= LOG_JSON; format++) {
            const char *out = one_value((enum log_format)format, slice_of(value, 2));
            size_t len = strlen(out);
            assert_int_equal(strcspn(out, "\n"), len - 1);
            for (size_t i = 0; i + 1 < len; i++)
                assert_true((unsigned char)out[i] >= 0x20 && out[i] != 0x7f);
            if (out[0] == '"') {
                size_t i = 1;
                for (; out[i] != '"'; i++)
                    i += out[i] == '\\';
                assert_string_equal(out + i + 1, format == LOG_JSON ? "}\n" : "\n");
            }
        }
    }
    log_done(&lines);
}

static void long_values_are_cut_between_characters(void **state)
{
    char value[LOG_VALUE_MAX + 10];
    for (size_t lead = 0; lead < 4; lead++) {
        memset(value, 'x', sizeof value);
        memcpy(value + LOG_VALUE_MAX - lead, "\xf0\x9f\x98\x80", 4);
        const char *out = one_value(LOG_JSON, slice_of(value, sizeof value));
        assert_int_equal(strlen(out), 1 + LOG_VALUE_MAX - lead + strlen("...\"}\n"));
        assert_null(strstr(out, "\\x"));
    }
    memset(value, '\x80', sizeof value); /* no character at all: every octet is shown */
    assert_int_equal(strlen(one_value(LOG_JSON, slice_of(value, sizeof value))),
                     1 + 5 * LOG_VALUE_MAX + strlen("...\"}\n"));
    memset(value, '\x01', sizeof value);
    assert_int_equal(strlen(one_value(LOG_PLAIN, slice_of(value, LOG_VALUE_MAX))),
                     1 + 6 * LOG_VALUE_MAX + strlen("\"\n"));
    log_done(&lines);
}

static void lines_below_the_level_are_not_written(void **state)
{
    log_init(&lines, LOG_PLAIN, LOG_WARN, &now);
    log_begin(&lines, LOG_INFO, "quiet");
    log_num(&lines, "k", 1);
    log_cstr(&lines, "s", "v");
    log_end(&lines);
    assert_int_equal(lines.out.len, 0);
    assert_int_equal(lines.dropped, 0);
    log_begin(&lines, LOG_WARN, "loud");
    log_end(&lines);
    assert_non_null(strstr(text(), "warn loud\n"));
    log_done(&lines);
}

static void a_full_log_drops_whole_lines_and_counts_them(void **state)
{
    log_init(&lines, LOG_PLAIN, LOG_INFO, &now);
    for (uint64_t i = 0; lines.dropped < 100; i++) {
        log_begin(&lines, LOG_INFO, "line");
        log_num(&lines, "number", (int64_t)i);
        for (int j = 0; j < 5; j++)
            log_cstr(&lines, "text", "some words that take room");
        log_end(&lines);
        assert_true(lines.out.len <= LOG_OUT_MAX);
        assert_int_equal(lines.out.ptr[lines.out.len - 1], '\n');
    }
    assert_true(lines.out.len > LOG_OUT_MAX - 500);
    /* The sink takes some: there is room again. */
    buf_consume(&lines.out, (uint32_t)(strchr(text(), '\n') + 1 - text()));
    buf_consume(&lines.out, (uint32_t)(strchr(text(), '\n') + 1 - text()));
    buf_consume(&lines.out, (uint32_t)(strchr(text(), '\n') + 1 - text()));
    log_begin(&lines, LOG_INFO, "after");
    log_end(&lines);
    assert_int_equal(lines.dropped, 100);
    assert_non_null(strstr(text(), " after\n"));
    log_done(&lines);
}

static void the_stamp_follows_the_clock(void **state)
{
    log_init(&lines, LOG_PLAIN, LOG_INFO, &now);
    log_begin(&lines, LOG_INFO, "one");
    log_end(&lines);
    now.wall_ms += 1000;
    log_begin(&lines, LOG_INFO, "two");
    log_end(&lines);
    now.wall_ms -= 1000;
    assert_string_equal(text(), "2026-11-23T00:12:21.042Z info one\n"
                                "2026-11-23T00:12:22.042Z info two\n");
    log_done(&lines);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_in_both_forms),
        cmocka_unit_test(values_are_escaped),
        cmocka_unit_test(no_pair_of_octets_breaks_a_line),
        cmocka_unit_test(long_values_are_cut_between_characters),
        cmocka_unit_test(lines_below_the_level_are_not_written),
        cmocka_unit_test(a_full_log_drops_whole_lines_and_counts_them),
        cmocka_unit_test(the_stamp_follows_the_clock),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
