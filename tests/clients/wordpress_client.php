<?php
// SPDX-License-Identifier: Apache-2.0
// wp_mail() of a whole WordPress, Debian's, with its database. `install` makes the site first.
$site = getenv('SITE');
$_SERVER['HTTP_HOST'] = 'sender.test';
define('DB_NAME', 'wordpress');
define('DB_USER', 'root');
define('DB_PASSWORD', '');
define('DB_HOST', "localhost:$site/s");
define('DB_CHARSET', 'utf8mb4');
define('DB_COLLATE', '');
define('WP_CONTENT_DIR', "$site/wp-content");
define('ABSPATH', '/usr/share/wordpress/');
define('WP_HTTP_BLOCK_EXTERNAL', true);
$table_prefix = 'wp_';

if (($argv[1] ?? '') === 'install') {
    (new mysqli('localhost', 'root', '', '', 0, "$site/s"))->query('CREATE DATABASE wordpress');
    define('WP_INSTALLING', true);
    require ABSPATH . 'wp-settings.php';
    require ABSPATH . 'wp-admin/includes/upgrade.php';
    // Its mail to the new administrator is not what we came for.
    add_filter('pre_wp_mail', fn() => true);
    wp_install('Kilat', 'admin', 'admin@sender.test', false, '', 'password');
    touch("$site/installed");
    exit;
}
require ABSPATH . 'wp-settings.php';
add_action('wp_mail_failed', function ($error) {
    echo $error->get_error_message(), "\n";
});
$key = getenv('MAIL_KEY') ? 'X-Idempotency-Key: ' . getenv('MAIL_KEY') : '';
$files = getenv('MAIL_FILE') ? [getenv('MAIL_FILE')] : [];
exit(wp_mail([getenv('MAIL_TO1'), getenv('MAIL_TO2')], getenv('MAIL_SUBJECT'),
             getenv('MAIL_BODY'), $key, $files) ? 0 : 1);
