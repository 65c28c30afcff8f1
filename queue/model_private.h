/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * model_private - the model's inside, shared by model.c, model_enqueue.c and model_operators.c.
 */
#include "core/base/list.h"
#include "core/base/must.h"
#include "core/smtp/message.h"
#include "queue/model.h"

#define NAME_MAX_LEN 300
#define HELD         INT64_MAX

struct model_delivery {
    struct list node;
    char id[64];
    char *item;      /* owned */
    char owner[64];  /* leased: the worker */
    char *reason;    /* owned; dead: why */
    int64_t when_ms; /* scheduled: due; dead: when it died */
};

struct model_dest {
    struct list node;
    char lane;
    char name[NAME_MAX_LEN];
    int64_t score; /* earliest claim; HELD */
    struct list ready;
};

struct model_record {
    struct list node;
    char id[QUEUE_ID_LEN + 1];
    int copies;   /* deliveries left; 0: it has one */
    bool is_mark; /* only the mark of a withdrawn message */
};

struct model_key {
    struct list node;
    char name[64], id[QUEUE_ID_LEN + 1], digest[64];
    bool is_promised; /* its message cannot be withdrawn any more */
};

struct model_worker {
    struct list node;
    char name[64];
    bool has_lease; /* has a heartbeat */
    int64_t expires_ms;
    bool was_reaped; /* and has not heard of it */
    long long claim; /* number of its last claim; 0: none known */
    char claimed[4096];
};

struct queue_model {
    struct list leased, scheduled, dead, dests, records, workers, keys;
    int64_t now_ms;
    struct buf *reply;
};

struct call {
    const struct slice *argv;
    size_t argc;
};

/* Words of the reply, and of the call: a word is good until eight more were asked for. */
void model_put(struct queue_model *m, const char *word);
void model_put_num(struct queue_model *m, long long n);
const char *model_word(const struct call *c, size_t i);
long long model_number(const struct call *c, size_t i);
void model_copy_text(char *to, size_t size, const char *from);
/* owner NULL: anybody's. */
struct model_delivery *model_find_in(const struct list *from, const char *id, const char *owner);
struct model_record *model_find_record(const struct queue_model *m, const char *id);
struct model_record *model_make_record(struct queue_model *m, const char *id, bool is_mark);
/* The worker's lease begins anew. */
void model_renew(struct queue_model *m, const char *worker, long long lease_ms);
/* Made with this score when it is not there. */
struct model_dest *model_dest_of(struct queue_model *m, char lane, const char *name, int64_t score);
void model_drop_dest(struct model_dest *d);
struct model_delivery *model_make_delivery(const char *id, const char *item);
void model_end_delivery(struct model_delivery *d);
void model_set_item(struct model_delivery *d, const char *item);
void model_make_ready(struct queue_model *m, struct model_delivery *d, bool to_front, bool is_held);
void model_lease(struct queue_model *m, struct model_delivery *d, const char *worker);
/* It is over; its record goes with the last delivery. */
void model_forget(struct queue_model *m, struct model_delivery *d);
/* The functions of other files. */
void model_call_enq(struct queue_model *m, const struct call *c);
void model_call_cancel(struct queue_model *m, const struct call *c);
void model_drop_key(struct model_key *k);
void model_call_drop(struct queue_model *m, const struct call *c);
void model_call_hold(struct queue_model *m, const struct call *c);
void model_call_free(struct queue_model *m, const struct call *c);
void model_call_kick(struct queue_model *m, const struct call *c);
void model_call_revive(struct queue_model *m, const struct call *c);
