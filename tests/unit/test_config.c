/* SPDX-License-Identifier: Apache-2.0 */
/* config: defaults, every kind of error with file, line and key, the file of the documentation, and
 * who is in a network. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/config.h"
#include "core/base/config_value.h"
#include "core/base/log.h"
#include "core/base/must.h"
#include "core/base/settings.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#define LISTENER "listener \"x\" { bind = \"127.0.0.1:2525\"; networks = \"127.0.0.0/8\" }\n"
#define HEAD     "hostname = gw.example\n" LISTENER /* lines 1 and 2 */

/* A complete configuration, or the end of the test with the error. */
static struct config *parse(const char *text)
{
    struct config *cfg = NULL;
    struct buf error;
    buf_init(&error, 1000);
    if (config_parse("kilat.conf", slice_str(text), &cfg, &error) != STATUS_OK)
        fail_msg("%.*s", SLICE_ARG(buf_slice(&error)));
    assert_int_equal(error.len, 0);
    buf_done(&error);
    return cfg;
}

static void check_error(const char *text, const char *expect)
{
    struct config *cfg = NULL;
    struct buf error;
    buf_init(&error, 1000);
    assert_int_equal(config_parse("kilat.conf", slice_str(text), &cfg, &error), STATUS_BAD);
    assert_null(cfg);
    assert_int_equal(buf_append(&error, slice_of("", 1)), STATUS_OK);
    if (!strstr(error.ptr, expect) || strncmp(error.ptr, "kilat.conf:", 11) != 0 ||
        strchr(error.ptr, '\n'))
        fail_msg("%s\n gave     %s\n expected %s", text, error.ptr, expect);
    buf_done(&error);
}

static void defaults_of_the_limits(const struct config *cfg)
{
    assert_int_equal(cfg->limits.sessions_max, 20000);
    assert_int_equal(cfg->limits.message_size_max, 50 << 20);
    assert_int_equal(cfg->limits.recipients_max, 1000);
    assert_int_equal(cfg->limits.errors_max, 10);
    assert_int_equal(cfg->limits.received_max, 100);
    assert_int_equal(cfg->limits.header_size_max, 256 << 10);
    assert_int_equal(cfg->limits.command_timeout_ms, 300000);
    assert_int_equal(cfg->limits.data_timeout_ms, 180000);
    assert_int_equal(cfg->limits.session_timeout_ms, 86400000);
    assert_int_equal(cfg->limits.transaction_timeout_ms, 1800000);
    assert_int_equal(cfg->limits.content_memory_max, 256 << 20);
    assert_int_equal(cfg->limits.commit_timeout_ms, 30000);
    assert_int_equal(cfg->limits.drain_timeout_ms, 20000);
}

static void defaults_of_queue_and_relay(const struct config *cfg)
{
    assert_int_equal(cfg->queue.shards, 16);
    assert_int_equal(cfg->queue.lease_ms, 5000);
    assert_int_equal(cfg->queue.stream_size, 256 << 10);
    assert_int_equal(cfg->queue.deliveries_max, 10000);
    assert_int_equal(cfg->relay.connections_max, 200);
    assert_int_equal(cfg->relay.per_destination_max, 10);
    assert_int_equal(cfg->relay.messages_per_connection, 100);
    assert_int_equal(cfg->relay.idle_timeout_ms, 30000);
    assert_int_equal(cfg->relay.connect_timeout_ms, 30000);
    assert_int_equal(cfg->relay.reply_timeout_ms, 0);
    assert_int_equal(cfg->relay.mx_port, 25);
    assert_false(cfg->relay.allow_private);
    assert_null(cfg->relay.helo);
}

static void defaults_of_the_rest(const struct config *cfg)
{
    static const uint32_t minutes[] = { 1, 5, 15, 30, 60, 120, 240 };
    assert_int_equal(cfg->retry.schedule_len, ARRAY_LEN(minutes));
    for (size_t i = 0; i < ARRAY_LEN(minutes); i++)
        assert_int_equal(cfg->retry.schedule_ms[i], minutes[i] * 60000);
    assert_int_equal(cfg->retry.jitter_percent, 20);
    assert_int_equal(cfg->retry.expire_ms, 5 * 86400000LL);
    assert_true(cfg->retry.bounces);
    assert_int_equal(cfg->dns.server_count, 0);
    assert_int_equal(cfg->dns.cache_max_ms, 3600000);
    assert_int_equal(cfg->dns.negative_ms, 60000);
    assert_false(cfg->log.json);
    assert_int_equal(cfg->log.level, LOG_INFO);
    assert_null(cfg->log.file);
    assert_null(cfg->admin.bind);
}

static void defaults(void **state)
{
    struct config *cfg = parse(HEAD);
    assert_string_equal(cfg->file, "kilat.conf");
    assert_string_equal(cfg->hostname, "gw.example");
    assert_int_equal(cfg->workers, 0);
    assert_string_equal(cfg->data_dir, "/var/lib/kilat");
    assert_int_equal(cfg->redis.mode, REDIS_EMBEDDED);
    assert_null(cfg->redis.url);
    assert_int_equal(cfg->redis.accept_risk, 0);
    assert_int_equal(cfg->redis.maxmemory, 0);
    assert_string_equal(cfg->redis.server, "redis-server");
    defaults_of_the_limits(cfg);
    defaults_of_queue_and_relay(cfg);
    defaults_of_the_rest(cfg);
    assert_int_equal(cfg->route_count, 1); /* all mail to the MX hosts */
    assert_string_equal(cfg->routes[0].pattern, "*");
    assert_int_equal(cfg->routes[0].relay, RELAY_MX);
    config_free(cfg);
}

