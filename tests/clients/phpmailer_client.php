<?php
// SPDX-License-Identifier: Apache-2.0
// PHPMailer, as its README shows it.
require 'libphp-phpmailer/autoload.php';
use PHPMailer\PHPMailer\PHPMailer;

$mail = new PHPMailer(true);
$mail->isSMTP();
$mail->Host = getenv('MAIL_HOST');
$mail->Port = (int) getenv('MAIL_PORT');
$mail->SMTPAuth = true;
$mail->Username = getenv('MAIL_USER');
$mail->Password = getenv('MAIL_PASSWORD');
$mail->SMTPSecure = getenv('MAIL_TLS') === 'implicit' ? PHPMailer::ENCRYPTION_SMTPS
                                                      : PHPMailer::ENCRYPTION_STARTTLS;
$mail->CharSet = PHPMailer::CHARSET_UTF8;
$mail->setFrom(getenv('MAIL_FROM'), 'Kilat');
$mail->addAddress(getenv('MAIL_TO1'));
$mail->addAddress(getenv('MAIL_TO2'));
$mail->Subject = getenv('MAIL_SUBJECT');
$mail->Body = getenv('MAIL_BODY');
if (getenv('MAIL_FILE'))
    $mail->addAttachment(getenv('MAIL_FILE'));
if (getenv('MAIL_KEY'))
    $mail->addCustomHeader('X-Idempotency-Key', getenv('MAIL_KEY'));
$mail->send();
