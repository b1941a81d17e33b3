"""A self-signed certificate for tests of TLS, with its private key, which is thereby public.

TEST KEY: it protects nothing, as it is in every copy of this package; a client that trusts it for anything but a local
test trusts everyone. It names `localhost`, 127.0.0.1 and ::1, and is valid from 2020 to the end of 2119.

The standard library cannot make certificates, so this one was made once, with openssl's format and P-256.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from pathlib import Path

__all__ = ["SELF_SIGNED_CERTIFICATE", "SELF_SIGNED_TEST_KEY", "self_signed_context"]

SELF_SIGNED_CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIICQDCCAeWgAwIBAgIUfeoHlEYAdPu62nGcuiPnmSrZIBswCgYIKoZIzj0EAwIw
SzE1MDMGA1UECgwsbGxtYnJpZGdlIHRlc3QgY2VydGlmaWNhdGUsIHRydXN0IGl0
IG5vd2hlcmUxEjAQBgNVBAMMCWxvY2FsaG9zdDAgFw0yMDAxMDEwMDAwMDBaGA8y
MTIwMDEwMTAwMDAwMFowSzE1MDMGA1UECgwsbGxtYnJpZGdlIHRlc3QgY2VydGlm
aWNhdGUsIHRydXN0IGl0IG5vd2hlcmUxEjAQBgNVBAMMCWxvY2FsaG9zdDBZMBMG
ByqGSM49AgEGCCqGSM49AwEHA0IABOFBxIkWWZtC2TvgpvS2zAkETnzhUJolUIGH
uBM1khDiqdMR37NQDMRWHHnL1yRVa66w4l/JVBAN3BnMK2OzUj6jgaQwgaEwLAYD
VR0RBCUwI4IJbG9jYWxob3N0hwR/AAABhxAAAAAAAAAAAAAAAAAAAAABMAwGA1Ud
EwEB/wQCMAAwDgYDVR0PAQH/BAQDAgeAMBMGA1UdJQQMMAoGCCsGAQUFBwMBMB0G
A1UdDgQWBBQpy/HbttSi0T9kNt/I5UZTkupFKjAfBgNVHSMEGDAWgBQpy/HbttSi
0T9kNt/I5UZTkupFKjAKBggqhkjOPQQDAgNJADBGAiEAkn7pt4mkuymg+1FCL5i+
d3ff2qAvuB1MZjVdTkwDwkMCIQClVLhP6Ap3u+0eMX6+5exhtKl9BmvQki/kj2e/
NrEEGg==
-----END CERTIFICATE-----
"""
"""In PEM. Written to a file, it is the CA (`verify=`) for a client of such a server."""

SELF_SIGNED_TEST_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgYRn738Bxhcwg2HdV
93ApqK3HIOO5Y86XDY0KFufUaxOhRANCAAThQcSJFlmbQtk74Kb0tswJBE584VCa
JVCBh7gTNZIQ4qnTEd+zUAzEVhx5y9ckVWuusOJfyVQQDdwZzCtjs1I+
-----END PRIVATE KEY-----
"""
"""In PEM. A TEST KEY, which is public."""


def self_signed_context() -> ssl.SSLContext:
    """The `ssl_context` that makes an `LLMServer` speak TLS with that certificate.

    Example:
        >>> from llmbridge.testing import LLMServer
        >>> with LLMServer(ssl_context=self_signed_context()) as server:
        ...     server.base_url("openai").partition("://")[0]
        'https'
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:  # load_cert_chain() reads files only
        path = Path(folder, "test.pem")
        path.touch(mode=0o600)
        path.write_text(SELF_SIGNED_TEST_KEY + SELF_SIGNED_CERTIFICATE, encoding="ascii")
        context.load_cert_chain(os.fspath(path))
    return context
