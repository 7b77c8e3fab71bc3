"""A small mail world of real servers: a relay, a remote side that refuses by name, and mailboxes.

    submit ──> Postfix: relay, submission, smtps ──SMTP──> Postfix: mx ──LMTP──> Dovecot
                      │ writes DSNs                                                ^   │
                      └─────────────────LMTP── mail for sender.test ───────────────┘   └──> POP3, IMAP

Any local part of sender.test is a mailbox of its own, so tests need not share one. What the remote side
answers goes by the recipient's local part, to which digits may be added: `disabled7@remote.test`.

| recipient                   | what happens                                                  |
|-----------------------------|---------------------------------------------------------------|
| `person…@remote.test`       | delivered; the name may go on as it likes                     |
| `nobody@remote.test`        | 550 5.1.1, and so for any other name that is not here         |
| `full@remote.test`          | 552 5.2.2 from Dovecot, for mail of more than 2,000 octets    |
| `disabled`, `moved`, `policy`, `greylisted`, `busy` | as `ANSWERS` has it, or `answer` since |
| anybody at denied.test      | 554 5.7.1, the remote side denies relaying                    |
| anybody at nohost.test      | 5.4.4, the host is not known                                  |
| anybody at refused.test     | 4.4.1, nothing listens there                                  |
| anybody at tempfail.test    | 450 4.3.0, for ever                                           |
| anybody at discard.test     | accepted and thrown away, for load                            |

With `delay_warning` and `queue_lifetime` a deferred mail's reports come within seconds.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import jinja2

from servers import authority, need, need_root, processes

PASSWORD = "secret"
"""The password of every account, for AUTH and for the mailboxes."""

ANSWERS = {
    "disabled": "550 5.2.1 Mailbox disabled, not accepting messages",
    "moved": "551 5.1.6 The recipient has moved and left no address",
    "policy": "554 5.7.1 Message refused by policy",
    "greylisted": "450 4.2.0 Greylisted, try again later",
    "busy": "451 4.3.2 System busy, try again later",
}

_ROLES = ["relay", "submission", "smtps", "mx", "pop3", "pop3s", "imap", "imaps", "sink_4xx", "closed"]
_KNOWN = [r"[^@]+@sender\.test", r"person[^@]*@remote\.test", r"(full|greylisted)[0-9]*@remote\.test"]
_QUEUES = [
    "active",
    "bounce",
    "corrupt",
    "defer",
    "deferred",
    "flush",
    "hold",
    "incoming",
    "private",
    "saved",
]
_OWNER = "mail"  # of the mailboxes; every Debian has this user
_SMALL = 100  # full, full1 … full99 have a mailbox with a quota
_BOXED = 2  # boxed, boxed1 have theirs in an mdbox: few large files, of which none is opened for each mail


class MailNet:
    """A private Postfix and Dovecot; a context manager that runs them while it is open."""

    def __init__(
        self, *, delay_warning: str = "0", queue_lifetime: str = "1h", settings: tuple[str, ...] = ()
    ):
        """Describe it: the two times in Postfix's words (`2s`), and more lines for its main.cf."""
        self.delay_warning, self.queue_lifetime, self.settings = delay_warning, queue_lifetime, settings
        self.answers = dict(ANSWERS)
        self.ports: dict[str, int] = {}
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        """Start the servers and return when all of them listen. Raises NotStartedError."""
        need_root()
        need("postfix")
        need("dovecot")
        # Short, since the path of a Unix socket may have 107 octets.
        self.home = Path(tempfile.mkdtemp(prefix="mailnet-", dir="/tmp"))
        try:
            self._lay_out()
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the servers and remove all they wrote."""
        for process in reversed(self._running):
            processes.stop(process)
        self._running.clear()
        shutil.rmtree(self.home)

    # --- what a client needs --------------------------------------------------------------------------------

    @property
    def ca(self) -> Path:
        """Return the file of the certificate authority that all the TLS ports are signed by."""
        return self._authority.ca

    def tls(self) -> ssl.SSLContext:
        """Return a client's TLS context that trusts this authority alone."""
        return self._authority.context()

    # --- the remote side ------------------------------------------------------------------------------------

    def answer(self, local_part: str, reply: str | None) -> None:
        """Let the remote side answer RCPT for `local_part` with `reply`; None lets it decide by itself.

        It holds from the next connection on. `answer("greylisted", None)` ends a greylisting.
        """
        self.answers.pop(local_part, None)
        if reply is not None:
            self.answers[local_part] = reply
        lines = [f"/^{name}[0-9]*(\\+.*)?@remote\\.test$/ {text}\n" for name, text in self.answers.items()]
        self._write("postfix/answers", "".join(lines))

    # --- the queue ------------------------------------------------------------------------------------------

    def queue(self) -> list[dict[str, Any]]:
        """Return what waits in the relay's queue, as `postqueue -j` describes it."""
        return [json.loads(line) for line in self._postqueue("-j").splitlines()]

    def requeue(self) -> None:
        """Let the relay try at once all that it has deferred."""
        self._postqueue("-f")

    def log(self) -> str:
        """Return what Postfix and Dovecot have logged, to be read when a test fails."""
        return "".join(path.read_text(errors="replace") for path in sorted((self.home / "log").iterdir()))

    # --- mailboxes ------------------------------------------------------------------------------------------

    def maildir(self, user: str) -> Path:
        """Return the maildir of `user` (an address without its token), made if it is not there."""
        maildir = self.home / "mail" / user / "Maildir"
        for folder in (maildir.parent, maildir, maildir / "tmp", maildir / "new", maildir / "cur"):
            if not folder.exists():
                folder.mkdir()
                shutil.chown(folder, _OWNER, _OWNER)
        return maildir

    def deliver(self, user: str, raw: bytes) -> None:
        """Put a mail into the mailbox of `user`, byte by byte as it is: a forgery, say."""
        maildir = self.maildir(user)
        name = f"{time.time_ns()}.planted"
        (maildir / "tmp" / name).write_bytes(raw)
        shutil.chown(maildir / "tmp" / name, _OWNER, _OWNER)
        (maildir / "tmp" / name).rename(maildir / "new" / name)

    def mails(self, user: str, *, at_least: int = 0, within: float = 20.0) -> list[bytes]:
        """Return the mails of `user`, once there are `at_least` so many. Else TimeoutError, with the log."""
        deadline = time.monotonic() + within
        while True:
            maildir = self.maildir(user)
            files = [path for folder in ("new", "cur") for path in sorted((maildir / folder).iterdir())]
            if len(files) >= at_least:
                return [path.read_bytes() for path in files]
            if time.monotonic() > deadline:
                raise TimeoutError(f"{user} has {len(files)} mails, not {at_least}\n{self.log()}")
            time.sleep(0.01)

    def doveadm(self, *words: str) -> None:
        """Do something to a mailbox that only its owner's administrator can do."""
        command = [need("doveadm"), "-c", str(self.home / "dovecot/dovecot.conf"), *words]
        subprocess.run(command, check=True, capture_output=True)

    def box_up(self, user: str) -> None:
        """Move the mail of `user`, one of those with boxes, from the maildir into their box."""
        self.doveadm("import", "-u", user, f"maildir:{self.maildir(user)}", "", "all")

    # --- how it is made -------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        self.home.chmod(0o755)
        for name in ("data", "dovecot", "log", "mail", "postfix/dynamicmaps.cf.d", "postfix/postfix-files.d"):
            (self.home / name).mkdir(parents=True)
        shutil.chown(self.home / "mail", _OWNER, _OWNER)
        shutil.chown(self.home / "data", "postfix", "postfix")
        _make_queue(self.home / "queue")
        self._authority = authority.Authority(self.home / "tls", ["localhost", "relay.lab.test"])
        for name in ("postfix-files", "dynamicmaps.cf"):
            shutil.copy(Path("/etc/postfix") / name, self.home / "postfix")

    def _configure(self) -> None:
        values = {
            "home": self.home,
            "owner": _OWNER,
            "certificate": self._authority.certificate,
            "key": self._authority.key,
            "delay_warning": self.delay_warning,
            "queue_lifetime": self.queue_lifetime,
            "settings": self.settings,
            **self.ports,
        }
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
        templates = {name: name for name in ("postfix/main.cf", "postfix/master.cf")}
        templates["dovecot/dovecot.conf"] = f"dovecot/dovecot-{dovecot_series()}.conf"
        for name, template in templates.items():
            text = (Path(__file__).parent / template).read_text()
            self._write(name, environment.from_string(text).render(values) + "\n")
        self._write("postfix/mailboxes", "".join(f"/^{name}$/ x\n" for name in _KNOWN))
        self._write("postfix/transport", _transport(self.ports))
        self._write("dovecot/small", "".join(f"{user}\n" for user in self._special()))
        for local_part, reply in dict(self.answers).items():
            self.answer(local_part, reply)

    def _special(self) -> Iterator[str]:
        """Yield the users for whom Dovecot does something else, as lines of its passwd-file."""
        old = dovecot_series() == "2.3"
        quota = "userdb_quota_rule=*:bytes=2000" if old else "userdb_quota_storage_size=2000B"
        box = "userdb_mail=mdbox:~/mdbox" if old else "userdb_mail_driver=mdbox userdb_mail_path=~/mdbox"
        for number in range(_SMALL):
            yield self._with(f"full{number or ''}@remote.test", quota)
        for number in range(_BOXED):
            yield self._with(f"boxed{number or ''}@sender.test", box)

    def _with(self, user: str, fields: str) -> str:
        return f"{user}::{_OWNER}:{_OWNER}::{self.home}/mail/{user}::{fields}"

    def _write(self, name: str, text: str) -> None:
        path = self.home / name
        path.with_name("next").write_text(text)
        # Postfix waits up to two seconds with a file that has just been changed, lest it be half written.
        os.utime(path.with_name("next"), (0, 0))
        path.with_name("next").rename(path)

    def _start(self) -> None:
        self.ports = processes.free_ports(_ROLES)
        self._configure()
        dovecot = self._run("dovecot", "-F", "-c", str(self.home / "dovecot/dovecot.conf"))
        postfix = self._run("/usr/lib/postfix/sbin/master", "-d", "-c", str(self.home / "postfix"))
        sink = self._run(
            "smtp-sink", "-u", "nobody", "-r", "RCPT", f"127.0.0.1:{self.ports['sink_4xx']}", "100"
        )
        owners = {
            dovecot: ("pop3", "pop3s", "imap", "imaps"),
            postfix: ("relay", "submission", "smtps", "mx"),
            sink: ("sink_4xx",),
        }
        for process, roles in owners.items():
            for role in roles:
                processes.await_port(self.ports[role], process, log=self.home / "log/output")

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        process = processes.start([need(program), *arguments], log=self.home / "log/output")
        self._running.append(process)
        return process

    def _postqueue(self, option: str) -> str:
        command = [need("postqueue"), "-c", str(self.home / "postfix"), option]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@functools.cache
