#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# msmtp as sendmail, with the configuration file of docs/clients/msmtp.md.
set -e
[ "$MAIL_TLS" = implicit ] && starttls=off || starttls=on
cat >"$MAIL_DIR/msmtprc" <<CONF
defaults
tls on
tls_trust_file $MAIL_CA
auth on

account kilat
host $MAIL_HOST
port $MAIL_PORT
tls_starttls $starttls
from $MAIL_FROM
user $MAIL_USER
password $MAIL_PASSWORD

account default : kilat
CONF
chmod 600 "$MAIL_DIR/msmtprc"
exec msmtp -C "$MAIL_DIR/msmtprc" "$MAIL_TO1" "$MAIL_TO2" <"$MAIL_EML"
