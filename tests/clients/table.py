# SPDX-License-Identifier: Apache-2.0
"""
table - the clients that are tried: how each is started, what it needs, and whether ./test runs it.

    name       as in docs/clients/<name>.md
    command    run in tests/clients; its environment is what send() in tests/clients/scene.py sets
    packages   Debian's; `small` ones are installed for ./test, the others by tests/clients/run
    modes      starttls, implicit
"""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Client:
    name: str
    command: tuple
    packages: tuple = ()
    small: bool = False
    modes: tuple = ("starttls", "implicit")
    prepare: tuple = ()         # once, before; {dir} is a folder for what it makes
    subject: str = ""           # a word of the subject


JAVA_CLASSPATH = "/usr/share/java/javax.mail.jar:/usr/share/java/javax.activation.jar:{dir}"

CLIENTS = [
    Client("smtplib", ("/usr/bin/python3", "smtplib_client.py"), ("python3",), True),
    Client("swaks", ("./swaks_client.sh",), ("swaks", "libnet-ssleay-perl"), True),
    Client("msmtp", ("./msmtp_client.sh",), ("msmtp",), True),
    Client("curl", ("./curl_client.sh",), ("curl",), True),
    Client("gmail", ("/usr/bin/python3", "gmail_client.py"), ("python3",), True),
    Client("exim", ("./exim_client.sh",), ("exim4-daemon-light",), True),
    Client("phpmailer", ("php", "phpmailer_client.php"), ("php-cli", "libphp-phpmailer")),
    Client("symfony", ("php", "symfony_client.php"), ("php-cli", "php-symfony-mailer")),
    Client("laravel", ("php", "laravel_client.php"), ("php-cli", "php-illuminate-mail", "php-illuminate-config",
                                                       "php-illuminate-events", "php-email-validator")),
    Client("wordpress", ("php", "wordpress_client.php"), ("php-cli", "wordpress")),
    Client("nodemailer", ("node", "nodemailer_client.js"), ("nodejs", "node-nodemailer")),
    Client("django", ("/usr/bin/python3", "django_client.py"), ("python3-django",)),
    Client("rails", ("ruby", "rails_client.rb"), ("ruby-actionmailer",)),
    Client("javamail", ("java", "-cp", JAVA_CLASSPATH, "JavaMailClient"),
           ("openjdk-17-jdk-headless", "libmail-java"),
           prepare=("javac", "-cp", JAVA_CLASSPATH, "-d", "{dir}", "JavaMailClient.java")),
    Client("go", ("{dir}/go_client",), ("golang-go",),
           prepare=("go", "build", "-o", "{dir}/go_client", "go_client.go")),
]