static void listeners_and_their_addresses(void **state)
{
    struct config *cfg =
        parse("hostname = gw.example\n"
              "listener \"one\" {\n"
              "  bind = [\"[::1]:2525\", 127.0.0.1:0]\n"
              "  networks = [10.0.0.0/8, 192.0.2.7, ::1, \"2001:db8::/32\"]\n"
              "}\n"
              "listener \"two\" { bind = 127.0.0.1:0; networks = ::1; auth = off }");
    assert_int_equal(cfg->listener_count, 2);
    const struct config_listener *one = &cfg->listeners[0];
    assert_string_equal(one->name, "one");
    assert_int_equal(one->line, 2);
    assert_int_equal(one->bind_count, 2);
    assert_string_equal(one->binds[0].host, "::1");
    assert_int_equal(one->binds[0].port, 2525);
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&one->binds[0].addr;
    assert_int_equal(v6->sin6_family, AF_INET6);
    assert_int_equal(v6->sin6_port, htons(2525));
    assert_true(IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr));
    assert_int_equal(one->binds[0].addr_len, sizeof *v6);
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&one->binds[1].addr;
    assert_int_equal(v4->sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    assert_int_equal(one->network_count, 4);
    assert_int_equal(one->networks[0].prefix, 104);
    assert_int_equal(one->networks[1].prefix, 128);
    assert_int_equal(one->networks[3].prefix, 32);
    assert_int_equal(cfg->listeners[1].auth, AUTH_OFF);
    config_free(cfg);
}

/* Everything away from its default, and every place reached. */
static void each_setting_reaches_its_field(void **state)
{
    struct config *cfg = parse(
        HEAD
        "workers = 3; data_dir = data\n"
        "redis { mode = external; url = \"redis://u:p@h:1/2\"; accept_risk = [no-aof, eviction] }\n"
        "route \"*\" { connections = 2; rate = \"100/1min\" }\n"
        "route \"*.Example.ORG\" { relay = smarthost; host = \"2001:db8::1\"; port = 2526 }\n"
        "route held.example { relay = hold }\n"
        "admin { bind = 127.0.0.1:2580 }\n"
        "limits { sessions_max = 5; message_size_max = 1M; command_timeout = 1500ms }\n"
        "queue { lease = 2s; shards = 1 }\n"
        "relay { allow_private = true; helo = out.example; mx_port = 65535; idle_timeout = 0 }\n"
        "retry { schedule = [1s, 7d]; jitter = 0; expire = 30d; bounces = off }\n"
        "dns { servers = [127.0.0.1@53, ::1]; negative = 0 }\n"
        "log { format = json; level = error; file = \"/l \\u00e9\" }\n");
    assert_int_equal(cfg->workers, 3);
    assert_string_equal(cfg->data_dir, "data");
    assert_int_equal(cfg->redis.mode, REDIS_EXTERNAL);
    assert_string_equal(cfg->redis.url, "redis://u:p@h:1/2");
    assert_int_equal(cfg->redis.accept_risk, REDIS_RISK_NO_AOF | REDIS_RISK_EVICTION);
    assert_int_equal(cfg->route_count, 3);
    assert_int_equal(cfg->routes[0].relay, RELAY_MX);
    assert_int_equal(cfg->routes[0].port, 25);
    assert_int_equal(cfg->routes[0].connections, 2);
    assert_int_equal(cfg->routes[0].rate.messages, 100);
    assert_int_equal(cfg->routes[0].rate.per_ms, 60000);
    assert_int_equal(cfg->routes[1].rate.messages, 0);
    assert_string_equal(cfg->routes[1].pattern, "*.example.org");
    assert_string_equal(cfg->routes[1].host, "2001:db8::1");
    assert_int_equal(cfg->routes[1].port, 2526);
    assert_int_equal(cfg->routes[1].line, 6);
    assert_int_equal(cfg->routes[2].relay, RELAY_HOLD);
    assert_int_equal(cfg->admin.bind->port, 2580);
    assert_int_equal(cfg->limits.message_size_max, 1 << 20);
    assert_int_equal(cfg->limits.command_timeout_ms, 1500);
    assert_int_equal(cfg->limits.data_timeout_ms, 180000); /* still its default */
    assert_int_equal(cfg->queue.lease_ms, 2000);
    assert_true(cfg->relay.allow_private);
    assert_string_equal(cfg->relay.helo, "out.example");
    assert_int_equal(cfg->relay.mx_port, 65535);
    assert_int_equal(cfg->relay.idle_timeout_ms, 0);
    assert_int_equal(cfg->retry.schedule_len, 2);
    assert_int_equal(cfg->retry.schedule_ms[1], 604800000);
    assert_int_equal(cfg->retry.expire_ms, 2592000000);
    assert_false(cfg->retry.bounces);
    assert_int_equal(cfg->dns.server_count, 2);
    assert_string_equal(cfg->dns.servers[0], "127.0.0.1@53");
    assert_true(cfg->log.json);
    assert_int_equal(cfg->log.level, LOG_ERROR);
    assert_string_equal(cfg->log.file, "/l \xc3\xa9");
    config_free(cfg);
}

