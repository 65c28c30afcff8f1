#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# curl: smtps:// is TLS from the start; --ssl-reqd demands STARTTLS.
set -e
[ "$MAIL_TLS" = implicit ] && scheme=smtps || scheme=smtp
exec curl -sS --ssl-reqd --cacert "$MAIL_CA" --url "$scheme://$MAIL_HOST:$MAIL_PORT/client.test" \
    --user "$MAIL_USER:$MAIL_PASSWORD" --mail-from "$MAIL_FROM" --mail-rcpt "$MAIL_TO1" \
    --mail-rcpt "$MAIL_TO2" --crlf --upload-file "$MAIL_EML"
