# SPDX-License-Identifier: Apache-2.0
"""
demo - what ./run does once Kilat is built: a sink, a gateway with its own Redis that relays to it,
and instructions; or, with --once, one message from end to end.
"""
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from lib.kilat import Kilat, send, smarthost  # noqa: E402
from lib.net import end_with_us, queue_id, wait_until  # noqa: E402

ONCE_S = 60     # most that --once may take after the build

CONTENT = b"""From: Shop <shop@sender.example>\r
To: customer@rcpt.example\r
Subject: Your receipt\r
\r
Thank you for your order.\r
"""

HELP = """
Kilat is ready.
    submit to     127.0.0.1:{port}   (SMTP, from this machine only)
    admin port    http://127.0.0.1:{admin}/metrics, /healthz, /readyz
    its files     {folder}, removed at the end
    the log       {log}
All mail goes to a capture sink, which prints it here. Try one of these in another terminal:
{examples}
    build/kilat queue -c {config} stats
Ctrl-C ends it.
"""

EXAMPLES = [
    ("swaks", "swaks --server 127.0.0.1:{port} --from shop@sender.example --to you@rcpt.example"),
    ("curl", "printf 'From: shop@sender.example\\nSubject: Hello\\n\\nHi.\\n' | curl -s --crlf "
             "--mail-from shop@sender.example --mail-rcpt you@rcpt.example -T - "
             "smtp://127.0.0.1:{port}"),
    ("python3", "python3 -c 'import smtplib; smtplib.SMTP(\"127.0.0.1\", {port}).sendmail("
                "\"shop@sender.example\", \"you@rcpt.example\", "
                "\"From: shop@sender.example\\nSubject: Hello\\n\\nHi.\\n\")'"),
]


def examples(port):
    """Commands this machine has; python3 is always there."""
    return "\n".join("    " + text.format(port=port) for name, text in EXAMPLES
                     if shutil.which(name))


class Sink:
    """The capture sink as a process of its own; its lines go to our standard output or a file."""

    def __init__(self, folder, out=None):
        self.port_file = folder / "sink.port"
        program = pathlib.Path(__file__).with_name("capture_sink.py")
        self.process = subprocess.Popen([sys.executable, str(program), "--port-file",
                                         str(self.port_file)], stdout=out, start_new_session=True,
                                        preexec_fn=end_with_us)
        wait_until(self.port_file.exists, 15, "the capture sink")
        self.port = int(self.port_file.read_text())

    def stop(self):
        self.process.terminate()
        self.process.wait(15)


def gateway(folder, sink):
    return Kilat(folder, build="build", hostname="gateway.example", workers=0,
                 route={"*": smarthost(sink.port)})


def once(folder):
    sink_log = folder / "sink.log"
    with open(sink_log, "w") as out:
        sink = Sink(folder, out)
    try:
        with gateway(folder, sink) as kilat:
            started = time.monotonic()
            reply = send(kilat.port, CONTENT, "shop@sender.example", ["customer@rcpt.example"])
            ident = queue_id(reply)
            print(f"accepted:  250 {reply}")
            done = kilat.wait_event("relay.done", timeout=20, id=ident)
            wait_until(lambda: ident in sink_log.read_text(), 10,
                       lambda: f"message {ident} at the sink; it has\n{sink_log.read_text()}")
            print(f"relayed:   {done['code']} from {done['host']}, "
                  f"{(time.monotonic() - started) * 1000:.0f} ms after it was submitted")
            print(f"received:  {sink_log.read_text().strip()}")
    finally:
        sink.stop()


def serve(folder):
    sink = Sink(folder)
    try:
        with gateway(folder, sink) as kilat:
            print(HELP.format(port=kilat.port, admin=kilat.admin_port, folder=folder,
                              log=kilat.log_path, config=kilat.config,
                              examples=examples(kilat.port)), flush=True)
            while kilat.process.poll() is None and sink.process.poll() is None:
                time.sleep(0.2)
            ended = "sink" if kilat.process.poll() is None else "gateway"
            raise AssertionError(f"the {ended} ended by itself")
    finally:
        sink.stop()


def interrupt(*_):
    raise KeyboardInterrupt


def main():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kilat-run."))
    try:
        if "--once" in sys.argv[1:]:
            signal.signal(signal.SIGALRM, too_long)
            signal.alarm(ONCE_S)
            once(folder)
        else:
            serve(folder)
        return 0
    except KeyboardInterrupt:
        print("\nended", file=sys.stderr)
        return 0 if "--once" not in sys.argv[1:] else 130
    except (AssertionError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def too_long(*_):
    raise AssertionError(f"not done within {ONCE_S} s")


if __name__ == "__main__":
    os.environ.pop("KILAT_BUILD", None)
    sys.exit(main())
