<?php
// SPDX-License-Identifier: Apache-2.0
// wp_mail() of Debian's wordpress, with the phpmailer_init hook that SMTP plugins use. The functions
// of WordPress are loaded without a database: no site is needed to send a mail.
define('ABSPATH', '/usr/share/wordpress/');
define('WPINC', 'wp-includes');
define('WP_CONTENT_DIR', ABSPATH . 'wp-content');
define('WP_DEBUG', false);
require ABSPATH . WPINC . '/class-wp-error.php';
require ABSPATH . WPINC . '/plugin.php';
require ABSPATH . WPINC . '/load.php';
require ABSPATH . WPINC . '/functions.php';
require ABSPATH . WPINC . '/formatting.php';
require ABSPATH . WPINC . '/http.php';
require ABSPATH . WPINC . '/pluggable.php';
// What a site would read from its database.
add_filter('pre_option_blog_charset', fn() => 'UTF-8');
function network_home_url() { return 'https://www.' . substr(strrchr(getenv('MAIL_FROM'), '@'), 1); }
function get_bloginfo($show = '') { return $show === 'charset' ? 'UTF-8' : 'Kilat'; }
function __($text, $domain = 'default') { return $text; }

add_action('phpmailer_init', function ($mail) {
    $mail->isSMTP();
    $mail->Host = getenv('MAIL_HOST');
    $mail->Port = (int) getenv('MAIL_PORT');
    $mail->SMTPAuth = true;
    $mail->Username = getenv('MAIL_USER');
    $mail->Password = getenv('MAIL_PASSWORD');
    $mail->SMTPSecure = getenv('MAIL_TLS') === 'implicit' ? 'ssl' : 'tls';
});
add_filter('wp_mail_from', fn() => getenv('MAIL_FROM'));
add_action('wp_mail_failed', function ($error) {
    fwrite(STDERR, $error->get_error_message() . "\n");
});
file_put_contents(getenv('MAIL_DIR') . '/a.bin', 'attached octets');
$ok = wp_mail([getenv('MAIL_TO1'), getenv('MAIL_TO2')], 'Selamat pagi ☀ WordPress',
              "Isi pesan: ä ö ü ☀\n", '', [getenv('MAIL_DIR') . '/a.bin']);
exit($ok ? 0 : 1);
