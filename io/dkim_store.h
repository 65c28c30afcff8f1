/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * dkim_store - the keys of this process that sign mail: those of the dkim sections and of the
 * directories, swapped whole when a file changes, and the threads that sign with them.
 *
 * A key that cannot be read is no reason not to start: mail of its domain is deferred, and of no
 * other (P-246). The text of a key is in no log and not in Redis.
 */
#include "core/base/config.h"
#include "core/smtp/dkim.h"
#include "io/helpers.h"

struct dkim_store;

/* True when the configuration names keys. */
bool dkim_store_is_wanted(const struct config *cfg);
/* Reads all keys. Those that are bad are in dkim_store_troubles. SYSTEM: there are no threads. */
NODISCARD enum status dkim_store_new(const struct config *cfg, struct dkim_store **out,
                                     struct buf *error);
void dkim_store_free(struct dkim_store *s); /* after the last worker; NULL is harmless */
/* A file or directory is not what was read last. Looks at about 1,000 of them a call, so that many
 * keys do not cost a call much. */
bool dkim_store_has_changed(struct dkim_store *s);
/* Reads all again. The main thread's. */
void dkim_store_reload(struct dkim_store *s);
/* One line for each thing that could not be read, each ended by LF; until the next reload. */
struct slice dkim_store_troubles(const struct dkim_store *s);
uint32_t dkim_store_count(const struct dkim_store *s); /* of keys, the main thread's */
/* Any thread: changes *keys, which is NULL or a reference of the caller's, and *serial, when there
 * are newer ones. */
void dkim_store_refresh(struct dkim_store *s, struct dkim_keys **keys, uint32_t *serial);
struct helpers *dkim_store_helpers(struct dkim_store *s);
