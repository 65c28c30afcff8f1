#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# curl: smtps:// is TLS from the start; --ssl-reqd demands STARTTLS.
set -e
[ "$MAIL_TLS" = implicit ] && url=smtps://$MAIL_HOST:$MAIL_PORT || url=smtp://$MAIL_HOST:$MAIL_PORT
printf 'From: %s\r\nTo: %s, %s\r\nSubject: =?utf-8?B?4piA?= curl\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nIsi pesan: ä ö ü ☀\r\n' \
    "$MAIL_FROM" "$MAIL_TO1" "$MAIL_TO2" >"$MAIL_DIR/mail.eml"
exec curl -sS --ssl-reqd --cacert "$MAIL_CA" --url "$url/client.test" --user "$MAIL_USER:$MAIL_PASSWORD" \
    --mail-from "$MAIL_FROM" --mail-rcpt "$MAIL_TO1" --mail-rcpt "$MAIL_TO2" \
    --upload-file "$MAIL_DIR/mail.eml"
