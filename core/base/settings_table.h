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
 *     place    where it goes: TOP(field) of struct config, IN_LISTENER(field), IN_ROUTE(field),
 *              IN_TENANT(field); lists name their counter too: TOP_LIST(field, counter), ...
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
      "wins. Of several routes for one pattern, one that names the tenant of the mail comes "      \
      "before one that does not, then one that names its lane. Mail that no route names goes to "  \
      "the MX hosts of its domain.")                                                               \
    X(TENANT, "tenant", "name",                                                                    \
      "A customer, a site, an application: what its users may send. A user names the tenant that " \
      "it belongs to; a listener names that of clients which do not authenticate. Where a number " \
      "limits, 0 is no limit.")                                                                    \
    X(SOURCE, "source", "name",                                                                    \
      "An address of this machine that mail leaves from, for routes that name it. See "            \
      "docs/relaying.md.")                                                                         \
    X(DKIM, "dkim", "domain",                                                                      \
      "Keys that sign mail whose From field has an address in this domain, or below it where no "  \
      "nearer domain has keys. See docs/dkim.md.")                                                 \
    X(TLS, "tls", "", "Certificates of the listeners that encrypt.")                               \
    X(AUTH, "auth", "", "How clients prove who they are, on listeners with auth.")                 \
    X(ADMIN, "admin", "", "The HTTP port for machines: /metrics, /healthz and /readyz.")           \
    X(LIMITS, "limits", "", "How much one client and all clients together may use.")               \
    X(QUEUE, "queue", "", "How the queue is laid out in Redis and how much of it is in memory.")   \
    X(RELAY, "relay", "", "Outbound connections.")                                                 \
    X(RETRY, "retry", "", "When mail that could not be delivered is tried again.")                 \
    X(DNS, "dns", "", "How names are looked up.")                                                  \
    X(EVENTS, "events", "", "What happens to mail, for programs: see docs/events.md.")             \
    X(BOUNCES, "bounces", "",                                                                      \
      "Return paths of our own, and what comes back to them: see docs/returns.md.")                \
    X(LOG, "log", "", "One line per accepted message and per delivery attempt.")

