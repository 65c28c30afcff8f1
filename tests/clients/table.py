# SPDX-License-Identifier: Apache-2.0
"""
table - the clients that are tried: how each is started, what it needs, and whether ./test runs it.
To add one: a row, a program beside it, a page in docs/clients/.
"""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Client:
    name: str
    command: tuple              # run in tests/clients; its environment: Scene.environment()
    packages: tuple = ()        # Debian's
    small: bool = False         # installed for ./test; the packages of others by tests/clients/run
    prepare: tuple = ()         # a command before the first mail
    messages: int = 1           # so many in one run, over one connection
    sets_fields: bool = False   # it can send an X-Idempotency-Key
    verifies: bool = True       # it refuses a certificate of an unknown authority


JAVA_CLASSPATH = "/usr/share/java/javax.mail.jar:/usr/share/java/javax.activation.jar:{dir}"
PYTHON = "/usr/bin/python3"

CLIENTS = [
    Client("smtplib", (PYTHON, "smtplib_client.py"), ("python3",), small=True, sets_fields=True),
    Client("swaks", ("./swaks_client.sh",), ("swaks", "libnet-ssleay-perl"), small=True),
    Client("msmtp", ("./msmtp_client.sh",), ("msmtp",), small=True),
    Client("curl", ("./curl_client.sh",), ("curl",), small=True),
    Client("gmail", (PYTHON, "gmail_client.py"), ("python3",), small=True),
    Client("gmail-data", (PYTHON, "gmail_client.py", "--data"), ("python3",), small=True),
    Client("exim", ("./exim_client.sh",), ("exim4-daemon-light",), small=True),
    Client("phpmailer", ("php", "phpmailer_client.php"), ("php-cli", "libphp-phpmailer"),
           sets_fields=True),
    Client("symfony", ("php", "symfony_client.php"), ("php-cli", "php-symfony-mailer"),
           sets_fields=True),
    Client("laravel", ("php", "laravel_client.php"),
           ("php-cli", "php-illuminate-mail", "php-illuminate-config", "php-illuminate-events",
            "php-email-validator"), sets_fields=True),
    Client("wordpress", ("./wordpress_client.sh",),
           ("php-cli", "php-mysql", "wordpress", "mariadb-server-core"), sets_fields=True),
    Client("nodemailer", ("node", "nodemailer_client.js"), ("nodejs", "node-nodemailer"),
           messages=3, sets_fields=True),
    # Django before 4.2 calls smtplib without a context, which verifies nothing.
    Client("django", (PYTHON, "django_client.py"), ("python3-django",), verifies=False,
           sets_fields=True),
    Client("rails", ("ruby", "rails_client.rb"), ("ruby-actionmailer",), sets_fields=True),
    Client("javamail", ("java", "-cp", JAVA_CLASSPATH, "JavaMailClient"),
           ("openjdk-17-jdk-headless", "libmail-java"),
           prepare=("javac", "-encoding", "UTF-8", "-cp", JAVA_CLASSPATH, "-d", "{dir}",
                    "JavaMailClient.java"), sets_fields=True),
    Client("go", ("{dir}/go_client",), ("golang-go",),
           prepare=("go", "build", "-o", "{dir}/go_client", "go_client.go")),
]
