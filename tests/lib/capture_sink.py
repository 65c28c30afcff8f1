#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
capture_sink - a mail host that takes everything and prints a line or two for each message.

    capture_sink.py [--port PORT] [--port-file FILE] [--save FOLDER]

--port-file gets the port once it listens; --save keeps each message as FOLDER/NUMBER.eml.
"""
import argparse
import email
import email.policy
import os
import pathlib
import signal
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from lib.mx import Mx  # noqa: E402


class Sink:
    def __init__(self, save):
        self.save = save
        self.count = 0

    def take(self, message, content):
        self.count += 1
        head = email.message_from_bytes(content, policy=email.policy.compat32)
        subject = str(head.get("Subject", "(none)")).splitlines()[0][:60]
        trace = str(head.get("Received", ""))
        ident = trace.split(" id ", 1)[-1].split()[0].rstrip(";") if " id " in trace else "?"
        print(f"sink: message {self.count}: id {ident}, from <{message.sender}> to "
              f"{', '.join('<' + r + '>' for r in message.rcpts)}, {len(content)} octets, "
              f"subject: {subject}", flush=True)
        if self.save:
            (self.save / f"{self.count}.eml").write_bytes(content)


def main():
    parser = argparse.ArgumentParser(description="Takes all mail and prints what came.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", type=pathlib.Path)
    parser.add_argument("--save", type=pathlib.Path)
    options = parser.parse_args()
    if options.save:
        options.save.mkdir(parents=True, exist_ok=True)
    sink = Sink(options.save)
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    with Mx(port=options.port, keep_content=False, name="sink.example", on_message=sink.take) as mx:
        if options.port_file:
            new = options.port_file.with_suffix(".new")
            new.write_text(str(mx.port))
            os.replace(new, options.port_file)
        else:
            print(f"sink: listening on 127.0.0.1:{mx.port}", flush=True)
        while not end.wait(1):
            pass


if __name__ == "__main__":
    main()
