/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * tls - BoringSSL for connections: certificates, tickets, and one session per connection as a codec
 * (ciphertext in, plaintext out, and back) that makes no system calls.
 *
 * tls_store: what all listeners present. Made once, read by all workers, loaded again when the
 * files change; sessions that exist keep what they began with. Several certificates: the client's
 * server name and the signature algorithms it offers choose (ECDSA before RSA); an unknown name
 * gets the first (P-129). TLS 1.2 and 1.3, AEAD suites with forward secrecy only (P-128), no
 * renegotiation, no early data (P-134), ALPN "smtp" or none (P-130).
 *
 * Tickets: keys are derived from a secret and the hour (HKDF), so nodes with the same secret resume
 * each other's sessions without talking; a ticket carries no identity of ours (P-133).
 *
 * Life: tls_store_new (main thread) -> tls_session_new per connection -> conn_start_tls takes it.
 */
#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/gather.h"
#include "core/relay/tlsa.h"

struct tls_store;

/* Borrows cfg. BAD or SYSTEM: error says which file and what to do. */
NODISCARD enum status tls_store_new(const struct config *cfg, struct tls_store **out,
                                    struct buf *error);
void tls_store_free(struct tls_store *s); /* after the last session; NULL is harmless */
/* Reads all files again. On failure what was loaded stays. Not from two threads at once. */
NODISCARD enum status tls_store_reload(struct tls_store *s, struct buf *error);
/* A file differs (time, size, inode) from what was loaded or last tried. Not while another thread
 * reloads. */
bool tls_store_has_changed(const struct tls_store *s);
/* notAfter of the certificate that expires first, chains included, wall ms: for a metric and a
 * warning. */
int64_t tls_store_expires_ms(const struct tls_store *s);

struct tls_session; /* one connection's; about 3 KiB when idle */

/* As server. Any thread. */
struct tls_session *tls_session_new(struct tls_store *s);
/*
 * As client, for outbound connections. A tls_client belongs to one thread: it remembers the last
 * session with each of up to TLS_CLIENT_HOSTS hosts, so that the next connection resumes it, and
 * the authorities it has read. Whom the handshake was with is nobody's concern until
 * tls_client_verify is asked, afterwards, resumed or not.
 */
#define TLS_CLIENT_HOSTS 512
struct tls_client;
struct tls_client *tls_client_new(void);
void tls_client_free(struct tls_client *client); /* after its sessions; NULL is harmless */
/* The ClientHello is in its output at once. server_name goes as SNI, may be NULL; host names the
 * peer for resumption (copied), such as "mx.example.org:25". */
struct tls_session *tls_session_new_client(struct tls_client *client, const char *server_name,
                                           const char *host);
/* What a certificate turned out to be; why_not says more to people. */
enum tls_trust {
    TLS_TRUSTED,
    TLS_OTHER_NAME, /* it is good, but for somebody else */
    TLS_EXPIRED,    /* it, or one that signed it, is out of date */
    TLS_UNTRUSTED,  /* nobody we know has signed it */
    TLS_OTHER_KEY,  /* it is not what the TLSA records say */
    TLS_UNKNOWN,    /* there is none, or nothing to check it by */
};
/* After the handshake: TRUSTED when the peer's certificate is signed by an authority of ca_file
 * (NULL: the system's) and good for one of these names, host names or addresses. Otherwise why, of
 * `cap` octets, says what is wrong, for the log and the sender. */
enum tls_trust tls_client_verify(struct tls_client *client, const struct tls_session *t,
                                 const char *ca_file, const char *const *names, size_t name_count,
                                 char *why, size_t cap);
/* The same by DANE (RFC 7672 3): the certificate, or one that signed it, is what a TLSA record
 * says. Names count for the latter only. */
enum tls_trust tls_client_verify_tlsa(const struct tls_session *t, const struct tlsa_set *tlsa,
                                      const char *const *names, size_t name_count, char *why,
                                      size_t cap);
void tls_session_free(struct tls_session *t); /* NULL is harmless */

enum tls_result {
    TLS_DONE,  /* the handshake is over; or octets were decrypted */
    TLS_MORE,  /* needs more ciphertext */
    TLS_ENDED, /* the peer said close_notify */
    TLS_FAILED /* fatal; tls_session_error says why; an alert may be in the output */
};

/* Gives ciphertext that must stay in place until tls_session_unread is 0 or the next call. */
void tls_session_feed(struct tls_session *t, struct slice ciphertext);
size_t tls_session_unread(const struct tls_session *t); /* octets of it not taken yet */
/* One step of the handshake. */
enum tls_result tls_session_handshake(struct tls_session *t);
/* Decrypts into out; *len is set with TLS_DONE. */
enum tls_result tls_session_read(struct tls_session *t, char *out, size_t cap, size_t *len);
/* Encrypts: ciphertext is appended to the session's output. */
NODISCARD enum status tls_session_write(struct tls_session *t, struct slice plaintext);
void tls_session_shutdown(struct tls_session *t); /* close_notify into the output (P-136) */
/* The ciphertext to send: moved to the end of `out` (copied), and gone from the session. */
void tls_session_take_output(struct tls_session *t, struct gather *out);
bool tls_session_has_output(const struct tls_session *t);

/* The handshake is over and the peer goes on without this output: a TLS 1.3 server's tickets. */
bool tls_session_output_can_wait(const struct tls_session *t);
/* Until it is called with NULL, what the session says is appended to out at once, without its own
 * output in between. What was in the output before stays there. */
void tls_session_divert(struct tls_session *t, struct gather *out);

/* What was agreed; valid after the handshake. */
struct tls_info {
    const char *version; /* "TLSv1.3"; static */
    const char *cipher;  /* "TLS_AES_128_GCM_SHA256"; static */
    bool is_resumed;
    const char *client_name; /* of a verified client certificate: its first e-mail, else DNS name,
                                or its common name; NULL: none was shown. Owned by the session. */
};
void tls_session_info(const struct tls_session *t, struct tls_info *out);

/* Channel binding: tls-exporter (RFC 9266) on TLS 1.3, tls-unique on 1.2 (P-150). Returns its
 * length, 0 when there is none. *name becomes "tls-exporter" or "tls-unique". */
#define TLS_BINDING_MAX 64
size_t tls_session_binding(const struct tls_session *t, char out[TLS_BINDING_MAX],
                           const char **name);
/* Static or the session's; for the log. "" when nothing is wrong. */
const char *tls_session_error(const struct tls_session *t);