#define SETTINGS_TABLE(X)                                                                          \
    X(TOP, "hostname", DOMAIN, TOP(hostname), "", "", "",                                          \
      "Required. The name of this gateway in greetings, EHLO, Received and Message-ID fields; "    \
      "it should resolve to the address that other servers see.")                                  \
    X(TOP, "workers", NUMBER, TOP(workers), "0..256", "0", "threads",                              \
      "Worker threads; 0 is one per core.")                                                        \
    X(TOP, "data_dir", TEXT, TOP(data_dir), "", "/var/lib/kilat", "",                              \
      "Where the embedded Redis keeps its files.")                                                 \
    X(TOP, "dkim_directory", TEXT, TOP(dkim.directory), "", "", "",                                \
      "Directory of DKIM keys, DOMAIN/SELECTOR.pem: they sign for every tenant. Read again on "    \
      "SIGHUP "                                                                                    \
      "and when it changes.")                                                                      \
    X(TOP, "dkim_missing", WORD, TOP(dkim.missing), "defer | unsigned", "defer", "",               \
      "What becomes of mail for whose domain keys were named that cannot be read. defer: it is "   \
      "answered 451 until they can. unsigned: it goes without a signature, and the log says so.")  \
    X(TOP, "dkim_expire", DURATION, TOP(dkim.expire_ms), "0..365d", "0", "",                       \
      "How long a signature is good (x=), from acceptance or from when held mail may go; 0: "      \
      "always. "                                                                                   \
      "Not shorter than retry.expire.")                                                            \
    X(TOP, "dkim_threads", NUMBER, TOP(dkim.threads), "0..256", "0", "threads",                    \
      "Threads that sign, beside the workers; 0 is one per core.")                                 \
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
    X(LISTENER, "role", WORD, IN_LISTENER(role), "submission | bounces", "submission", "",         \
      "submission: clients hand in mail to be delivered. bounces: any host brings back bounces "   \
      "and complaints, for the domains of `bounces`; nothing is relayed from there.")              \
    X(LISTENER, "networks", NETWORKS, LISTENER_LIST(networks, network_count), "", "", "",          \
      "Clients that may submit mail, such as [\"127.0.0.0/8\", \"::1\"]; others are refused. "     \
      "Required with auth = \"off\", where nothing else decides. With \"optional\", clients "      \
      "elsewhere must authenticate. With \"required\", none means everywhere. IPv4 clients are "   \
      "matched by IPv4 networks only.")                                                            \
    X(LISTENER, "tls", WORD, IN_LISTENER(tls), "off | starttls | implicit", "off", "",             \
      "Encryption of submission: starttls begins in clear (port 587), implicit with the first "    \
      "octet (port 465).")                                                                         \
    X(LISTENER, "auth", WORD, IN_LISTENER(auth), "off | optional | required", "off", "",           \
      "Whether clients prove who they are; off: only `networks` decides.")                         \
    X(LISTENER, "auth_without_tls", BOOL, IN_LISTENER(auth_without_tls), "", "no", "",             \
      "Whether AUTH is offered without TLS: passwords cross the network in clear then. For "       \
      "networks that are trusted, behind a load balancer that ended TLS.")                         \
    X(LISTENER, "proxy_protocol", NETWORKS, LISTENER_LIST(proxy_networks, proxy_network_count),    \
      "", "", "",                                                                                  \
      "Load balancers that begin each connection with a PROXY header, version 1 or 2. With it, a " \
      "connection from elsewhere or without the header is closed.")                                \
    X(LISTENER, "xclient", NETWORKS, LISTENER_LIST(xclient_networks, xclient_network_count), "",   \
      "", "", "Peers that may name the true client with XCLIENT.")                                 \
    X(LISTENER, "hide_client", BOOL, IN_LISTENER(hide_client), "", "no", "",                       \
      "Whether the Received field leaves out where mail comes from: the client's address and the " \
      "name it gave. The log has both.")                                                           \
    X(LISTENER, "tenant", TEXT, IN_LISTENER(tenant), "", "", "",                                   \
      "Tenant of clients that do not authenticate; none: no tenant's limits apply.")               \
    X(LISTENER, "lane", WORD, IN_LISTENER(lane), "urgent | normal | bulk", "normal", "",           \
      "Lane of mail that asks for none by MT-PRIORITY.")                                           \
    X(ROUTE, "domain", TEXT, IN_ROUTE(domain), "", "", "",                                         \
      "The pattern, for a route that is called otherwise: several routes may have the same then, " \
      "with other tenants or lanes.")                                                              \
    X(ROUTE, "tenant", TEXTS, ROUTE_LIST(tenants, tenant_count), "", "", "",                       \
      "Tenants whose mail takes this route; none: that of any. Needs `domain`.")                   \
    X(ROUTE, "lane", WORDS, IN_ROUTE(lanes), "urgent | normal | bulk", "", "",                     \
      "Lanes whose mail takes this route; none: any. Needs `domain`.")                             \
    X(ROUTE, "relay", WORD, IN_ROUTE(relay), "mx | smarthost | hold", "mx", "",                    \
      "mx: to the MX hosts of the domain. smarthost: to `host`. hold: accepted and kept, not "     \
      "delivered until released.")                                                                 \
    X(ROUTE, "host", HOST, IN_ROUTE(host), "", "", "",                                             \
      "smarthost: its name or address. Required there.")                                           \
    X(ROUTE, "port", NUMBER, IN_ROUTE(port), "1..65535", "25", "", "smarthost: its port.")         \
    X(ROUTE, "fallback", TEXTS, ROUTE_LIST(fallbacks, fallback_count), "", "", "",                 \
      "smarthost: hosts to try when it cannot be reached, in this order: \"host\" or "             \
      "\"host:port\" (\"[IPv6]:port\"); without a port, that of `port`.")                          \
    X(ROUTE, "tls", WORD, IN_ROUTE(tls), "off | may | encrypt | verify", "may", "",                \
      "Encryption towards the next host. may: when it is offered, with whoever it is. encrypt: "   \
      "mail waits until it is offered. verify: the certificate must be good for the name of the "  \
      "smarthost; for MX hosts, for the domain of the recipient or a name in it.")                 \
    X(ROUTE, "tls_implicit", BOOL, IN_ROUTE(tls_implicit), "", "no", "",                           \
      "smarthost: TLS from the first octet, as on port 465, instead of STARTTLS.")                 \
    X(ROUTE, "tls_name", HOST, IN_ROUTE(tls_name), "", "", "",                                     \
      "smarthost: the name that its certificate must have; none: `host`.")                         \
    X(ROUTE, "ca_file", TEXT, IN_ROUTE(ca_file), "", "", "",                                       \
      "PEM file of the authorities that may sign the certificate; none: those of the system.")     \
    X(ROUTE, "user", TEXT, IN_ROUTE(user), "", "", "",                                             \
      "smarthost: the name to log in with. Needs `tls = \"verify\"`, for who gets the password "   \
      "is to be known, and one of the next two.")                                                  \
    X(ROUTE, "password_file", TEXT, IN_ROUTE(password_file), "", "", "",                           \
      "smarthost: file whose first line is the password. Read for each connection.")               \
    X(ROUTE, "token_file", TEXT, IN_ROUTE(token_file), "", "", "",                                 \
      "smarthost: file whose first line is an OAuth access token (XOAUTH2), kept fresh by a "      \
      "program of yours. Read for each connection.")                                               \
    X(ROUTE, "verp", WORD, IN_ROUTE(verp), "auto | on | off", "auto", "",                          \
      "Whether mail goes from an address at bounces.domain. auto: to MX hosts, and not to a "      \
      "smarthost, which may refuse a sender that it does not know.")                               \
    X(ROUTE, "sources", TEXTS, ROUTE_LIST(sources, source_count), "", "", "",                      \
      "Names of the sources that its mail leaves from; none: to MX hosts from relay.sources, to "  \
      "a smarthost from what the system chooses.")                                                 \
    X(ROUTE, "connections", NUMBER, IN_ROUTE(connections), "0..10000", "0", "connections",         \
      "Connections to one site, of all nodes together; 0: no more than each worker may have "      \
      "(relay.per_destination_max). A site is the MX hosts that domains share, or a smarthost.")   \
    X(ROUTE, "rate", RATE, IN_ROUTE(rate), "", "", "",                                             \
      "Messages to one site, of all nodes together, such as 100/1min: no more begin in any "       \
      "minute. None: any number.")                                                                 \
    X(TENANT, "senders", TEXTS, TENANT_LIST(senders, sender_count), "", "", "",                    \
      "Addresses its users may send from, in MAIL and in the From field: \"a@example.org\", "      \
      "\"@example.org\" (the domain), \"@*.example.org\" (all below it) or \"*\" (any). None: "    \
      "users "                                                                                     \
      "send from their own name, when it is an address, and from what `kilat user` lists for "     \
      "them; clients that do not authenticate from any.")                                          \
    X(TENANT, "recipients_per_minute", NUMBER, IN_TENANT(recipients_per_minute), "0..4000000000",  \
      "0", "recipients", "Of all its users, on all nodes; above it RCPT is answered 450.")         \
    X(TENANT, "recipients_per_day", NUMBER, IN_TENANT(recipients_per_day), "0..4000000000", "0",   \
      "recipients", "Of all its users, on all nodes; above it RCPT is answered 452.")              \
    X(TENANT, "user_recipients_per_minute", NUMBER, IN_TENANT(user_recipients_per_minute),         \
      "0..4000000000", "0", "recipients", "The same, of each user.")                               \
    X(TENANT, "user_recipients_per_day", NUMBER, IN_TENANT(user_recipients_per_day),               \
      "0..4000000000", "0", "recipients", "The same, of each user.")                               \
    X(TENANT, "recipients_max", NUMBER, IN_TENANT(recipients_max), "0..100000", "0", "recipients", \
      "Of one message; 0: limits.recipients_max.")                                                 \
    X(TENANT, "message_size_max", SIZE, IN_TENANT(message_size_max), "0..1g", "0", "octets",       \
      "Largest message; 0: limits.message_size_max.")                                              \
    X(TENANT, "sessions_max", NUMBER, IN_TENANT(sessions_max), "0..1000000", "0", "sessions",      \
      "Sessions of its users at once, in one gateway process; more are refused at AUTH.")          \
    X(TENANT, "null_sender", BOOL, IN_TENANT(null_sender), "", "yes", "",                          \
      "Whether its users may send from <>, as read receipts and bounces do.")                      \
    X(TENANT, "suppression", BOOL, IN_TENANT(suppression), "", "yes", "",                          \
      "Whether recipients on its suppression list are answered 550.")                              \
    X(TENANT, "suppress_after_bounces", NUMBER, IN_TENANT(suppress_after_bounces), "0..100", "1",  \
      "bounces",                                                                                   \
      "Hard bounces (no such mailbox or domain) within 30 days that put an address on its "        \
      "suppression list; 0: none do. `kilat suppress` takes it off again.")                        \
    X(TENANT, "suppress_complaints", BOOL, IN_TENANT(suppress_complaints), "", "yes", "",          \
      "Whether a recipient who complains (a feedback report) is put on its suppression list.")     \
    X(TENANT, "bounce_domain", DOMAIN, IN_TENANT(bounce_domain), "", "", "",                       \
      "Domain of the addresses that its mail is sent from, so that SPF is checked for a domain "   \
      "of "                                                                                        \
      "its own; none: that of bounces.domain.")                                                    \
    X(TENANT, "weight", NUMBER, IN_TENANT(weight), "1..100", "10", "",                             \
      "Its share of a destination's connections while several tenants have mail waiting there in " \
      "the same lane: twice the weight, twice the recipients.")                                    \
    X(TENANT, "lane_best", WORD, IN_TENANT(lane_best), "urgent | normal | bulk", "urgent", "",     \
      "The best lane that its users may ask for, by MT-PRIORITY or an X-Kilat-Lane field; more "   \
      "is lowered to it.")                                                                         \
    X(TENANT, "lists_are_bulk", BOOL, IN_TENANT(lists_are_bulk), "", "no", "",                     \
      "Whether mail with a List-Unsubscribe field, or \"Precedence: bulk\" (or list, or junk), "   \
      "goes in the bulk lane unless it asks for one by MT-PRIORITY or X-Kilat-Lane.")              \
    X(TENANT, "idempotency", WORD, IN_TENANT(idempotency), "off | header | message-id", "header",  \
      "",                                                                                          \
      "What makes a message that is sent again the same: header: an X-Idempotency-Key field. "     \
      "message-id: that, or else its Message-ID and envelope.")                                    \
    X(TENANT, "dkim_directory", TEXT, IN_TENANT(dkim_directory), "", "", "",                       \
      "Directory of DKIM keys, DOMAIN/SELECTOR.pem, which sign for its users alone.")              \
    X(TENANT, "dkim_required", BOOL, IN_TENANT(dkim_required), "", "no", "",                       \
      "Whether mail that nothing signs is answered 451; no: it goes unsigned.")                    \
    X(SOURCE, "address", TEXTS, SOURCE_LIST(addresses, address_count), "", "", "",                 \
      "Required. An IPv4 address, an IPv6 address, or one of each. Hosts of the other family are " \
      "not connected to.")                                                                         \
    X(SOURCE, "helo", DOMAIN, IN_SOURCE(helo), "", "", "",                                         \
      "The name to give in EHLO, which should be that of the address in DNS; none: relay.helo.")   \
    X(SOURCE, "weight", NUMBER, IN_SOURCE(weight), "1..1000", "10", "",                            \
      "Its share of the mail of a route with several sources.")                                    \
    X(SOURCE, "warmup", NUMBERS, SOURCE_LIST(warmup, warmup_count), "0..1000000000", "",           \
      "recipients",                                                                                \
      "How many may be sent to on each day (UTC), of all nodes together, from `warmup_start` on; " \
      "after the last day, any number.")                                                           \
    X(SOURCE, "warmup_start", DAY, IN_SOURCE(first_day), "", "", "",                               \
      "The first day of `warmup`, such as \"2026-11-23\"; before it nothing is sent.")             \
    X(SOURCE, "connections", NUMBER, IN_SOURCE(connections), "0..10000", "0", "connections",       \
      "Connections from it to one site, of all nodes together; 0: as the route says.")             \
    X(SOURCE, "rate", RATE, IN_SOURCE(rate), "", "", "",                                           \
      "Messages from it to one site, of all nodes together, such as 100/1min; none: as the route " \
      "says.")                                                                                     \
    X(DKIM, "selector", TEXTS, DKIM_LIST(selectors, selector_count), "", "", "",                   \
      "Required. Names of the keys: their records stand in DNS at SELECTOR._domainkey.DOMAIN.")    \
    X(DKIM, "private_key", TEXTS, DKIM_LIST(private_keys, private_key_count), "", "", "",          \
      "Required. PEM files, as many and in the same order: RSA of 1024 bits or more, Ed25519. "    \
      "One of "                                                                                    \
      "each kind signs: the first. Read again on SIGHUP and when they change.")                    \
    X(DKIM, "tenant", TEXTS, DKIM_LIST(tenants, tenant_count), "", "", "",                         \
      "Tenants whose users' mail it signs; none: everybody's.")                                    \
    X(TLS, "certificate", TEXTS, TOP_LIST(tls.certificates, tls.certificate_count), "", "", "",    \
      "PEM files, each a certificate and its chain. Several: the client's server name (SNI) and "  \
      "the key types it knows choose; the first is the default. Read again on SIGHUP and when "    \
      "they change.")                                                                              \
    X(TLS, "private_key", TEXTS, TOP_LIST(tls.private_keys, tls.private_key_count), "", "", "",    \
      "PEM files, as many and in the same order.")                                                 \
    X(TLS, "client_ca", TEXT, TOP(tls.client_ca), "", "", "",                                      \
      "PEM file: clients are asked for a certificate; one that these sign is an identity for "     \
      "AUTH EXTERNAL.")                                                                            \
    X(TLS, "ticket_secret", TEXT, TOP(tls.ticket_secret), "", "", "",                              \
      "File of at least 32 random octets, the same on all nodes, so that a client can resume its " \
      "TLS session on another one; none: each process makes its own.")                             \
    X(TLS, "ticket_rotate", DURATION, TOP(tls.ticket_rotate_ms), "1min..7d", "12h", "",            \
      "How often the key of session tickets changes; a ticket is good for one to two of these.")   \
    X(TLS, "handshake_timeout", DURATION, TOP(tls.handshake_timeout_ms), "1s..5min", "30s", "",    \
      "From the first octet to the end of a handshake.")                                           \
    X(TLS, "handshakes_per_address", NUMBER, TOP(tls.handshakes_per_address), "0..1000000", "0",   \
      "connections a second",                                                                      \
      "Connections of one address (IPv6: one /64) to listeners that encrypt, on this node; more "  \
      "are answered 421, or closed where TLS is implicit; 0: any number.")                         \
    X(AUTH, "users_file", TEXT, TOP(auth.users_file), "", "", "",                                  \
      "File of users, read again when it changes; none: they are kept in Redis. `kilat user` "     \
      "manages both.")                                                                             \
    X(AUTH, "mechanisms", WORDS, TOP(auth.mechanisms),                                             \
      "plain | login | scram-sha-256 | scram-sha-256-plus | oauthbearer | xoauth2 | external",     \
      "[plain, login, scram-sha-256, scram-sha-256-plus, oauthbearer, xoauth2, external]", "",     \
      "SASL mechanisms to offer. oauthbearer and xoauth2 also need `jwt_keys`, external a "        \
      "`client_ca`, scram-sha-256-plus TLS.")                                                      \
    X(AUTH, "cache_ttl", DURATION, TOP(auth.cache_ttl_ms), "0..1d", "5min", "",                    \
      "How long a password that was right is not computed again; 0: always.")                      \
    X(AUTH, "cache_max", NUMBER, TOP(auth.cache_max), "0..1000000", "10000", "credentials",        \
      "Verified credentials remembered by each worker.")                                           \
    X(AUTH, "failures_max", NUMBER, TOP(auth.failures_max), "0..1000000", "20", "failures",        \
      "Wrong attempts from one address or on one user within `failures_window`, on all nodes, "    \
      "before further ones are refused unseen; 0: any number.")                                    \
    X(AUTH, "failures_window", DURATION, TOP(auth.failures_window_ms), "1s..7d", "10min", "",      \
      "How long a failure counts.")                                                                \
    X(AUTH, "failure_delay", DURATION, TOP(auth.failure_delay_ms), "0..1min", "1s", "",            \
      "Every refusal waits this long, whatever its cause.")                                        \
    X(AUTH, "attempts_max", NUMBER, TOP(auth.attempts_max), "1..100", "3", "attempts",             \
      "Failures in one session before it is ended with 421.")                                      \
    X(AUTH, "threads", NUMBER, TOP(auth.threads), "1..64", "2", "threads",                         \
      "Threads that compute passwords, beside the workers.")                                       \
    X(AUTH, "waiting_max", NUMBER, TOP(auth.waiting_max), "1..1000000", "1000", "checks",          \
      "Checks waiting for a thread before AUTH is answered 454.")                                  \
    X(AUTH, "jwt_keys", TEXT, TOP(auth.jwt_keys), "", "", "",                                      \
      "File of the keys that sign tokens: PEM public keys, or a JWK set. Read again when it "      \
      "changes.")                                                                                  \
    X(AUTH, "jwt_issuer", TEXT, TOP(auth.jwt_issuer), "", "", "", "The `iss` a token must have.")  \
    X(AUTH, "jwt_audience", TEXT, TOP(auth.jwt_audience), "", "", "",                              \
      "The `aud` a token must have or hold.")                                                      \
    X(AUTH, "jwt_scope", TEXT, TOP(auth.jwt_scope), "", "", "",                                    \
      "A word that a token's `scope` must hold.")                                                  \
    X(AUTH, "jwt_user_claim", TEXT, TOP(auth.jwt_user_claim), "", "email", "",                     \
      "The claim that names the user.")                                                            \
    X(ADMIN, "bind", BIND, TOP(admin.bind), "", "", "",                                            \
      "Address and port, such as \"127.0.0.1:2580\"; none: no admin port. It has no password: "    \
      "keep it on a private address.")                                                             \
    X(LIMITS, "sessions_max", NUMBER, TOP(limits.sessions_max), "1..1000000", "20000", "sessions", \
      "Submission sessions at once, in the whole process; more are answered 421. Each takes a "    \
      "file descriptor, and so does each outbound connection: `kilat check` compares the sum "     \
      "with the limit of the process.")                                                            \
    X(LIMITS, "sessions_per_address", NUMBER, TOP(limits.sessions_per_address), "0..1000000", "0", \
      "sessions",                                                                                  \
      "Sessions of one client address (IPv6: one /64) at once, in the whole process; more are "    \
      "answered 421, or closed where TLS is implicit. Behind a load balancer the address that "    \
      "its "                                                                                       \
      "PROXY header carries counts; peers that may send XCLIENT are not counted. 0: any number.")  \
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
    X(LIMITS, "drain_notice", DURATION, TOP(limits.drain_notice_ms), "0..10min", "0", "",          \
      "After SIGTERM /readyz is false at once, but new connections are served for this long: "     \
      "give a load balancer time to notice.")                                                      \
    X(LIMITS, "drain_timeout", DURATION, TOP(limits.drain_timeout_ms), "1s..10min", "20s", "",     \
      "Longest time from there to the exit.")                                                      \
    X(LIMITS, "hold_max", DURATION, TOP(limits.hold_max_ms), "0..365d", "7d", "",                  \
      "Longest time a client may hold mail back (FUTURERELEASE); 0: not offered.")                 \
    X(LIMITS, "deliver_by_min", NUMBER, TOP(limits.deliver_by_min_s), "0..86400", "60", "seconds", \
      "Least time a client may ask delivery within (DELIVERBY).")                                  \
    X(LIMITS, "mails_max", NUMBER, TOP(limits.mails_max), "0..1000000", "0", "transactions",       \
      "Transactions in one session, announced by LIMITS; 0: any number.")                          \
    X(LIMITS, "proxy_timeout", DURATION, TOP(limits.proxy_timeout_ms), "100ms..1min", "5s", "",    \
      "How long the PROXY header of a load balancer may take to come.")                            \
    X(QUEUE, "shards", NUMBER, TOP(queue.shards), "1..256", "16", "shards",                        \
      "Parts of the queue; fixed when the queue is first made, later changes are ignored.")        \
    X(QUEUE, "lease", DURATION, TOP(queue.lease_ms), "2s..5min", "5s", "",                         \
      "A worker that was silent for this long is taken for dead and its mail is taken over by "    \
      "another.")                                                                                  \
    X(QUEUE, "stream_size", SIZE, TOP(queue.stream_size), "16k..16m", "256k", "octets",            \
      "Messages larger than this go to Redis in pieces while they arrive.")                        \
    X(QUEUE, "compress", BOOL, TOP(queue.compress), "", "yes", "",                                 \
      "Whether contents are kept in Redis compressed (LZ4) where that saves an eighth or more; "   \
      "larger ones that go in pieces are not.")                                                    \
    X(QUEUE, "deliveries_max", NUMBER, TOP(queue.deliveries_max), "100..1000000", "10000",         \
      "deliveries", "Deliveries in memory, all workers together; the rest waits in Redis.")        \
    X(QUEUE, "idempotency_ttl", DURATION, TOP(queue.idempotency_ttl_ms), "1min..30d", "24h", "",   \
      "How long a message that is sent again under the same key is known.")                        \
    X(RELAY, "sources", TEXTS, TOP_LIST(relay.sources, relay.source_count), "", "", "",            \
      "Names of the sources that mail to MX hosts leaves from, where its route names none; none: " \
      "the system chooses.")                                                                       \
    X(RELAY, "connections_max", NUMBER, TOP(relay.connections_max), "1..10000", "200",             \
      "connections", "Outbound connections of one worker.")                                        \
    X(RELAY, "per_destination_max", NUMBER, TOP(relay.per_destination_max), "1..10000", "10",      \
      "connections", "Outbound connections of one worker to one destination.")                     \
    X(RELAY, "urgent_share", NUMBER, TOP(relay.urgent_share), "0..90", "20", "percent",            \
      "Connections that only mail of the urgent lane may use, of those to one destination and of " \
      "all: at least one where there may be two; 0: none.")                                        \
    X(RELAY, "adaptive", BOOL, TOP(relay.adaptive), "", "yes", "",                                 \
      "Whether a site that answers 421, or whose reply a rule takes for a limit, gets half as "    \
      "many connections and messages, and bit by bit more again as it takes them.")                \
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
    X(RELAY, "mta_sts", BOOL, TOP(relay.mta_sts), "", "yes", "",                                   \
      "Whether the MTA-STS policies of domains are looked for and obeyed, on MX routes whose "     \
      "`tls` is not off.")                                                                         \
    X(RELAY, "mta_sts_port", NUMBER, TOP(relay.mta_sts_port), "1..65535", "443", "",               \
      "Port of the hosts that policies are fetched from.")                                         \
    X(RELAY, "tls_report_from", TEXT, TOP(relay.tls_report_from), "", "", "",                      \
      "Mailbox that TLS reports (RFC 8460) come from, such as \"tls-reports@example.org\", whose " \
      "domain should have DKIM keys here; none: no reports are made.")                             \
    X(RELAY, "tls_report_delay", DURATION, TOP(relay.tls_report_delay_ms), "0..12h", "4h", "",     \
      "The reports of a day are sent from a random time within this after midnight, UTC.")         \
    X(RELAY, "ca_file", TEXT, TOP(relay.ca_file), "", "", "",                                      \
      "PEM file of the authorities that MTA-STS relies on; none: those of the system.")            \
    X(RELAY, "helo", DOMAIN, TOP(relay.helo), "", "", "",                                          \
      "The name given in EHLO; none: hostname.")                                                   \
    X(RELAY, "rules", TEXT, TOP(relay.rules), "", "", "",                                          \
      "File of rules about replies (docs/bounces.md): what they mean, and whether a destination "  \
      "is left alone, tried again or given up for them. They come before those that are built "    \
      "in. Read again on SIGHUP and when it changes.")                                             \
    X(RETRY, "schedule", DURATIONS, TOP_LIST(retry.schedule_ms, retry.schedule_len), "1s..7d",     \
      "[1min, 5min, 15min, 30min, 1h, 2h, 4h]", "",                                                \
      "Waits before the second, third, ... attempt; the last one repeats.")                        \
    X(RETRY, "jitter", NUMBER, TOP(retry.jitter_percent), "0..90", "20", "percent",                \
      "Each wait is made longer or shorter by up to this much, so that mail that failed "          \
      "together is not tried together.")                                                           \
    X(RETRY, "expire", DURATION, TOP(retry.expire_ms), "1min..30d", "5d", "",                      \
      "From acceptance to giving up.")                                                             \
    X(RETRY, "delay_notice", DURATION, TOP(retry.delay_notice_ms), "0..30d", "4h", "",             \
      "How long mail waits before a sender who asked for it (NOTIFY=DELAY) is told; 0: never.")    \
    X(RETRY, "bounces", BOOL, TOP(retry.bounces), "", "yes", "",                                   \
      "Whether a failure for good is reported to the sender; no: it becomes a dead letter.")       \
    X(DNS, "servers", SERVERS, TOP_LIST(dns.servers, dns.server_count), "", "", "",                \
      "Resolvers, such as [\"127.0.0.1\", \"192.0.2.1@5353\"]; none: those of "                    \
      "/etc/resolv.conf.")                                                                         \
    X(DNS, "trust_anchor", TEXT, TOP(dns.trust_anchor), "", "", "",                                \
      "File of the keys that DNSSEC starts from, such as /usr/share/dns/root.key. With it, "       \
      "answers are validated, and TLSA records of MX hosts are obeyed (DANE); the servers must "   \
      "pass DNSSEC records on. None: neither.")                                                    \
    X(DNS, "cache_max", DURATION, TOP(dns.cache_max_ms), "0..7d", "1h", "",                        \
      "Longest time an answer is kept, whatever its TTL says.")                                    \
    X(DNS, "negative", DURATION, TOP(dns.negative_ms), "0..1h", "1min", "",                        \
      "How long a failed lookup is kept.")                                                         \
    X(EVENTS, "size_max", SIZE, TOP(events.size_max), "0..1024g", "0", "octets",                   \
      "Memory that events may take in Redis, of all nodes together; the oldest go when it is "     \
      "used up. 0: none are told.")                                                                \
    X(EVENTS, "webhook", TEXT, TOP(events.webhook), "", "", "",                                    \
      "Where events are posted, such as \"https://app.example.org/kilat\"; none: nowhere.")        \
    X(EVENTS, "webhook_secret", TEXT, TOP(events.webhook_secret), "", "", "",                      \
      "File whose first line is the secret that posts are signed with; needed with webhook.")      \
    X(EVENTS, "webhook_ca", TEXT, TOP(events.webhook_ca), "", "", "",                              \
      "PEM file of the authorities that may sign the certificate of webhook; none: those of the "  \
      "system.")                                                                                   \
    X(BOUNCES, "domain", DOMAIN, TOP(bounces.domain), "", "", "",                                  \
      "Domain of the addresses that mail is sent from, one for each recipient, so that what "      \
      "comes back names whom it is about. Its MX must be a listener with role = \"bounces\". "     \
      "None: "                                                                                     \
      "mail keeps its sender's address.")                                                          \
    X(BOUNCES, "complaints", TEXT, TOP(bounces.complaints), "", "fbl", "",                         \
      "Local part of the mailbox that feedback loops report to, at each of these domains.")        \
    X(BOUNCES, "postmaster", TEXT, TOP(bounces.postmaster), "", "", "",                            \
      "Address that mail for postmaster and abuse at these domains is sent on to; none: it is "    \
      "refused, which RFC 5321 does not allow.")                                                   \
    X(BOUNCES, "kept", DURATION, TOP(bounces.kept_ms), "1h..90d", "7d", "",                        \
      "How long after its delivery a recipient is known to what comes back.")                      \
    X(LOG, "format", WORD, TOP(log.json), "plain | json", "plain", "", "Form of a line.")          \
    X(LOG, "level", WORD, TOP(log.level), "debug | info | warn | error", "info", "",               \
      "The least important lines that are written.")                                               \
    X(LOG, "file", TEXT, TOP(log.file), "", "", "", "Where lines go; none: standard output.")
