/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * cli_redis - what the commands that work on Redis have in common: one connection that may block,
 * the number of shards, one line of error text. It works beside any number of gateways and without
 * one (external Redis).
 */
#include "core/base/config.h"
#include "queue/schema.h"

#include <hiredis/hiredis.h>

#define CLI_ARGS_MAX 8

struct cli {
    const struct config *cfg; /* borrowed */
    redisContext *redis;      /* owned */
    long shards;
    struct buf error; /* one line, when a command failed */
};

/* False: c->error says why. Either way cli_close ends it. */
bool cli_connect(struct cli *c, const struct config *cfg);
void cli_close(struct cli *c);
/* One command; NULL: c->error says why. The caller frees. */
redisReply *cli_ask(struct cli *c, int argc, const char **argv);
/* A function of queue/lua on one shard. */
redisReply *cli_call(struct cli *c, long shard, const char *function, int argc,
                     const char *const *args);
/* Ends a key as a C string: schema.h gives slices into key. */
void cli_set_key(char key[QUEUE_KEY_MAX], struct slice made);
/* Element i of an array as text; empty when it is not there. */
struct slice cli_field(const redisReply *row, size_t i);
