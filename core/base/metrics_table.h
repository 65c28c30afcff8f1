/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Every metric Kilat exports, once: name, type (counter, gauge), help. The enum, the per-worker
 * counters, /metrics and docs/metrics.md grow from these rows. Names carry no prefix here;
 * "kilat_" is put before them when they are shown. Add new rows at the end of their group.
 */
/* One series of a family: rows of a family stand side by side. */
#define METRIC_FAILURES(X, id, category)                                                           \
    X(FAILURES_##id, counter, "recipient_failures_total{category=\"" category "\"}",               \
      "Attempts for a recipient that did not deliver, by category (docs/bounces.md).")

#define METRICS_TABLE(X)                                                                           \
    X(SESSIONS_TOTAL, counter, "sessions_total", "Submission sessions accepted.")                  \
    X(SESSIONS_OPEN, gauge, "sessions_open", "Submission sessions now open.")                      \
    X(SESSIONS_REFUSED_TOTAL, counter, "sessions_refused_total",                                   \
      "Sessions refused at the greeting (not trusted, pool full, shutting down).")                 \
    X(PROXY_REFUSED_TOTAL, counter, "proxy_refused_total",                                         \
      "Connections closed for want of a PROXY header, or not from a load balancer.")               \
    X(TLS_HANDSHAKES_TOTAL, counter, "tls_handshakes_total", "TLS handshakes finished.")           \
    X(TLS_RESUMED_TOTAL, counter, "tls_resumed_total", "Those of them that resumed a session.")    \
    X(TLS_FAILED_TOTAL, counter, "tls_failed_total", "TLS handshakes that failed.")                \
    X(AUTH_OK_TOTAL, counter, "auth_ok_total", "Clients authenticated.")                           \
    X(AUTH_FAILED_TOTAL, counter, "auth_failed_total", "Authentications refused.")                 \
    X(RECIPIENTS_DECLINED_TOTAL, counter, "recipients_declined_total",                             \
      "Recipients declined for a suppression, a rate or a quota.")                                 \
    X(REPEATED_TOTAL, counter, "messages_repeated_total",                                          \
      "Messages sent again under their idempotency key and answered with the first id.")           \
    X(COMMANDS_TOTAL, counter, "smtp_commands_total", "SMTP commands received.")                   \
    X(REPLIES_4XX_TOTAL, counter, "smtp_replies_4xx_total", "Replies of class 4 sent.")            \
    X(REPLIES_5XX_TOTAL, counter, "smtp_replies_5xx_total", "Replies of class 5 sent.")            \
    X(ACCEPTED_TOTAL, counter, "messages_accepted_total", "Messages answered 250 after commit.")   \
    X(ACCEPTED_BYTES_TOTAL, counter, "messages_accepted_bytes_total", "Octets of those messages.") \
    X(ACCEPTED_RCPTS_TOTAL, counter, "recipients_accepted_total", "Recipients of those messages.") \
    X(COMMIT_BATCHES_TOTAL, counter, "commit_batches_total", "Group commits sent to Redis.")       \
    X(COMMIT_MESSAGES_TOTAL, counter, "commit_messages_total", "Messages in those commits.")       \
    X(COMMIT_FAILED_TOTAL, counter, "commit_failed_total", "Messages whose commit failed.")        \
    X(REDIS_UP, gauge, "redis_links_up", "Redis links now usable.")                                \
    X(REDIS_RECONNECTS_TOTAL, counter, "redis_reconnects_total", "Redis links made again.")        \
    X(CLAIMED_TOTAL, counter, "queue_claimed_total", "Items claimed from the shared queue.")       \
    X(RELEASED_TOTAL, counter, "queue_released_total", "Items handed back to the shared queue.")   \
    X(REAPED_TOTAL, counter, "queue_reaped_total", "Items taken over from dead workers.")          \
    X(LEASE_LOST_TOTAL, counter, "delivered_after_lease_lost_total",                               \
      "Deliveries finished after the lease had passed to another worker: possible duplicates.")    \
    X(AMBIGUOUS_TOTAL, counter, "ambiguous_total",                                                 \
      "Final dots sent whose reply was never seen: possible duplicates.")                          \
    X(QUEUE_IMBALANCE, gauge, "queue_imbalance",                                                   \
      "Deliveries that were queued, have not ended, and are nowhere in Redis, or the other way "   \
      "round; must be 0. Looked at shard by shard, one a second.")                                 \
    X(DELIVERIES_HELD, gauge, "deliveries_in_memory", "Deliveries this process now holds.")        \
    X(RELAY_CONNECTIONS_TOTAL, counter, "relay_connections_total", "Outbound connections opened.") \
    X(RELAY_TLS_TOTAL, counter, "relay_tls_total", "Outbound connections that were encrypted.")    \
    X(RELAY_CONNECTIONS_OPEN, gauge, "relay_connections_open", "Outbound connections now open.")   \
    X(RELAY_ATTEMPTS_TOTAL, counter, "relay_attempts_total", "Delivery attempts ended.")           \
    X(DELIVERED_TOTAL, counter, "recipients_delivered_total", "Recipients delivered.")             \
    X(DEFERRED_TOTAL, counter, "recipients_deferred_total", "Recipients put back for a retry.")    \
    X(BOUNCED_TOTAL, counter, "recipients_bounced_total", "Recipients failed for good.")           \
    X(EXPIRED_TOTAL, counter, "recipients_expired_total", "Recipients given up after expiry.")     \
    METRIC_FAILURES(X, INVALID_MAILBOX, "invalid-mailbox")                                         \
    METRIC_FAILURES(X, INVALID_DOMAIN, "invalid-domain")                                           \
    METRIC_FAILURES(X, INACTIVE_MAILBOX, "inactive-mailbox")                                       \
    METRIC_FAILURES(X, MAILBOX_FULL, "mailbox-full")                                               \
    METRIC_FAILURES(X, MESSAGE_TOO_LARGE, "message-too-large")                                     \
    METRIC_FAILURES(X, SPAM_CONTENT, "spam-content")                                               \
    METRIC_FAILURES(X, BLOCKED, "blocked")                                                         \
    METRIC_FAILURES(X, AUTHENTICATION, "authentication")                                           \
    METRIC_FAILURES(X, POLICY, "policy")                                                           \
    METRIC_FAILURES(X, INVALID_SENDER, "invalid-sender")                                           \
    METRIC_FAILURES(X, GREYLISTED, "greylisted")                                                   \
    METRIC_FAILURES(X, RATE_LIMITED, "rate-limited")                                               \
    METRIC_FAILURES(X, RELAY_DENIED, "relay-denied")                                               \
    METRIC_FAILURES(X, LOGIN, "login")                                                             \
    METRIC_FAILURES(X, PROTOCOL, "protocol")                                                       \
    METRIC_FAILURES(X, SYSTEM, "system")                                                           \
    METRIC_FAILURES(X, LOOP, "loop")                                                               \
    METRIC_FAILURES(X, EXPIRED, "expired")                                                         \
    METRIC_FAILURES(X, NETWORK, "network")                                                         \
    METRIC_FAILURES(X, TLS, "tls")                                                                 \
    METRIC_FAILURES(X, DNS, "dns")                                                                 \
    METRIC_FAILURES(X, OTHER_TRANSIENT, "other-transient")                                         \
    METRIC_FAILURES(X, OTHER_PERMANENT, "other-permanent")                                         \
    X(DKIM_SIGNED_TOTAL, counter, "dkim_signed_total", "Accepted messages that were signed.")      \
    X(DKIM_UNSIGNED_TOTAL, counter, "dkim_unsigned_total",                                         \
      "Messages that no key signs, where there are keys.")                                         \
    X(DKIM_DEFERRED_TOTAL, counter, "dkim_deferred_total",                                         \
      "Messages answered 451 because they must be signed and could not be.")                       \
    X(TLS_REPORTS_TOTAL, counter, "tls_reports_total", "Mails with TLS reports that were queued.") \
    X(SUSPENDED_TOTAL, counter, "destinations_suspended_total",                                    \
      "Destinations left alone for a while because a reply asked for it.")                         \
    X(SITES_LIMITED, gauge, "sites_limited",                                                       \
      "Sites that have mail or connections and a limit, counted by each worker.")                  \
    X(SITES_ASKED_TOTAL, counter, "sites_asked_total",                                             \
      "Calls to Redis about limits that all nodes keep together.")                                 \
    X(SITES_SLOWED, gauge, "sites_slowed",                                                         \
      "Sites that get less than they may, because they asked for that; counted by each worker.")   \
    X(SITES_CUT_TOTAL, counter, "sites_cut_total",                                                 \
      "Times that a worker was told to give a site half of what it had.")                          \
    X(SITES_VOID_TOTAL, counter, "sites_void_total",                                               \
      "Times that a worker closed such connections because Redis was out of reach.")               \
    X(SOURCES_SPENT, gauge, "sources_spent",                                                       \
      "Sources that have sent what their warm-up allows today, counted by each worker.")           \
    X(HARD_BOUNCES_TOTAL, counter, "hard_bounces_total",                                           \
      "Hard bounces told to suppression lists.")                                                   \
    X(RETURNED_BOUNCES_TOTAL, counter, "returned_bounces_total",                                   \
      "Bounces that came back to a return path of ours.")                                          \
    X(RETURNED_COMPLAINTS_TOTAL, counter, "returned_complaints_total",                             \
      "Complaints (feedback reports) that were matched to a recipient.")                           \
    X(RETURNED_UNREAD_TOTAL, counter, "returned_unread_total",                                     \
      "Mails that came back and are no report, or one about nobody who is known any more.")        \
    X(BOUNCES_SENT_TOTAL, counter, "bounce_messages_total", "Bounce messages queued.")             \
    X(EVENTS_TOTAL, counter, "events_total", "Events given to the event stream.")                  \
    X(WEBHOOK_EVENTS_TOTAL, counter, "webhook_events_total", "Events that the webhook took.")      \
    X(WEBHOOK_FAILURES_TOTAL, counter, "webhook_failures_total", "Posts of events that failed.")   \
    X(WEBHOOK_BEHIND_MS, gauge, "webhook_behind_milliseconds",                                     \
      "How long the oldest event that was to be posted last had waited; 0: none waits.")           \
    X(DEAD_TOTAL, counter, "dead_letters_total", "Items moved to the dead letters.")               \
    X(DNS_LOOKUPS_TOTAL, counter, "dns_lookups_total", "DNS lookups asked of the resolver.")       \
    X(DNS_CACHE_HITS_TOTAL, counter, "dns_cache_hits_total", "Lookups answered from our cache.")   \
    X(BUFFER_STARVED_TOTAL, counter, "receive_buffer_starved_total",                               \
      "Receives that had to wait for a buffer.")                                                   \
    X(MEMORY_CONTENT_BYTES, gauge, "content_bytes", "Memory now held by message content.")         \
    X(LOOP_TURNS_TOTAL, counter, "loop_turns_total", "Event loop turns.")                          \
    X(LOG_DROPPED_TOTAL, counter, "log_lines_dropped_total", "Log lines dropped by a slow sink.")

/* What is not one number for all: series by lane and tenant (queue_age.c).
 * X(how it is shown, type, name, help) */
#define QUEUE_AGE_TABLE(X)                                                                         \
    X(show_buckets, histogram, "queue_age_seconds",                                                \
      "From acceptance (or the time until which its sender held it back) to the outcome of a "     \
      "delivery, by lane and tenant.")                                                             \
    X(show_p50, gauge, "queue_age_p50_seconds",                                                    \
      "What half of those that ended in the last 5 to 10 minutes did not exceed.")                 \
    X(show_p99, gauge, "queue_age_p99_seconds",                                                    \
      "What 99 of 100 of those that ended in the last 5 to 10 minutes did not exceed.")
