/* SPDX-License-Identifier: Apache-2.0 */
/*
 * event - events in JSON, by jansson.
 *
 * Names stay when others join them: consumers ignore what they do not know. To add an event: a
 * function here, its place in io/, a row in docs/events.md.
 */
#include "core/relay/event.h"
#include "core/base/must.h"
#include <jansson.h>

static json_t *text_of(struct slice s)
{
    json_t *value = json_stringn(s.ptr ? s.ptr : "", s.len);
    return value ? value : json_string("?");
}

static void put_text(json_t *event, const char *key, struct slice value)
{
    if (value.len > 0)
        json_object_set_new(event, key, text_of(value));
}

static int append(const char *octets, size_t len, void *ctx)
{
    return buf_append(ctx, slice_of(octets, len)) == STATUS_OK ? 0 : -1;
}

/* Takes the event. */
static enum status write_event(json_t *event, struct buf *out)
{
    uint32_t start = out->len;
    bool is_whole = json_dump_callback(event, append, out, JSON_COMPACT) == 0;
    json_decref(event);
    if (is_whole)
        return STATUS_OK;
    out->len = start;
    return STATUS_FULL;
}

static json_t *event_of(const char *name, const char *id, struct slice tenant, int64_t wall_ms)
{
    json_t *event = json_object();
    json_object_set_new(event, "event", json_string(name));
    json_object_set_new(event, "time_ms", json_integer(wall_ms));
    json_object_set_new(event, "id", json_string(id));
    put_text(event, "tenant", tenant);
    return event;
}

static json_t *event_new(const char *name, const struct message *m, int64_t wall_ms)
{
    return event_of(name, m->id, m->tenant, wall_ms);
}

static json_t *rcpts_of(const struct message *m)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < m->rcpt_count && i < EVENT_RCPTS_MAX; i++)
        json_array_append_new(list, text_of(m->rcpts[i].address));
    return list;
}

enum status event_accepted(const struct message *m, struct buf *out)
{
    static const char *const lanes[] = { "urgent", "normal", "bulk" };
    const char *name = m->flags & MESSAGE_BOUNCE ? "bounce" : "accepted";
    json_t *event = event_new(name, m, m->accepted_ms);
    put_text(event, "user", m->user);
    json_object_set_new(event, "lane", json_string(lanes[message_lane(m)]));
    json_object_set_new(event, "from", text_of(m->sender));
    json_object_set_new(event, "to", rcpts_of(m));
    json_object_set_new(event, "rcpt_count", json_integer(m->rcpt_count));
    json_object_set_new(event, "size", json_integer((json_int_t)m->size));
    put_text(event, "envid", m->envid);
    return write_event(event, out);
}

enum status event_outcome(const struct event_outcome *o, struct buf *out)
{
    json_t *event = event_new(o->event, o->message, o->wall_ms);
    json_object_set_new(event, "from", text_of(o->message->sender));
    json_object_set_new(event, "to", text_of(o->rcpt->address));
    json_object_set_new(event, "attempt", json_integer(o->attempt));
    put_text(event, "dest", slice_str(o->dest));
    put_text(event, "host", slice_str(o->host));
    json_object_set_new(event, "code", json_integer(o->outcome->code));
    put_text(event, "enhanced", slice_str(o->outcome->enhanced));
    put_text(event, "stage", slice_str(outcome_stage_name(o->outcome->stage)));
    if (o->category != CATEGORY_NONE)
        json_object_set_new(event, "category", json_string(category_name(o->category)));
    put_text(event, "text", slice_head(o->outcome->text, EVENT_TEXT_MAX));
    return write_event(event, out);
}

static void put_bounce(json_t *event, const struct event_returned *e)
{
    put_text(event, "action", slice_str(e->report->action));
    json_object_set_new(event, "code", json_integer(e->reply->code));
    put_text(event, "enhanced", slice_str(e->reply->enhanced));
    put_text(event, "host", slice_str(e->report->host));
    if (e->category != CATEGORY_NONE)
        json_object_set_new(event, "category", json_string(category_name(e->category)));
    put_text(event, "text", slice_head(slice_str(e->reply->text), EVENT_TEXT_MAX));
}

enum status event_returned(const struct event_returned *e, struct buf *out)
{
    bool is_bounce = e->report->kind == RETURNED_BOUNCE;
    json_t *event = event_of(is_bounce ? "returned" : "complaint", e->id, e->tenant, e->wall_ms);
    json_object_set_new(event, "from", text_of(e->sender));
    json_object_set_new(event, "to", text_of(e->rcpt));
    json_object_set_new(event, "delivered_ms", json_integer(e->delivered_ms));
    if (is_bounce)
        put_bounce(event, e);
    else
        put_text(event, "feedback", slice_str(e->report->feedback));
    return write_event(event, out);
}
