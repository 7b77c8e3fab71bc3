"""The main job on real servers: Postfix sends, refuses and writes its own reports, Dovecot keeps them for POP3."""

from __future__ import annotations

import email
import re
from collections import Counter
from email import policy
from pathlib import Path

import sqlalchemy as sa

from box import Box
from mailbound.database import tables
from servers.mailnet import MailNet

_PEOPLE = 300
_BOUNCES = "journey@sender.test"

_TROUBLED = {
    "unknown": "nobody@remote.test",
    "unknown-too": "stranger@remote.test",
    "full": "full@remote.test",
    "disabled": "disabled@remote.test",
    "moved": "moved@remote.test",
    "policy": "policy@remote.test",
    "denied": "someone@denied.test",
    "no-host": "someone@nohost.test",
    "delayed": "someone@tempfail.test",
    "greylisted": "greylisted@remote.test",
    "out": "person-out@remote.test",
}

_PADDING = (
    "<p>" + "It is spring, and everything is new again. " * 80 + "</p>"
)  # more than a full mailbox takes

_OUTBOUND = """
port = {port}
tls = "{tls}"
username = "relayuser@sender.test"
password_credential = "relay-password"
ca_file = "{ca}"
"""

_INBOUND = """
port = {port}
tls = "{tls}"
ca_file = "{ca}"
"""


def _box(folder: Path, net: MailNet, *, relay: str, mailbox: str, **settings: str) -> Box:
    tls = {"smtps": "implicit", "submission": "starttls", "pop3s": "implicit", "pop3": "starttls"}
    box = Box(
        folder,
        **{"bounces": _BOUNCES, **settings},
        outbound=_OUTBOUND.format(port=net.ports[relay], tls=tls[relay], ca=net.ca),
        inbound=_INBOUND.format(port=net.ports[mailbox], tls=tls[mailbox], ca=net.ca),
    )
    (folder / "templates/spring/html.html").write_text(f"<h1>Hello {{{{ name }}}}</h1>{_PADDING}")
    return box


def _statuses(box: Box) -> dict[str, str]:
    rows = box.rows(
        sa.select(
            tables.address.c.key, tables.recipient_status.c.status, tables.recipient_status.c.category
        ).join(tables.recipient_status, tables.recipient_status.c.address_id == tables.address.c.id)
    )
    return {key: f"{status} {category}" for key, status, category in rows}


def _out(box: Box) -> dict[str, str]:
    rows = box.rows(
        sa.select(tables.recipient.c.external_id, tables.opt_in.c.source)
        .join(tables.opt_in, tables.opt_in.c.recipient_id == tables.recipient.c.id)
        .where(sa.not_(tables.opt_in.c.receive))
    )
    return dict(rows)


def _reasons(box: Box) -> dict[str, str]:
    rows = box.rows(
        sa.select(tables.recipient.c.external_id, tables.bounce.c.kind, tables.bounce.c.category)
        .join(tables.recipient, tables.recipient.c.id == tables.bounce.c.recipient_id)
        .order_by(tables.bounce.c.id)
    )
    return {f"{name} {kind}": category for name, kind, category in rows}


def test_an_activity_its_bounces_and_the_next_activity(tmp_path: Path, mailnet: MailNet) -> None:
    people = {
        f"person-{number}": f"person-{number}@remote.test" for number in range(_PEOPLE - len(_TROUBLED))
    }
    with _box(tmp_path, mailnet, relay="smtps", mailbox="pop3s") as box:
        box.people({**people, **_TROUBLED})
        box.cli("recipient", "opt-out", "out", "--store", "main")
        box.start()
        box.plan("spring")
        expected = {
            "unknown bounce": "no-such-user",
            "unknown-too bounce": "no-such-user",
            "full bounce": "mailbox-full",
            "disabled bounce": "disabled",
            "moved bounce": "moved",
            "policy bounce": "policy",
            "denied bounce": "policy",
            "no-host bounce": "no-such-domain",
            "delayed delay": "system",
            "greylisted delay": "greylisted",
        }
        box.wait(lambda: set(_reasons(box)) >= set(expected), "all reports to be recorded")
        assert _reasons(box) == expected
        assert box.run_state("spring") == "sent"
        bounced = {name for name in _TROUBLED if name not in {"delayed", "greylisted", "out"}}
        assert box.states("spring") == {
            **dict.fromkeys([*people, "delayed", "greylisted"], "accepted"),
            **dict.fromkeys(bounced, "bounced"),
            "out": "skipped not-opted-in",
        }
        assert _statuses(box) == {
            "nobody@remote.test": "undeliverable no-such-user",
            "stranger@remote.test": "undeliverable no-such-user",
            "moved@remote.test": "undeliverable moved",
        }
        assert _out(box) == {
            "unknown": "hard_bounce",
            "unknown-too": "hard_bounce",
            "moved": "hard_bounce",
            "out": "operator",
        }
        _check_messages(mailnet, len(people))
        _check_report(box)

        _forge(mailnet, "person-1@remote.test")
        forged = sa.select(tables.bounce.c.disposition).where(
            tables.bounce.c.address == "person-1@remote.test"
        )
        box.wait(lambda: bool(box.rows(forged)), "the forged report to be read")
        assert [row.disposition for row in box.rows(forged)] == ["quarantined"]
        assert "person-1@remote.test" not in _statuses(box)
        assert box.states("spring")["person-1"] == "accepted"

        box.plan("summer")
        box.wait(lambda: box.run_state("summer") == "sent", "the second activity to be sent")
        skipped = {name: state for name, state in box.states("summer").items() if state.startswith("skipped")}
        dead = dict.fromkeys(["unknown", "unknown-too", "moved"], "skipped undeliverable")
        assert skipped == {**dead, "out": "skipped not-opted-in"}
        assert box.stop() == 0
        assert "person-1@remote.test" not in box.log.read_text(), "addresses are masked in the log"


