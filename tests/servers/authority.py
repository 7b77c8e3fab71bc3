"""A certificate authority that lives as long as one test run."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

from servers import need

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "7"]


class Authority:
    """An own CA in `directory`, and one certificate that it signed for loopback."""

    def __init__(self, directory: Path, names: list[str]) -> None:
        """Make the keys and certificates: `ca`, and `certificate` with `key` for `names` and 127.0.0.1."""
        directory.mkdir()
        self.ca, ca_key = directory / "ca.pem", directory / "ca.key"
        self.certificate, self.key = directory / "server.pem", directory / "server.key"
        constraints = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"]
        _request("mailbound test CA", self.ca, ca_key, constraints)
        alternatives = ",".join([*(f"DNS:{name}" for name in names), "IP:127.0.0.1"])
        issuer = ("-CA", str(self.ca), "-CAkey", str(ca_key))
        limits = ["basicConstraints=critical,CA:FALSE", f"subjectAltName={alternatives}"]
        _request(names[0], self.certificate, self.key, limits, issuer)

    def context(self) -> ssl.SSLContext:
        """Return a client's context that trusts this authority and nobody else."""
        return ssl.create_default_context(cafile=str(self.ca))


def _request(name: str, to: Path, key: Path, extensions: list[str], issuer: tuple[str, ...] = ()) -> None:
    added = [argument for extension in extensions for argument in ("-addext", extension)]
    files = ["-subj", f"/CN={name}", "-keyout", str(key), "-out", str(to)]
    command = [need("openssl"), "req", "-x509", *_KEY, *files, *added, *issuer]
    subprocess.run(command, check=True, capture_output=True)
