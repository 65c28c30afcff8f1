<?php
// SPDX-License-Identifier: Apache-2.0
// Symfony Mailer with a DSN, as in MAILER_DSN.
require 'Symfony/Component/Mailer/autoload.php';
use Symfony\Component\Mailer\Mailer;
use Symfony\Component\Mailer\Transport;
use Symfony\Component\Mime\Email;

$scheme = getenv('MAIL_TLS') === 'implicit' ? 'smtps' : 'smtp';
$dsn = sprintf('%s://%s:%s@%s:%s', $scheme, rawurlencode(getenv('MAIL_USER')),
               rawurlencode(getenv('MAIL_PASSWORD')), getenv('MAIL_HOST'), getenv('MAIL_PORT'));
$mailer = new Mailer(Transport::fromDsn($dsn));
$mail = (new Email())
    ->from(getenv('MAIL_FROM'))
    ->to(getenv('MAIL_TO1'), getenv('MAIL_TO2'))
    ->subject(getenv('MAIL_SUBJECT'))
    ->text(getenv('MAIL_BODY'));
if (getenv('MAIL_FILE'))
    $mail->attachFromPath(getenv('MAIL_FILE'));
if (getenv('MAIL_KEY'))
    $mail->getHeaders()->addTextHeader('X-Idempotency-Key', getenv('MAIL_KEY'));
$mailer->send($mail);
