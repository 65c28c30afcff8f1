/* SPDX-License-Identifier: Apache-2.0 */
/*
 * content_field - the fields whose value counts, once all their lines have come.
 *
 *   - From, Sender: every address in them must be one that the sender may use (P-34); a field that
 *     cannot be read safely is refused then. Whatever the policy, several addresses in From need a
 *     Sender field (P-90), which is judged at the end of the header section. Where nothing is
 *     looked up, a From that cannot be read is let through as it is (P-97).
 *   - X-Idempotency-Key, Message-ID: by which a message that is sent again is known.
 *   - X-Kilat-Lane: urgent, normal or bulk, no better than the tenant's lane_best; another word
 * asks for nothing. List-Unsubscribe, Precedence: bulk mail, where the tenant says so.
 *   - TLS-Required: "No" lets delivery go on without TLS (RFC 8689 5), unless REQUIRETLS was said,
 *     which outweighs it.
 *   - Authentication-Results: one that claims to be ours is cut off (P-96, P-248, RFC 8601 5), and
 *     one whose author cannot be told too, since somebody may tell another.
 *
 * Limits: CONTENT_VALUE_MAX octets of a value are kept; a From that is longer counts as one that
 * cannot be read.
 * To read another field: a function here, its name in a row of fields[] (content_header.c).
 */
#include "core/smtp/content_private.h"
#include "core/smtp/content_value.h"

#define KEY_MAX        255 /* octets of an idempotency key */
#define MESSAGE_ID_MAX 998 /* octets; a longer one is no key */

/* --- who sends (P-34, P-90) ------------------------------------------------------------------ */

static bool has_policy(const struct smtp_content_policy *p)
{
    return p->senders || p->own_name.len > 0;
}

static bool is_allowed(const struct smtp_content_policy *p, struct slice mailbox)
{
    return p->senders ? sender_list_allows(p->senders, p->sender_count, mailbox)
                      : sender_is_own(p->own_name, mailbox);
}

/* Counts the addresses; REPLY_OK: all could be read and, where one is looked up, may be used. */
static enum reply_id judge_addresses(const struct smtp_content *c, struct slice value,
                                     uint32_t *count)
{
    struct value_reader r;
    struct slice mailbox;
    enum value_event event;
    value_reader_init(&r, value);
    while ((event = value_next_address(&r, &mailbox)) == VALUE_ADDRESS)
        if (has_policy(&c->policy) && !is_allowed(&c->policy, mailbox))
            return REPLY_FROM_NOT_ALLOWED;
    *count = r.addresses;
    return event == VALUE_END && value.len < CONTENT_VALUE_MAX ? REPLY_OK : REPLY_BAD_FROM;
}

bool content_on_from(struct smtp_content *c, struct slice value)
{
    uint32_t count = 0;
    bool is_judged = has_policy(&c->policy);
    if (!is_judged && slice_find(value, ',') == value.len)
        return false; /* one address at most, and nobody asks which */
    enum reply_id why = judge_addresses(c, value, &count);
    if (is_judged && why == REPLY_OK && count == 0)
        why = REPLY_BAD_FROM; /* an empty group names nobody */
    if (is_judged && why != REPLY_OK)
        content_doom(c, why);
    if (why == REPLY_OK && count > 1)
        c->seen |= FIELD_FROM_MANY;
    return false;
}

bool content_on_sender(struct smtp_content *c, struct slice value)
{
    uint32_t count = 0;
    if (!has_policy(&c->policy))
        return false;
    enum reply_id why = judge_addresses(c, value, &count);
    if (why == REPLY_OK && count != 1)
        why = REPLY_BAD_FROM; /* RFC 5322 3.6.2: one mailbox */
    if (why != REPLY_OK)
        content_doom(c, why);
    return false;
}

/* --- sent again ------------------------------------------------------------------------------ */

static struct content_digest *digest_of(struct smtp_content *c)
{
    if (!c->digest)
        c->digest = content_digest_new(c->message);
    return c->digest;
}

static bool is_key(struct slice key)
{
    for (size_t i = 0; i < key.len; i++)
        if (key.ptr[i] < ' ' || key.ptr[i] > '~')
            return false;
    return key.len > 0 && key.len <= KEY_MAX;
}

/* The field is left out whatever becomes of it. */
bool content_on_key(struct smtp_content *c, struct slice value)
{
    struct slice key = value_trim(value);
    if (c->policy.idempotency == IDEMPOTENCY_OFF)
        return false;
    if (!is_key(key) || !content_digest_set_key(digest_of(c), c->policy.tenant, key))
        content_doom(c, REPLY_BAD_KEY);
    return false;
}

bool content_on_message_id(struct smtp_content *c, struct slice value)
{
    struct slice id = value_trim(value);
    if (c->policy.idempotency == IDEMPOTENCY_MESSAGE_ID && id.len > 0 && id.len <= MESSAGE_ID_MAX)
        content_digest_set_message_id(digest_of(c), c->policy.tenant, id);
    return false;
}

/* --- lanes ----------------------------------------------------------------------------------- */

/* The field is left out whatever it says. */
bool content_on_lane(struct smtp_content *c, struct slice value)
{
    static const struct slice names[LANE_COUNT] = { [LANE_URGENT] = { "urgent", 6 },
                                                    [LANE_NORMAL] = { "normal", 6 },
                                                    [LANE_BULK] = { "bulk", 4 } };
    for (int lane = 0; lane < LANE_COUNT; lane++)
        if (slice_eq_nocase(value_trim(value), names[lane])) {
            bool is_too_good = lane < (int)c->policy.lane_best;
            c->message->lane =
                lane_letter(is_too_good ? c->policy.lane_best : (enum mail_lane)lane);
            c->seen |= FIELD_LANE;
        }
    return false;
}

bool content_on_precedence(struct smtp_content *c, struct slice value)
{
    struct slice word = value_trim(value);
    if (slice_eq_nocase(word, SLICE("bulk")) || slice_eq_nocase(word, SLICE("list")) ||
        slice_eq_nocase(word, SLICE("junk")))
        c->seen |= FIELD_LIST;
    return false;
}

void content_settle_lane(struct smtp_content *c)
{
    if (c->policy.lists_are_bulk && (c->seen & FIELD_LIST) && !(c->seen & FIELD_LANE))
        c->message->lane = lane_letter(LANE_BULK);
}

/* --- the rest -------------------------------------------------------------------------------- */

bool content_on_tls_required(struct smtp_content *c, struct slice value)
{
    if (slice_eq_nocase(value_trim(value), SLICE("No")))
        c->seen |= FIELD_TLS_WAIVED;
    return false;
}

bool content_on_auth_results(struct smtp_content *c, struct slice value)
{
    struct slice author;
    return !value_first_word(value, &author) || slice_eq_nocase(author, c->server->hostname);
}
