"""A private Dovecot whose accounts have OAuth 2 tokens and no passwords, and the endpoint that vouches for them."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import tempfile
import threading
import urllib.parse
from pathlib import Path
from typing import Self

import jinja2

from servers import need, need_root, processes

_OWNER = "mail"
_INTROSPECTION = """\
introspection_mode = post
introspection_url = http://127.0.0.1:{port}/
username_attribute = username
active_attribute = active
active_value = true
"""


class TokenDovecot:
    """The server, as a context manager; `tokens` says whose each valid token is, and may be changed at any time."""

    def __init__(self) -> None:
        """Start nothing yet; no token is valid."""
        self.tokens: dict[str, str] = {}
        self.ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start the server and its endpoint, and return when both protocols are there. Raises NotStartedError."""
        need_root()
        self._home = Path(tempfile.mkdtemp(prefix="tokens-", dir="/tmp"))
        self._home.chmod(0o755)
        self._endpoint = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _introspection(self.tokens))
        threading.Thread(target=self._endpoint.serve_forever, name="introspection", daemon=True).start()
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop both, and remove all they wrote."""
        if self._process is not None:
            processes.stop(self._process)
        self._endpoint.shutdown()
        self._endpoint.server_close()
        shutil.rmtree(self._home)

    def log(self) -> str:
        """Return what Dovecot has logged, to be read when a test fails."""
        return (self._home / "dovecot.log").read_text(errors="replace")

    def deliver(self, user: str, raw: bytes) -> None:
        """Put a mail into the mailbox of `user`."""
        home = self._home / "mail" / user
        for folder in ("tmp", "new", "cur"):
            (home / "Maildir" / folder).mkdir(parents=True, exist_ok=True)
        (home / "Maildir/new/1.planted").write_bytes(raw)
        for path in (home, *home.rglob("*")):
            shutil.chown(path, _OWNER, _OWNER)

    def _start(self) -> None:
        self.ports = processes.free_ports(["imap", "pop3"])
        (self._home / "mail").mkdir()
        shutil.chown(self._home / "mail", _OWNER, _OWNER)
        port = self._endpoint.server_address[1]
        (self._home / "introspection.conf").write_text(_INTROSPECTION.format(port=port))
        template = (Path(__file__).parent / "dovecot/tokens-2.3.conf").read_text()
        config = jinja2.Template(template).render(home=self._home, owner=_OWNER, **self.ports)
        (self._home / "dovecot.conf").write_text(config)
        log = self._home / "output"
        command = [need("dovecot"), "-F", "-c", str(self._home / "dovecot.conf")]
        self._process = processes.start(command, log=log)
        for port in self.ports.values():
            processes.await_port(port, self._process, log=log)


def _introspection(tokens: dict[str, str]) -> type[http.server.BaseHTTPRequestHandler]:
    """Return what answers whether a token is active, and whose it is (RFC 7662 section 2.2)."""

    class Introspection(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            (token,) = urllib.parse.parse_qs(body)["token"]
            known = {"active": True, "username": tokens[token]} if token in tokens else {"active": False}
            answer = json.dumps(known).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing on the terminal of the tests."""

    return Introspection