def dovecot_series() -> str:
    """Return "2.3" (Debian 12) or "2.4" (Debian 13): each has a grammar of its own for the same."""
    said = subprocess.run([need("dovecot"), "--version"], check=True, capture_output=True, text=True).stdout
    return "2.3" if said.startswith("2.3.") else "2.4"


def _make_queue(queue: Path) -> None:
    queue.mkdir()
    (queue / "pid").mkdir()
    for name in (*_QUEUES, "trace"):
        _make(queue / name, "postfix", None, 0o700)
    _make(queue / "maildrop", "postfix", "postdrop", 0o730)
    _make(queue / "public", "postfix", "postdrop", 0o710)


def _make(folder: Path, user: str, group: str | None, mode: int) -> None:
    folder.mkdir()
    shutil.chown(folder, user, group)
    folder.chmod(mode)


def _transport(ports: dict[str, int]) -> str:
    routes = {
        "remote.test": f"smtp:[127.0.0.1]:{ports['mx']}",
        "denied.test": f"smtp:[127.0.0.1]:{ports['mx']}",
        "tempfail.test": f"smtp:[127.0.0.1]:{ports['sink_4xx']}",
        "refused.test": f"smtp:[127.0.0.1]:{ports['closed']}",
        "nohost.test": "smtp:[no-such-host.invalid]",
        "discard.test": "discard:",
    }
    return "".join(f"{domain} {route}\n" for domain, route in routes.items())
