#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# swaks, with verification of the server's certificate.
set -e
[ "$MAIL_TLS" = implicit ] && tls=--tls-on-connect || tls=--tls
subject="=?utf-8?B?$(printf %s "$MAIL_SUBJECT" | base64 -w0)?="
exec swaks --server "$MAIL_HOST" --port "$MAIL_PORT" $tls --tls-verify --tls-ca-path "$MAIL_CA" \
    --auth --auth-user "$MAIL_USER" --auth-password "$MAIL_PASSWORD" \
    --from "$MAIL_FROM" --to "$MAIL_TO1,$MAIL_TO2" --header "Subject: $subject" \
    --attach-type "text/plain; charset=utf-8" --attach-body "$MAIL_BODY" \
    --attach-type application/octet-stream --attach-name a.bin --attach "@$MAIL_FILE" \
    --silent 2