/* Text behind HEAD, so its first line is line 3. */
static void errors_of_statements(void **state)
{
    static const struct {
        const char *text, *expect;
    } rows[] = {
        { "\nx = \"", ":4: x: a string is not closed" },
        { "limits { recipient_max = 5 }", ":3: limits: recipient_max: is not known: the nearest "
                                          "name is recipients_max" },
        { "limit { }", ":3: limit: is not known: the nearest name is limits" },
        { "hostnam = x", ":3: hostnam: is not known: the nearest name is hostname" },
        { "\nlimits {\n lease = 5s }", ":5: limits: lease: belongs in section queue" },
        { "shards = 5", ":3: shards: belongs in section queue" },
        { "retry { workers = 1 }", ":3: retry: workers: belongs at the top of the file" },
        { "hostname = b.example", ":3: hostname: is already set on line 1" },
        { "queue { lease = 5s\nlease = 6s }", ":4: queue: lease: is already set on line 3" },
        { "queue { }\nqueue { }", ":4: queue: is already there on line 3" },
        { "limits = 5", ":3: limits: is a section: write limits { ... }" },
        { "route = 5", ":3: route: is a section: write route \"...\" { ... }" },
        { "workers { }", ":3: workers: is a setting, not a section" },
        { "workers = [1, 2]", ":3: workers: takes one value, not a list" },
        { "limits \"x\" { }", ":3: limits: takes no name: write limits { ... }" },
        { "listener { }", ":3: listener: has no name: write listener \"name\" { ... }" },
        { "route { }", ":3: route: has no pattern: write route \"pattern\" { ... }" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[1000];
        assert_true(snprintf(text, sizeof text, "%s%s", HEAD, rows[i].text) < (int)sizeof text);
        check_error(text, rows[i].expect);
    }
}

static void errors_of_values(void **state)
{
    static const struct {
        const char *text, *expect;
    } rows[] = {
        { "workers = two", ":3: workers: \"two\" is no number" },
        { "workers = -1", ":3: workers: \"-1\" is no number" },
        { "workers = 257", ":3: workers: 257 is out of range: 0..256" },
        { "workers = 99999999999999999999", ":3: workers: \"99999999999999999999\" is no number" },
        { "data_dir = \"\"", ":3: data_dir: \"\" is empty" },
        { "data_dir = \"a\\nb\"", ":3: data_dir: holds a control character" },
        { "redis { mode = remote }", ":3: redis: mode: \"remote\" is not known: write one of "
                                     "embedded | external" },
        { "limits { message_size_max = 10x }", ":3: limits: message_size_max: \"10x\" is no size" },
        { "limits { message_size_max = 2g }", ":3: limits: message_size_max: 2g is out of range" },
        { "limits { recipients_max = 99 }", ":3: limits: recipients_max: 99 is out of range: "
                                            "100..100000" },
        { "limits { data_timeout = 5 }", ":3: limits: data_timeout: \"5\" is no duration" },
        { "limits { data_timeout = 5m }", ":3: limits: data_timeout: \"5m\" is no duration" },
        { "queue { lease = 1s }", ":3: queue: lease: 1s is out of range: 2s..5min" },
        { "retry { schedule = [1min,\n 0] }", ":4: retry: schedule: 0 is out of range" },
        { "retry { schedule = [] }", ":3: retry: schedule: is empty" },
        { "retry { bounces = maybe }", ":3: retry: bounces: \"maybe\" is neither yes nor no" },
        { "relay { helo = a..b }", ":3: relay: helo: \"a..b\" is no domain name" },
        { "relay { helo = 127.0.0.1 }", ":3: relay: helo: \"127.0.0.1\" is no domain name" },
        { "dns { servers = dns.example }", ":3: dns: servers: \"dns.example\" is no address" },
        { "dns { servers = 127.0.0.1@0 }", ":3: dns: servers: \"127.0.0.1@0\" is no address" },
        { "admin { bind = localhost:80 }", ":3: admin: bind: \"localhost:80\" is no address" },
        { "admin { bind = \"::1:80\" }", ":3: admin: bind: \"::1:80\" is no address" },
        { "admin { bind = \"[::1]\" }", ":3: admin: bind: \"[::1]\" is no address" },
        { "admin { bind = 127.0.0.1:65536 }", ":3: admin: bind: \"127.0.0.1:65536\" is no" },
        { "listener \"y\" { networks = 10.0.0.1/8 }", ":3: listener \"y\": networks: "
                                                      "\"10.0.0.1/8\" is no network" },
        { "listener \"y\" { networks = 10.0.0.0/33 }", ":3: listener \"y\": networks: " },
        { "route \"y\" { rate = 100 }", ":3: route \"y\": rate: \"100\" is no rate: write" },
        { "route \"y\" { rate = \"0/1min\" }", ":3: route \"y\": rate: \"0/1min\" is no rate" },
        { "route \"y\" { rate = \"5/10ms\" }", ":3: route \"y\": rate: \"5/10ms\" is no rate" },
        { "route \"y\" { rate = \"5/2d\" }", ":3: route \"y\": rate: \"5/2d\" is no rate" },
        { "route \"y\" { host = \"a b\" }", ":3: route \"y\": host: \"a b\" is no host" },
        { "redis { url = \"\xff\xfe\x80\" ; mode = \"\xff\" }", ":3: redis: mode: \"?\" is not" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[1000];
        assert_true(snprintf(text, sizeof text, "%s%s", HEAD, rows[i].text) < (int)sizeof text);
        check_error(text, rows[i].expect);
    }
}

#define BIND "bind = 127.0.0.1:26"
#define NETS "networks = 10.0.0.0/8"
#define CERTIFIED                                                                                  \
    "listener \"y\" { " BIND "; tls = implicit; auth = required }\n"                               \
    "tls { certificate = a; private_key = b }\n"
#define CLEAR "listener \"y\" { " BIND "; " NETS "; auth = optional; auth_without_tls = yes }\n"

static void errors_between_settings(void **state)
{
    static const struct {
        const char *text, *expect;
    } rows[] = {
        { "", ":1: hostname: is missing: write the name" },
        { "hostname = a.b", ":1: listener: there is none: write one" },
        { HEAD "listener \"y\" { " BIND " }", ":3: listener \"y\": networks: nobody is trusted" },
        { HEAD "listener \"y\" { " NETS " }", ":3: listener \"y\": bind: is missing" },
        { HEAD "listener \"y\" { " BIND ";\n networks = 0.0.0.0/0 }",
          ":4: listener \"y\": networks: a prefix of 0" },
        { HEAD "listener \"y\" { " BIND "; networks = ::/0 }", ":3: listener \"y\": networks: a " },
        { HEAD "listener \"x\" { " BIND "; " NETS " }",
          ":3: listener \"x\": there is a listener of this name on line 2" },
        { HEAD "listener \"a b\" { " BIND "; " NETS " }", ":3: listener \"a b\": a name has 1 to" },
        { HEAD "listener \"y\" { bind = 127.0.0.1:2525; " NETS " }",
          ":3: listener \"y\": bind: port 2525 of 127.0.0.1 is taken by listener \"x\"" },
        { HEAD "admin { bind = 127.0.0.1:2525 }",
          ":3: admin: bind: port 2525 of 127.0.0.1 is taken by listener \"x\"" },
        { HEAD "listener \"y\" { " BIND "; tls = starttls; auth = required }",
          ":3: listener \"y\": tls: there is no certificate: write tls {" },
        { HEAD "listener \"y\" { " BIND ";\n auth = required }",
          ":4: listener \"y\": auth: passwords would cross the network in clear" },
        { HEAD "listener \"y\" { " BIND "; " NETS ";\n auth = optional }",
          ":4: listener \"y\": auth: passwords would cross" },
        { HEAD "listener \"y\" { " BIND "; " NETS ";\n auth_without_tls = yes }",
          ":4: listener \"y\": auth_without_tls: there is no AUTH to offer" },
        { HEAD "listener \"y\" { " BIND
               "; networks = ::/0; auth = optional; auth_without_tls = yes }",
          ":3: listener \"y\": networks: a prefix of 0" },
        { HEAD "listener \"y\" { " BIND "; " NETS "; tenant = acme }",
          ":3: listener \"y\": tenant: there is no tenant \"acme\": write tenant" },
        { HEAD "tenant \"a b\" { }", ":3: tenant \"a b\": a name has 1 to 32" },
        { HEAD "tenant \"a\" { }\ntenant \"a\" { }",
          ":4: tenant \"a\": there is a tenant of this name on line 3" },
        { HEAD "tenant { }", ":3: tenant: has no name: write tenant \"name\" { ... }" },
        { HEAD "tenant \"a\" { senders = [\"\"] }", ":3: tenant \"a\": senders: \"\" is empty" },
        { HEAD "tenant \"a\" { senders = [] }", ":3: tenant \"a\": senders: is empty" },
        { HEAD "dkim \"a b\" { }", ":3: dkim \"a b\": is no domain name" },
        { HEAD "dkim \"a.b\" { }",
          ":3: dkim \"a.b\": there are 0 of selector and 0 of private_key" },
        { HEAD "dkim \"a.b\" { selector = [x, y]; private_key = k }",
          ":3: dkim \"a.b\": there are 2 of selector and 1 of private_key" },
        { HEAD "dkim \"a.b\" {\n selector = \"x;y\"; private_key = k }",
          ":4: dkim \"a.b\": selector: \"x;y\" is none" },
        { HEAD "dkim \"a.b\" { selector = 2026; private_key = k }\n"
               "dkim \"A.B\" { selector = s; private_key = k }",
          ":4: dkim \"A.B\": there is a section of this domain on line 3" },
        { HEAD "dkim \"a.b\" { selector = s; private_key = k; tenant = x }",
          ":3: dkim \"a.b\": tenant: there is no tenant \"x\"" },
        { HEAD "dkim_expire = 1d", ":3: dkim_expire: is shorter than retry.expire" },
        { HEAD "tenant \"t\" { }\ndkim \"a.b\" { selector = s; private_key = k; tenant = t }\n"
               "dkim_missing = never",
          ":5: dkim_missing: \"never\" is not known" },
        { HEAD "tls {\n certificate = [a, b];\n private_key = a }",
          ":4: tls: there are 2 of certificate and 1 of private_key" },
        { HEAD "tls { private_key = a }", ":3: tls: there are 0 of certificate and 1 of" },
        { HEAD "listener \"y\" { " BIND "; auth = required; tls = implicit;\n proxy_protocol = "
               "[10.0.0.1, 0.0.0.0/0] }",
          ":4: listener \"y\": proxy_protocol: a prefix of 0 would let every client" },
        { HEAD "listener \"y\" { " BIND "; " NETS ";\n xclient = ::/0 }",
          ":4: listener \"y\": xclient: a prefix of 0 would let every client" },
        { HEAD CERTIFIED "auth { mechanisms = [oauthbearer, xoauth2, external] }",
          ":5: auth: mechanisms: listener \"y\" would have none to offer: add plain" },
        { HEAD CLEAR "tls { certificate = a; private_key = b; client_ca = c }\n"
                     "auth {\n mechanisms = [external, scram-sha-256-plus] }",
          ":6: auth: mechanisms: listener \"y\" would have none to offer" },
        { HEAD "auth {\n jwt_issuer = \"https://id.example\" }",
          ":4: auth: jwt_issuer: is for tokens: write jwt_keys or take it out" },
        { HEAD "auth {\n jwt_audience = mail }", ":4: auth: jwt_audience: is for tokens" },
        { HEAD "auth {\n jwt_scope = mail }", ":4: auth: jwt_scope: is for tokens" },
        { HEAD "auth {\n jwt_user_claim = sub }", ":4: auth: jwt_user_claim: is for tokens" },
        { HEAD "auth { mechanisms = [plain, cram-md5] }",
          ":3: auth: mechanisms: \"cram-md5\" is not known: write one of" },
        { HEAD "route \"*x\" { }", ":3: route \"*x\": is no pattern" },
        { HEAD "route \"A.b\" { }\nroute \"a.B\" { }",
          ":4: route \"a.B\": there is a route of this name on line 3" },
        { HEAD "route x { domain = \"A.b\" }\nroute \"a.B\" { }",
          ":4: route \"a.B\": takes the same mail as route \"x\" on line 3" },
        { HEAD "route x { domain = \"*\"; lane = [bulk, normal] }\n"
               "route y { domain = \"*\"; lane = [urgent, bulk] }",
          ":4: route \"y\": takes the same mail as route \"x\" on line 3" },
        { HEAD "tenant t { }\ntenant u { }\nroute x { domain = \"*\"; tenant = [t, u] }\n"
               "route y { domain = \"*\"; tenant = u }",
          ":6: route \"y\": takes the same mail as route \"x\" on line 5" },
        { HEAD "route x { domain = \"*\"; tenant = gone }",
          ":3: route \"x\": tenant: there is no tenant \"gone\"" },
        { HEAD "events { webhook = \"https://a.b/\"; size_max = 1m }",
          ":3: events: webhook: needs webhook_secret" },
        { HEAD "events { webhook = \"https://a.b/\"; webhook_secret = x }",
          ":3: events: webhook: needs size_max" },
        { HEAD "events {\n webhook = \"http://a.b/\" }", ":4: events: webhook: is no address" },
        { HEAD "events {\n webhook = \"https://a.b:0/\" }", ":4: events: webhook: is no address" },
        { HEAD "route \"*\" { lane = bulk }", ":3: route \"*\": domain: is missing" },
        { HEAD "route \"a/b\" { domain = \"*\" }", ":3: route \"a/b\": is no name" },
        { HEAD "route x {\n domain = \"*x\" }", ":4: route \"x\": domain: \"*x\" is no pattern" },
        { HEAD "route \"*\" { relay = smarthost }", ":3: route \"*\": host: is missing" },
        { HEAD "route \"*\" {\n host = a.b }", ":4: route \"*\": host: is for smarthosts" },
        { HEAD "route \"*\" {\n relay = hold\n port = 5 }", ":5: route \"*\": port: is for smart" },
        { HEAD "source a { }", ":3: source \"a\": address: is missing" },
        { HEAD "source { }", ":3: source: has no name" },
        { HEAD "source \"a^b\" { address = 127.0.0.2 }", ":3: source \"a^b\": is no name" },
        { HEAD "source a { address = 127.0.0.2 }\nsource A { address = 127.0.0.3 }",
          ":4: source \"A\": there is a source of this name on line 3" },
        { HEAD "source a {\n address = [127.0.0.2, 127.0.0.3] }",
          ":4: source \"a\": address: \"127.0.0.3\": write an IPv4 address" },
        { HEAD "source a {\n address = a.example }",
          ":4: source \"a\": address: \"a.example\": write an IPv4 address" },
        { HEAD "source a { address = 127.0.0.2;\n warmup = [5, 10] }",
          ":4: source \"a\": warmup_start: is missing" },
        { HEAD "source a { address = 127.0.0.2;\n warmup_start = \"2026-11-23\" }",
          ":4: source \"a\": warmup: is missing" },
        { HEAD "source a { address = 127.0.0.2; warmup = 5;\n warmup_start = \"2026-02-29\" }",
          ":4: source \"a\": warmup_start: \"2026-02-29\" is no day" },
        { HEAD "source a { address = 127.0.0.2; warmup = 5;\n warmup_start = \"23.11.2026\" }",
          ":4: source \"a\": warmup_start: \"23.11.2026\" is no day" },
        { HEAD "source a { address = 127.0.0.2;\n warmup = [5, many] }",
          ":4: source \"a\": warmup: \"many\" is no number" },
        { HEAD "route \"*\" { sources = gone }",
          ":3: route \"*\": sources: there is no source \"gone\"" },
        { HEAD "relay {\n sources = gone }", ":4: relay: sources: there is no source \"gone\"" },
        { HEAD "source a { address = ::1 }\nroute x.y {\n relay = hold; sources = a }",
          ":5: route \"x.y\": sources: nothing leaves" },
        { HEAD "redis {\n url = \"redis://h\" }", ":4: redis: url: is for mode = \"external\"" },
        { HEAD "redis {\n accept_risk = no-aof }", ":4: redis: accept_risk: is for mode" },
        { HEAD "redis {\n mode = external }", ":4: redis: url: is missing" },
        { HEAD "redis { mode = external; url = \"http://h\" }", ":3: redis: url: begins with" },
        { HEAD "redis { mode = external; url = \"redis://h\"; server = x }",
          ":3: redis: server: is for mode = \"embedded\"" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        check_error(rows[i].text, rows[i].expect);
}

/* Neighbours of the errors above. */
static void what_may_stand_together(void **state)
{
    static const char *const rows[] = {
        HEAD CERTIFIED "auth { mechanisms = scram-sha-256-plus }",
        HEAD CERTIFIED "auth { mechanisms = xoauth2; jwt_keys = k; jwt_issuer = i }",
        HEAD CLEAR "auth { mechanisms = plain }",
        HEAD CLEAR "auth { mechanisms = oauthbearer; jwt_keys = k; jwt_audience = a }",
        HEAD "auth { mechanisms = external }", /* no listener has AUTH */
        HEAD "listener \"y\" { " BIND "; " NETS "; tenant = later }\ntenant \"later\" { }",
        HEAD "listener \"y\" { " BIND "; " NETS "; xclient = 127.0.0.1; proxy_protocol = ::1 }",
        HEAD "listener \"y\" { " BIND "; auth = required; tls = starttls; networks = ::/0 }\n"
             "tls { certificate = [a, b]; private_key = [c, d] }",
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        config_free(parse(rows[i]));
}

#define SMARTHOST "route \"y\" { relay = smarthost; host = h; "

/* P-158: who gets the password is known. */
static void smarthosts_and_their_logins(void **state)
{
    static const struct {
        const char *text, *expect;
    } rows[] = {
        { SMARTHOST "user = u; password_file = p }", "user: needs tls = \"verify\"" },
        { SMARTHOST "user = u; password_file = p; tls = encrypt }", "needs tls = \"verify\"" },
        { SMARTHOST "user = u; tls = verify }", "needs a password_file or a token_file" },
        { SMARTHOST "user = u; tls = verify; password_file = p; token_file = t }", "not both" },
        { SMARTHOST "password_file = p; tls = verify }", "user: is missing" },
        { SMARTHOST "tls_implicit = yes }", "tls_implicit: needs tls = \"encrypt\"" },
        { SMARTHOST "fallback = [\"a:0\"] }", "\"a:0\", which is no host or host:port" },
        { SMARTHOST "fallback = [\"a:65536\"] }", "no host or host:port" },
        { SMARTHOST "fallback = [\"a:\"] }", "no host or host:port" },
        { SMARTHOST "fallback = [\"[::1\"] }", "no host or host:port" },
        { SMARTHOST "fallback = [\"[::1]25\"] }", "no host or host:port" },
        { SMARTHOST "fallback = [\":25\"] }", "no host or host:port" },
        { "route \"y\" { user = u }", "user: is for smarthosts" },
        { "route \"y\" { fallback = [a] }", "fallback: is for smarthosts" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[1000];
        assert_true(snprintf(text, sizeof text, "%s%s", HEAD, rows[i].text) < (int)sizeof text);
        check_error(text, rows[i].expect);
    }
    struct config *cfg = parse(HEAD SMARTHOST "tls = verify; user = u; token_file = t; "
                                              "fallback = [a, \"b:587\", \"[::1]:2525\"] }");
    static const uint16_t ports[] = { 25, 587, 2525 };
    static const char *const hosts[] = { "a", "b", "::1" };
    for (size_t i = 0; i < 3; i++) {
        struct slice host;
        uint16_t port = 25;
        assert_true(config_host_of(slice_str(cfg->routes[0].fallbacks[i]), &host, &port));
        assert_true(slice_eq(host, slice_str(hosts[i])));
        assert_int_equal(port, ports[i]);
    }
    assert_int_equal(cfg->routes[1].tls, ROUTE_TLS_MAY); /* "*", which nobody wrote */
    config_free(cfg);
}

/* The file that the design shows, as it stands there. */
static void the_file_of_the_design(void **state)
{
    struct config *cfg = parse(
        "hostname = \"gateway.example\";\n"
        "workers  = 0;                          # 0: one per core\n"
        "data_dir = \"/var/lib/kilat\";\n"
        "redis    { mode = \"embedded\"; }        # or external\n"
        "listener \"submission\"  { bind = [\"0.0.0.0:587\"];    tls = \"starttls\"; auth = "
        "\"required\"; }\n"
        "listener \"submissions\" { bind = [\"0.0.0.0:465\"];    tls = \"implicit\"; auth = "
        "\"required\"; }\n"
        "listener \"trusted\"     { bind = [\"127.0.0.1:2525\"]; tls = \"off\"; auth = \"off\"; "
        "networks = [\"127.0.0.0/8\"]; }\n"
        "listener \"balanced\"    { bind = [\"10.0.0.5:587\"];   tls = \"starttls\"; auth = "
        "\"required\"; proxy_protocol = [\"10.0.0.0/24\"]; }\n"
        "tls      { certificate = \"/etc/kilat/cert.pem\"; private_key = \"/etc/kilat/key.pem\"; "
        "}\n"
        "route \"*\"           { relay = \"mx\"; }     # mx | smarthost | hold\n"
        "route \"example.org\" { relay = \"smarthost\"; host = \"127.0.0.1\"; port = 2526; tls = "
        "\"off\"; }   # off | may | encrypt | verify\n"
        "admin    { bind = \"127.0.0.1:2580\"; }  # /metrics /healthz /readyz\n");
    assert_int_equal(cfg->listener_count, 4);
    assert_int_equal(cfg->route_count, 2);
    assert_int_equal(cfg->listeners[1].tls, TLS_IMPLICIT);
    assert_int_equal(cfg->listeners[1].auth, AUTH_REQUIRED);
    assert_int_equal(cfg->listeners[3].proxy_network_count, 1);
    assert_int_equal(cfg->tls.certificate_count, 1);
    assert_string_equal(cfg->tls.private_keys[0], "/etc/kilat/key.pem");
    config_free(cfg);
}

static void tenants_and_their_defaults(void **state)
{
    struct config *cfg =
        parse(HEAD "tenant \"acme\" { senders = [\"@a.example\", \"b@c.example\"];\n"
                   " recipients_per_day = 10; lane_best = bulk; }\n"
                   "tenant \"other\" { idempotency = message-id; null_sender = no }");
    const struct config_tenant *acme = config_find_tenant(cfg, SLICE("acme"));
    const struct config_tenant *other = config_find_tenant(cfg, SLICE("other"));
    assert_int_equal(acme->sender_count, 2);
    assert_string_equal(acme->senders[1], "b@c.example");
    assert_int_equal(acme->recipients_per_day, 10);
    assert_int_equal(acme->lane_best, LANE_BULK);
    assert_true(acme->null_sender && acme->suppression);
    assert_int_equal(acme->idempotency, IDEMPOTENCY_HEADER);
    assert_int_equal(other->idempotency, IDEMPOTENCY_MESSAGE_ID);
    assert_false(other->null_sender);
    assert_int_equal(other->lane_best, LANE_URGENT);
    assert_null(config_find_tenant(cfg, SLICE("nobody")));
    assert_int_equal(cfg->auth.mechanisms, 0x7f);
    config_free(cfg);
}

static void sources_and_who_uses_them(void **state)
{
    struct config *cfg = parse(
        HEAD "source A { address = [127.0.0.2, ::1]; helo = a.example; warmup = [5, 10];\n"
             " warmup_start = \"2028-03-01\" }\nsource b { address = 127.0.0.3; weight = 1 }\n"
             "relay { sources = a }\nroute x.y { }\nroute z.y { sources = [B, a] }\n"
             "route s.y { relay = smarthost; host = h.y }");
    const struct config_source *a = config_find_source(cfg, SLICE("a"));
    assert_int_equal(a->v4.ss_family, AF_INET);
    assert_int_equal(a->v6.ss_family, AF_INET6);
    assert_int_equal(a->first_day, 21244);
    assert_int_equal(a->warmup_count, 2);
    assert_int_equal(a->weight, 10);
    assert_int_equal(config_find_source(cfg, SLICE("B"))->v6.ss_family, 0);
    for (size_t i = 0; i < cfg->route_count; i++) {
        const struct config_route *route = &cfg->routes[i];
        uint64_t set = strcmp(route->name, "z.y") == 0   ? 3
                       : strcmp(route->name, "s.y") == 0 ? 0
                                                         : 1;
        assert_int_equal(route->source_set, set);
    }
    config_free(cfg);
}

static void an_error_fits_whatever_room_there_is(void **state)
{
    for (uint32_t room = 0; room < 200; room++) {
        struct config *cfg = NULL;
        struct buf error;
        buf_init(&error, room);
        assert_int_equal(config_parse("f", SLICE("x = \""), &cfg, &error), STATUS_BAD);
        assert_true(error.len <= room);
        buf_done(&error);
    }
    char *name = mem_alloc(5000);
    memset(name, 'n', 4999);
    name[4999] = '\0';
    struct config *cfg = NULL;
    struct buf error;
    buf_init(&error, 5000);
    assert_int_equal(config_parse(name, SLICE(""), &cfg, &error), STATUS_BAD);
    assert_true(error.len < 512);
    buf_done(&error);
    free(name);
}

static bool contains(const char *network, const char *address)
{
    struct config_network n;
    struct sockaddr_storage addr = { 0 };
    struct sockaddr_in *v4 = (struct sockaddr_in *)&addr;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&addr;
    assert_true(config_value_network(slice_str(network), &n));
    addr.ss_family = strchr(address, ':') ? AF_INET6 : AF_INET;
    void *out = addr.ss_family == AF_INET6 ? (void *)&v6->sin6_addr : (void *)&v4->sin_addr;
    assert_int_equal(inet_pton(addr.ss_family, address, out), 1);
    return config_networks_contain(&n, 1, (const struct sockaddr *)&addr);
}

static void networks_contain_v4_v6_and_mapped(void **state)
{
    static const struct {
        const char *network, *address;
        bool inside;
    } rows[] = {
        { "127.0.0.0/8", "127.255.0.1", true },
        { "127.0.0.0/8", "128.0.0.1", false },
        { "127.0.0.0/8", "::ffff:127.0.0.1", true }, /* a v4 client on a v6 socket */
        { "127.0.0.0/8", "::1", false },
        { "10.1.2.3", "10.1.2.3", true },
        { "10.1.2.3", "10.1.2.2", false },
        { "192.0.2.128/25", "192.0.2.128", true },
        { "192.0.2.128/25", "192.0.2.127", false },
        { "172.16.0.0/12", "172.31.255.255", true },
        { "172.16.0.0/12", "172.32.0.0", false },
        { "::1", "::1", true },
        { "::1", "::2", false },
        { "::1", "127.0.0.1", false },
        { "2001:db8::/33", "2001:db8:7fff::1", true },
        { "2001:db8::/33", "2001:db8:8000::1", false },
        { "::/8", "10.0.0.1", false }, /* mapped addresses are no part of a short v6 prefix */
        { "::/8", "::2", true },
        { "::ffff:10.0.0.0/104", "10.9.9.9", true },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (contains(rows[i].network, rows[i].address) != rows[i].inside)
            fail_msg("%s %s", rows[i].network, rows[i].address);
    struct sockaddr other = { .sa_family = AF_UNIX };
    assert_false(config_networks_contain(NULL, 0, &other));
}

/* Every prefix length of both families, against bit by bit. */
static void every_prefix_length_is_exact(void **state)
{
    for (unsigned prefix = 1; prefix <= 128; prefix++) {
        char network[64];
        struct sockaddr_in6 addr = { .sin6_family = AF_INET6 };
        struct config_network n;
        assert_true(snprintf(network, sizeof network, "::/%u", prefix) > 0);
        assert_true(config_value_network(slice_str(network), &n));
        for (unsigned bit = 0; bit < 128; bit++) {
            memset(&addr.sin6_addr, 0, sizeof addr.sin6_addr);
            addr.sin6_addr.s6_addr[bit / 8] = (uint8_t)(0x80 >> bit % 8);
            assert_int_equal(config_networks_contain(&n, 1, (const struct sockaddr *)&addr),
                             bit >= prefix);
        }
    }
}

/* The table itself: prose everywhere, ranges that fit their fields, no name twice. */
static void rows_of_the_table_are_sound(void **state)
{
    for (size_t i = 0; i < setting_count; i++) {
        const struct setting *s = &settings[i];
        assert_true(strlen(s->prose) > 5);
        assert_ptr_equal(settings_find(s->section, slice_str(s->key)), s);
        bool is_quantity = s->type == SETTING_NUMBER || s->type == SETTING_SIZE ||
                           s->type == SETTING_DURATION || s->type == SETTING_DURATIONS ||
                           s->type == SETTING_NUMBERS;
        const char *dots = strstr(s->range, "..");
        assert_int_equal(dots != NULL, is_quantity);
        if (!is_quantity)
            continue;
        uint64_t most = 0;
        struct slice text = slice_str(dots + 2);
        bool is_list = s->type == SETTING_DURATIONS || s->type == SETTING_NUMBERS;
        bool is_number = s->type == SETTING_NUMBER || s->type == SETTING_NUMBERS;
        assert_true(is_number                 ? config_value_number(text, &most)
                    : s->type == SETTING_SIZE ? config_value_size(text, &most)
                                              : config_value_duration(text, &most));
        size_t size = is_list ? sizeof(uint32_t) : s->size;
        assert_true(size == 8 || most >> (8 * size) == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(listeners_and_their_addresses),
        cmocka_unit_test(each_setting_reaches_its_field),
        cmocka_unit_test(errors_of_statements),
        cmocka_unit_test(errors_of_values),
        cmocka_unit_test(errors_between_settings),
        cmocka_unit_test(what_may_stand_together),
        cmocka_unit_test(smarthosts_and_their_logins),
        cmocka_unit_test(the_file_of_the_design),
        cmocka_unit_test(tenants_and_their_defaults),
        cmocka_unit_test(sources_and_who_uses_them),
        cmocka_unit_test(an_error_fits_whatever_room_there_is),
        cmocka_unit_test(networks_contain_v4_v6_and_mapped),
        cmocka_unit_test(every_prefix_length_is_exact),
        cmocka_unit_test(rows_of_the_table_are_sound),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
