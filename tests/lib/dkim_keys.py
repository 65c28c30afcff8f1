# SPDX-License-Identifier: Apache-2.0
"""dkim_keys - private keys made by openssl, and their records in DNS, made without our code."""
import base64
import subprocess


def make_key(path, kind="rsa", bits=2048):
    """Writes a PEM file; returns the TXT record."""
    options = ["-algorithm", kind] + (["-pkeyopt", f"rsa_keygen_bits:{bits}"] if kind == "rsa"
                                      else [])
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["openssl", "genpkey", *options, "-out", str(path)], check=True,
                   capture_output=True)
    der = subprocess.run(["openssl", "pkey", "-in", str(path), "-pubout", "-outform", "DER"],
                         check=True, capture_output=True).stdout
    octets = der if kind == "rsa" else der[-32:]
    return f"v=DKIM1; k={kind}; p=" + base64.b64encode(octets).decode()


def name_of(selector, domain):
    return f"{selector}._domainkey.{domain}"