def _check_messages(net: MailNet, count: int) -> None:
    """Look at a message as its recipient got it."""
    (raw,) = net.mails("person-7@remote.test", at_least=1)
    message = email.message_from_bytes(raw, policy=policy.default)
    assert message["From"] == f"Example News <{_BOUNCES}>"
    assert message["Reply-To"].addresses[0].addr_spec == "hello@sender.test"
    assert message["To"].addresses[0].addr_spec == "person-7@remote.test"
    assert message["Subject"] == "Spring for person-7"
    assert re.fullmatch(r"<journey\+[a-z2-7]{40}@sender\.test>", message["Return-Path"])
    assert re.fullmatch(r"<[a-z2-7]{40}@sender\.test>", message["Message-ID"])
    assert message["List-Id"] == "Example News <news.sender.test>"
    assert re.fullmatch(
        r"<mailto:journey\+[a-z2-7]{40}@sender\.test\?subject=unsubscribe>", message["List-Unsubscribe"]
    )
    assert message["Auto-Submitted"] == "auto-generated"
    assert Counter(name.lower() for name in message)["from"] == 1
    kinds = [part.get_content_type() for part in message.walk()]
    assert kinds == ["multipart/alternative", "text/plain", "text/html"]
    assert "Hello person-7" in message.get_body(("plain",)).get_content()
    assert count > 0


def _check_report(box: Box) -> None:
    """Look at what an operator is told."""
    by_reason = {
        row["reason"]: row["bounces"] for row in box.json("report", "bounces", "--by", "reason")["groups"]
    }
    assert by_reason == {
        "no-such-user": 2,
        "policy": 2,
        "mailbox-full": 1,
        "disabled": 1,
        "moved": 1,
        "no-such-domain": 1,
    }
    doctor = {finding["about"]: finding["state"] for finding in box.json("doctor")}
    assert doctor["tally"] == doctor["main relay"] == doctor["main mailbox"] == "good"


def _forge(net: MailNet, victim: str) -> None:
    """Plant a report that looks genuine in all but its token."""
    forged = Path(__file__).parent / "mails" / "forged.eml"
    net.deliver(_BOUNCES, forged.read_bytes().replace(b"VICTIM", victim.encode()))


def test_starttls_on_both_sides(tmp_path: Path, mailnet: MailNet) -> None:
    with _box(tmp_path, mailnet, relay="submission", mailbox="pop3") as box:
        box.people({"unknown": "nobody@remote.test", "known": "person-starttls@remote.test"})
        box.start()
        box.plan("spring")
        box.wait(lambda: box.counts("spring") == {"accepted": 1, "bounced": 1}, "the report to be recorded")
        assert box.stop() == 0


def test_a_certificate_that_does_not_verify_sends_nothing(tmp_path: Path, mailnet: MailNet) -> None:
    with _box(tmp_path, mailnet, relay="smtps", mailbox="pop3s") as box:
        config = box.folder / "config.toml"
        config.write_text(re.sub(r'^ca_file = ".*"$', "", config.read_text(), flags=re.MULTILINE))
        box.people({"known": "person-untrusted@remote.test"})
        box.start()
        box.plan("spring")
        box.wait(lambda: "relay.failed" in box.log.read_text(), "the relay to be distrusted")
        box.wait(lambda: "mailbox.failed" in box.log.read_text(), "the mailbox to be distrusted")
        box.wait(lambda: box.counts("spring") == {"queued": 1}, "it to be given back")
        assert box.stop() == 0
        assert box.counts("spring") == {"queued": 1}
        assert "secret" not in box.log.read_text()
        assert not net_got_anything(mailnet, "person-untrusted@remote.test")


def net_got_anything(net: MailNet, user: str) -> bool:
    """Return whether a mailbox holds any mail."""
    return bool(net.mails(user))


def test_the_same_job_on_postgresql(tmp_path: Path, mailnet: MailNet, postgres_url: str) -> None:
    with _box(
        tmp_path, mailnet, relay="smtps", mailbox="pop3s", url=postgres_url, bounces="elephant@sender.test"
    ) as box:
        box.people(
            {"unknown": "nobody@remote.test", "full": "full@remote.test", "known": "person-pg@remote.test"}
        )
        box.start()
        box.plan("spring")
        box.wait(lambda: box.counts("spring") == {"accepted": 1, "bounced": 2}, "the reports to be recorded")
        assert _statuses(box) == {"nobody@remote.test": "undeliverable no-such-user"}
        box.plan("summer")
        box.wait(lambda: box.run_state("summer") == "sent", "the second activity to be sent")
        assert box.states("summer")["unknown"] == "skipped undeliverable"
        assert box.stop() == 0
