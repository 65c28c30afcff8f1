#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# swaks, with verification of the server's certificate.
set -e
[ "$MAIL_TLS" = implicit ] && tls=--tls-on-connect || tls=--tls
printf 'attached octets' >"$MAIL_DIR/a.bin"
exec swaks --server "$MAIL_HOST" --port "$MAIL_PORT" $tls --tls-verify --tls-ca-path "$MAIL_CA" \
    --auth --auth-user "$MAIL_USER" --auth-password "$MAIL_PASSWORD" \
    --from "$MAIL_FROM" --to "$MAIL_TO1,$MAIL_TO2" --header "Subject: =?utf-8?B?4piA?= swaks" \
    --header "Content-Type: text/plain; charset=utf-8" --body "Isi pesan: ä ö ü ☀" \
    --hide-all
