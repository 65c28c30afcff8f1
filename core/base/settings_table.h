/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Every setting Kilat knows, once. The parser, the defaults, the errors and docs/configuration.md
 * grow from these rows.
 *
 * SECTIONS_TABLE:  X(id, name, what the name in quotes is, prose)
 *     The label is "" for a section that stands once and without a name.
 *
 * SETTINGS_TABLE:  X(section, key, type, place, range, default, unit, prose)
 *     type     how the text is read: enum setting_type in settings.h
 *     place    where it goes: TOP(field) of struct config, IN_LISTENER(field), IN_ROUTE(field);
 *              lists name their counter too: TOP_LIST(field, counter), LISTENER_LIST(...)
 *     range    numbers, sizes, durations: "least..most"; words: "one | two | (three)" in the order
 *              of the enum, where words in parentheses are known but not offered by this version
 *     default  as it would be written in the file; "" is none
 *     unit     for the reader
 *
 * To add a setting: a row here, a field in config.h, `tables configuration` into
 * docs/configuration.md. A rule between two settings goes to config_check.c.
 */
#define SECTIONS_TABLE(X)                                                                          \
    X(TOP, "", "", "These stand at the top of the file, outside of any section.")                  \
    X(REDIS, "redis", "",                                                                          \
      "Where accepted mail is kept. Everything that was answered 250 is in this Redis.")           \
    X(LISTENER, "listener", "name",                                                                \
      "Where mail is submitted. At least one is needed; the name appears in the logs.")            \
    X(ROUTE, "route", "pattern",                                                                   \
      "Where mail goes, by the domain of the recipient: \"example.org\" is that domain, "          \
      "\"*.example.org\" everything below it, \"*\" every domain; the most specific pattern "      \
      "wins. Mail that no route names goes to the MX hosts of its domain.")                        \
    X(ADMIN, "admin", "", "The HTTP port for machines: /metrics, /healthz and /readyz.")           \
    X(LIMITS, "limits", "", "How much one client and all clients together may use.")               \
    X(QUEUE, "queue", "", "How the queue is laid out in Redis and how much of it is in memory.")   \
    X(RELAY, "relay", "", "Outbound connections.")                                                 \
    X(RETRY, "retry", "", "When mail that could not be delivered is tried again.")                 \
    X(DNS, "dns", "", "How names are looked up.")                                                  \
    X(LOG, "log", "", "One line per accepted message and per delivery attempt.")                   \
    X(TLS, "tls", "", "Certificates for listeners.")

