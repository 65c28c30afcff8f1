# SPDX-License-Identifier: Apache-2.0
"""
certs - an authority of the test's own, and what it signs. By the openssl program; nothing is kept.

    ca = Authority(folder)
    cert, key = ca.issue("mx.test", kind="ec")         # files, PEM
    context = ca.context()                             # a client that trusts it
"""
import pathlib
import ssl
import subprocess


class Authority:
    def __init__(self, folder, name="Kilat test authority"):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cert, self.key = self.folder / "ca.pem", self.folder / "ca.key"
        self.serial = 1
        _openssl("req", "-x509", *_new_key("ec"), "-nodes", "-keyout", self.key, "-out", self.cert,
                 "-days", "2", "-subj", f"/CN={name}",
                 "-addext", "basicConstraints=critical,CA:TRUE",
                 "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def issue(self, *names, kind="ec", days=2, email=None, file=None):
        """(certificate, key) for these host names; kind ec (P-256) or rsa (2048)."""
        stem = file or f"{names[0].replace('*', 'star')}.{kind}"
        cert, key, request = (self.folder / f"{stem}.{end}" for end in ("pem", "key", "csr"))
        self.serial += 1
        # A fresh file each time: a gateway that watches must never read half of one.
        new = self.folder / f"{stem}.new"
        _openssl("req", *_new_key(kind), "-nodes", "-keyout", key, "-out", request, "-subj",
                 f"/CN={names[0]}")
        alt = ",".join([f"DNS:{n}" for n in names] + ([f"email:{email}"] if email else []) +
                       ["IP:127.0.0.1"])
        extensions = self.folder / f"{stem}.ext"
        extensions.write_text(f"subjectAltName={alt}\n")
        _openssl("x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self.key,
                 "-set_serial", self.serial, "-days", days, "-extfile", extensions, "-out", new)
        new.rename(cert)
        return cert, key

    def context(self, **changes):
        """A client's: verifies against this authority."""
        context = ssl.create_default_context(cafile=str(self.cert))
        for name, value in changes.items():
            setattr(context, name, value)
        return context


def _new_key(kind):
    if kind == "ec":
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    return ["-newkey", "rsa:2048"]


def _openssl(*args):
    done = subprocess.run(["openssl", *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
