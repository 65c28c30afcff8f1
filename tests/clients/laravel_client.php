<?php
// SPDX-License-Identifier: Apache-2.0
// Laravel's mailer (illuminate/mail) with the `smtp` array of config/mail.php, outside of a whole
// site.
require 'Egulias/EmailValidator/autoload.php';
require 'Illuminate/Config/autoload.php';
require 'Illuminate/Events/autoload.php';
require 'Illuminate/Mail/autoload.php';
use Illuminate\Config\Repository;
use Illuminate\Container\Container;
use Illuminate\Events\Dispatcher;
use Illuminate\Mail\MailManager;

$app = new Container();
Container::setInstance($app);
$app->instance('config', new Repository(['mail' => [
    'default' => 'smtp',
    'mailers' => ['smtp' => [
        'transport' => 'smtp',
        'host' => getenv('MAIL_HOST'),
        'port' => (int) getenv('MAIL_PORT'),
        'encryption' => getenv('MAIL_TLS') === 'implicit' ? 'ssl' : 'tls',
        'username' => getenv('MAIL_USER'),
        'password' => getenv('MAIL_PASSWORD'),
    ]],
    'from' => ['address' => getenv('MAIL_FROM'), 'name' => 'Kilat'],
]]));
$app->instance('events', new Dispatcher($app));
$app->instance('view', new class implements Illuminate\Contracts\View\Factory {
    public function exists($view) { return false; }
    public function file($path, $data = [], $mergeData = []) {}
    public function make($view, $data = [], $mergeData = []) {}
    public function share($key, $value = null) {}
    public function composer($views, $callback) {}
    public function creator($views, $callback) {}
    public function addNamespace($namespace, $hints) {}
    public function replaceNamespace($namespace, $hints) {}
});
(new MailManager($app))->mailer()->raw(getenv('MAIL_BODY'), function ($message) {
    $message->to([getenv('MAIL_TO1'), getenv('MAIL_TO2')])
            ->subject(getenv('MAIL_SUBJECT'));
    if (getenv('MAIL_FILE'))
        $message->attach(getenv('MAIL_FILE'));
    if (getenv('MAIL_KEY'))
        $message->getSwiftMessage()->getHeaders()->addTextHeader('X-Idempotency-Key',
                                                                 getenv('MAIL_KEY'));
});