#define SETTINGS_TABLE(X)                                                                          \
    X(TOP, "hostname", DOMAIN, TOP(hostname), "", "", "",                                          \
      "Required. The name of this gateway in greetings, EHLO, Received and Message-ID fields; "    \
      "it should resolve to the address that other servers see.")                                  \
    X(TOP, "workers", NUMBER, TOP(workers), "0..256", "0", "threads",                              \
      "Worker threads; 0 is one per core.")                                                        \
    X(TOP, "data_dir", TEXT, TOP(data_dir), "", "/var/lib/kilat", "",                              \
      "Where the embedded Redis keeps its files.")                                                 \
    X(REDIS, "mode", WORD, TOP(redis.mode), "embedded | external", "embedded", "",                 \
      "embedded: Kilat runs a private Redis of its own. external: it uses the one at `url`.")      \
    X(REDIS, "url", TEXT, TOP(redis.url), "", "", "",                                              \
      "external: redis://[user:password@]host:port[/db] or unix://path.")                          \
    X(REDIS, "accept_risk", WORDS, TOP(redis.accept_risk), "eviction | no-aof | appendfsync", "",  \
      "",                                                                                          \
      "external: promises that this Redis may break. eviction: its maxmemory-policy may drop "     \
      "accepted mail. no-aof: a crash of Redis loses accepted mail. appendfsync: a crash of its "  \
      "machine loses the last accepted mail. Without them Kilat refuses to start.")                \
    X(REDIS, "maxmemory", SIZE, TOP(redis.maxmemory), "0..16384g", "0", "octets",                  \
      "embedded: memory the queue may fill before new mail is refused with 452; 0 is no limit.")   \
    X(REDIS, "server", TEXT, TOP(redis.server), "", "redis-server", "",                            \
      "embedded: the program to run, a path or a name found in PATH.")                             \
    X(LISTENER, "bind", BINDS, LISTENER_LIST(binds, bind_count), "", "", "",                       \
      "Required. Addresses and ports, such as [\"0.0.0.0:587\", \"[::]:587\"]; port 0 is any "     \
      "free one.")                                                                                 \
    X(LISTENER, "networks", NETWORKS, LISTENER_LIST(networks, network_count), "", "", "",          \
      "Required. Clients that may submit mail, such as [\"127.0.0.0/8\", \"::1\"]. Others are "    \
      "refused. IPv4 clients are matched by IPv4 networks only.")                                  \
    X(LISTENER, "tls", WORD, IN_LISTENER(tls), "off | (starttls) | (implicit)", "off", "",         \
      "Encryption of submission.")                                                                 \
    X(LISTENER, "auth", WORD, IN_LISTENER(auth), "off | (required)", "off", "",                    \
      "Whether clients prove who they are; off: only `networks` decides.")                         \
    X(LISTENER, "proxy_protocol", LATER, NOWHERE, "", "", "",                                      \
      "Load balancers whose PROXY header is believed.")                                            \
    X(ROUTE, "relay", WORD, IN_ROUTE(relay), "mx | smarthost | hold", "mx", "",                    \
      "mx: to the MX hosts of the domain. smarthost: to `host`. hold: accepted and kept, not "     \
      "delivered until released.")                                                                 \
    X(ROUTE, "host", HOST, IN_ROUTE(host), "", "", "",                                             \
      "smarthost: its name or address. Required there.")                                           \
    X(ROUTE, "port", NUMBER, IN_ROUTE(port), "1..65535", "25", "", "smarthost: its port.")         \
    X(ROUTE, "tls", WORD, IN_ROUTE(tls), "off | (may) | (encrypt) | (verify)", "off", "",          \
      "Encryption towards the next host.")                                                         \
    X(ADMIN, "bind", BIND, TOP(admin.bind), "", "", "",                                            \
      "Address and port, such as \"127.0.0.1:2580\"; none: no admin port. It has no password: "    \
      "keep it on a private address.")                                                             \
    X(LIMITS, "sessions_max", NUMBER, TOP(limits.sessions_max), "1..1000000", "20000", "sessions", \
      "Submission sessions at once, in the whole process; more are answered 421. Each takes a "    \
      "file descriptor, and so does each outbound connection: `kilat check` compares the sum "     \
      "with the limit of the process.")                                                            \
    X(LIMITS, "message_size_max", SIZE, TOP(limits.message_size_max), "64k..1g", "50m", "octets",  \
      "Largest message; announced by SIZE.")                                                       \
    X(LIMITS, "recipients_max", NUMBER, TOP(limits.recipients_max), "100..100000", "1000",         \
      "recipients", "Recipients of one message; more are answered 452.")                           \
    X(LIMITS, "errors_max", NUMBER, TOP(limits.errors_max), "1..1000", "10", "errors",             \
      "Protocol errors in a session before it is ended with 421.")                                 \
    X(LIMITS, "received_max", NUMBER, TOP(limits.received_max), "10..1000", "100", "fields",       \
      "Received fields in a message before it is refused as a loop.")                              \
    X(LIMITS, "header_size_max", SIZE, TOP(limits.header_size_max), "16k..16m", "256k", "octets",  \
      "Largest header section of a message.")                                                      \
    X(LIMITS, "command_timeout", DURATION, TOP(limits.command_timeout_ms), "1s..1h", "5min", "",   \
      "Silence between commands before a session is ended.")                                       \
    X(LIMITS, "data_timeout", DURATION, TOP(limits.data_timeout_ms), "1s..1h", "3min", "",         \
      "Silence inside the content of a message before the session is ended.")                      \
    X(LIMITS, "session_timeout", DURATION, TOP(limits.session_timeout_ms), "1min..7d", "1d", "",   \
      "Longest session, however busy.")                                                            \
    X(LIMITS, "transaction_timeout", DURATION, TOP(limits.transaction_timeout_ms), "1s..1d",       \
      "30min", "", "From MAIL to the end of the content, however it drips.")                       \
    X(LIMITS, "content_memory_max", SIZE, TOP(limits.content_memory_max), "1m..1024g", "256m",     \
      "octets",                                                                                    \
      "Message content in memory, all workers together; above it Kilat stops reading content "     \
      "until some has gone out.")                                                                  \
    X(LIMITS, "commit_timeout", DURATION, TOP(limits.commit_timeout_ms), "1s..10min", "30s", "",   \
      "How long the end of a message waits for Redis before it is answered 451.")                  \
    X(LIMITS, "drain_timeout", DURATION, TOP(limits.drain_timeout_ms), "1s..10min", "20s", "",     \
      "Longest time from SIGTERM to the exit.")                                                    \
    X(QUEUE, "shards", NUMBER, TOP(queue.shards), "1..256", "16", "shards",                        \
      "Parts of the queue; fixed when the queue is first made, later changes are ignored.")        \
    X(QUEUE, "lease", DURATION, TOP(queue.lease_ms), "2s..5min", "5s", "",                         \
      "A worker that was silent for this long is taken for dead and its mail is taken over by "    \
      "another.")                                                                                  \
    X(QUEUE, "stream_size", SIZE, TOP(queue.stream_size), "16k..16m", "256k", "octets",            \
      "Messages larger than this go to Redis in pieces while they arrive.")                        \
    X(QUEUE, "deliveries_max", NUMBER, TOP(queue.deliveries_max), "100..1000000", "10000",         \
      "deliveries", "Deliveries in memory, all workers together; the rest waits in Redis.")        \
    X(RELAY, "connections_max", NUMBER, TOP(relay.connections_max), "1..10000", "200",             \
      "connections", "Outbound connections of one worker.")                                        \
    X(RELAY, "per_destination_max", NUMBER, TOP(relay.per_destination_max), "1..10000", "10",      \
      "connections", "Outbound connections of one worker to one destination.")                     \
    X(RELAY, "messages_per_connection", NUMBER, TOP(relay.messages_per_connection), "1..1000000",  \
      "100", "messages", "Messages before an outbound connection is made anew.")                   \
    X(RELAY, "idle_timeout", DURATION, TOP(relay.idle_timeout_ms), "0..10min", "30s", "",          \
      "How long a connection without work is kept.")                                               \
    X(RELAY, "connect_timeout", DURATION, TOP(relay.connect_timeout_ms), "1s..5min", "30s", "",    \
      "How long connecting to one address may take.")                                              \
    X(RELAY, "reply_timeout", DURATION, TOP(relay.reply_timeout_ms), "0..10min", "0", "",          \
      "Caps every wait for a reply; 0: the timeouts of RFC 5321 4.5.3.2.")                         \
    X(RELAY, "mx_port", NUMBER, TOP(relay.mx_port), "1..65535", "25", "", "Port of MX hosts.")     \
    X(RELAY, "allow_private", BOOL, TOP(relay.allow_private), "", "no", "",                        \
      "Whether MX hosts may have loopback, private or link-local addresses.")                      \
    X(RELAY, "helo", DOMAIN, TOP(relay.helo), "", "", "",                                          \
      "The name given in EHLO; none: hostname.")                                                   \
    X(RETRY, "schedule", DURATIONS, TOP_LIST(retry.schedule_ms, retry.schedule_len), "1s..7d",     \
      "[1min, 5min, 15min, 30min, 1h, 2h, 4h]", "",                                                \
      "Waits before the second, third, ... attempt; the last one repeats.")                        \
    X(RETRY, "jitter", NUMBER, TOP(retry.jitter_percent), "0..90", "20", "percent",                \
      "Each wait is made longer or shorter by up to this much, so that mail that failed "          \
      "together is not tried together.")                                                           \
    X(RETRY, "expire", DURATION, TOP(retry.expire_ms), "1min..30d", "5d", "",                      \
      "From acceptance to giving up.")                                                             \
    X(RETRY, "bounces", BOOL, TOP(retry.bounces), "", "yes", "",                                   \
      "Whether a failure for good is reported to the sender; no: it becomes a dead letter.")       \
    X(DNS, "servers", SERVERS, TOP_LIST(dns.servers, dns.server_count), "", "", "",                \
      "Resolvers, such as [\"127.0.0.1\", \"192.0.2.1@5353\"]; none: those of "                    \
      "/etc/resolv.conf.")                                                                         \
    X(DNS, "cache_max", DURATION, TOP(dns.cache_max_ms), "0..7d", "1h", "",                        \
      "Longest time an answer is kept, whatever its TTL says.")                                    \
    X(DNS, "negative", DURATION, TOP(dns.negative_ms), "0..1h", "1min", "",                        \
      "How long a failed lookup is kept.")                                                         \
    X(LOG, "format", WORD, TOP(log.json), "plain | json", "plain", "", "Form of a line.")          \
    X(LOG, "level", WORD, TOP(log.level), "debug | info | warn | error", "info", "",               \
      "The least important lines that are written.")                                               \
    X(LOG, "file", TEXT, TOP(log.file), "", "", "", "Where lines go; none: standard output.")      \
    X(TLS, "certificate", LATER, NOWHERE, "", "", "", "The certificate chain, as a PEM file.")     \
    X(TLS, "private_key", LATER, NOWHERE, "", "", "", "Its private key, as a PEM file.")
