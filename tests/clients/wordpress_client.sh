#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A WordPress site with a database of its own: MariaDB on a socket, for as long as this runs.
set -e
site=$MAIL_DIR/wordpress
user=$(id -un)
if [ ! -d "$site" ]; then
    mkdir -p "$site/wp-content/mu-plugins"
    cp wordpress_smtp.php "$site/wp-content/mu-plugins/smtp.php"
    mariadb-install-db --no-defaults --user="$user" --datadir="$site/db" \
        --auth-root-authentication-method=normal --skip-test-db >"$site/install.log" 2>&1 ||
        { cat "$site/install.log"; exit 1; }
fi
export SITE="$site"
/usr/sbin/mariadbd --no-defaults --user="$user" --datadir="$site/db" --socket="$site/s" \
    --skip-networking --pid-file="$site/pid" >"$site/db.log" 2>&1 &
database=$!
trap 'kill $database; wait $database' EXIT
for _ in $(seq 300); do
    [ -S "$site/s" ] && break
    sleep 0.1
done
[ -e "$site/installed" ] || php wordpress_client.php install
php wordpress_client.php
