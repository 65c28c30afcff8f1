<?php
// SPDX-License-Identifier: Apache-2.0
// wp-content/mu-plugins/smtp.php of the site: the hook that SMTP plugins use.
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
