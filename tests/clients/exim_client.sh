#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# An account on a cPanel server: Exim hands its mail to Kilat as a smarthost, with AUTH. One Exim is
# run for one message, with a configuration of its own and nothing of the system's.
set -e
[ "$MAIL_TLS" = implicit ] && protocol="protocol = smtps" || protocol=
exim=$(readlink -f "$(command -v "${EXIM:-exim4}")")
# Exim insists on the user that its package makes; here it may be unpacked only. In a mount
# namespace of our own there is one. Who is not root becomes so for the mounts, by a user namespace,
# and is himself again in another.
case $STAGE in
"")
    [ "$(id -u)" = 0 ] && uid=65534 gid=65534 map= || { uid=$(id -u) gid=$(id -g) map=-r; }
    rm -rf "$MAIL_DIR/exim" && mkdir "$MAIL_DIR/exim"
    chmod 755 "$(dirname "$MAIL_DIR")" "$MAIL_DIR" "$(dirname "$MAIL_CA")"
    chown "$uid:$gid" "$MAIL_DIR/exim"
    { cat /etc/passwd; echo "Debian-exim:x:$uid:$gid::/:/bin/false"; } >"$MAIL_DIR/passwd"
    { cat /etc/group; echo "Debian-exim:x:$gid:"; } >"$MAIL_DIR/group"
    export uid gid map
    id Debian-exim >/dev/null 2>&1 || STAGE=mount exec unshare -m $map "$0"
    ;;
mount)
    mount --bind "$MAIL_DIR/passwd" /etc/passwd
    mount --bind "$MAIL_DIR/group" /etc/group
    [ -z "$map" ] || STAGE=send exec unshare -U --map-user="$uid" --map-group="$gid" "$0"
    ;;
esac
# A copy: Exim starts itself anew as that user, who may not look into the checkout.
cp "$exim" "$MAIL_DIR/exim4" && chmod 755 "$MAIL_DIR/exim4" && exim=$MAIL_DIR/exim4
cat >"$MAIL_DIR/exim.conf" <<CONF
primary_hostname = cpanel.test
exim_path = $exim
spool_directory = $MAIL_DIR/exim
log_file_path = $MAIL_DIR/exim/%slog
exim_user = $uid
exim_group = $gid
never_users =
trusted_users = $(id -un)
keep_environment = *
tls_advertise_hosts =
begin routers
smarthost:
  driver = manualroute
  route_list = * $MAIL_HOST::$MAIL_PORT byname
  self = send
  host_find_failed = fail
  transport = kilat
begin transports
kilat:
  driver = smtp
  port = $MAIL_PORT
  $protocol
  hosts_require_auth = *
  hosts_require_tls = *
  tls_verify_hosts = *
  tls_verify_certificates = $MAIL_CA
  tls_sni = $MAIL_HOST
begin retry
* * F,1m,1m
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  client_send = ^$MAIL_USER^$MAIL_PASSWORD
CONF
$exim -C "$MAIL_DIR/exim.conf" -odf -oi -f "$MAIL_FROM" "$MAIL_TO1" "$MAIL_TO2" <"$MAIL_EML"
grep -q ' Completed' "$MAIL_DIR/exim/mainlog" || { cat "$MAIL_DIR/exim/mainlog" >&2; exit 1; }
