"""The servers of the tests do what the tests believe of them."""

from __future__ import annotations

import contextlib
import email
import email.policy
import imaplib
import os
import poplib
import select
import shutil
import smtplib
import ssl
import subprocess
import sys
from email.message import EmailMessage
from pathlib import Path

import pytest
import sqlalchemy

import servers
from servers.mailnet import PASSWORD, MailNet
from servers.postgres import Postgres

MAIL = b"From: shop@sender.test\r\nTo: someone@remote.test\r\nSubject: Spring\r\n\r\nHello.\r\n"


def submit(net: MailNet, sender: str, recipient: str, raw: bytes = MAIL) -> None:
    """Send one mail over the port with implicit TLS."""
    with smtplib.SMTP_SSL("127.0.0.1", net.ports["smtps"], context=net.tls()) as client:
        client.login("shop@sender.test", PASSWORD)
        refused = client.sendmail(
            sender, [recipient], raw, ["RET=HDRS", "ENVID=env1"], ["NOTIFY=FAILURE,DELAY"]
        )
        assert refused == {}


def fetch(net: MailNet, user: str) -> list[EmailMessage]:
    """Take what is in a mailbox over the POP3 port with implicit TLS, and delete it there."""
    client = poplib.POP3_SSL("127.0.0.1", net.ports["pop3s"], context=net.tls())
    client.user(user)
    client.pass_(PASSWORD)
    count, _ = client.stat()
    raws = [b"\r\n".join(client.retr(number + 1)[1]) for number in range(count)]
    for number in range(count):
        client.dele(number + 1)
    client.quit()
    return [email.message_from_bytes(raw, policy=email.policy.default) for raw in raws]


def report(net: MailNet, user: str, recipient: str, raw: bytes = MAIL) -> dict[str, str]:
    """Submit a mail and return the fields of the first report that comes back about it, over POP3S."""
    submit(net, user.replace("@", "+token@"), recipient, raw)
    net.mails(user, at_least=1)
    dsn, *_ = fetch(net, user)
    assert dsn.get_content_type() == "multipart/report"
    assert dsn["X-Original-To"] == user.replace("@", "+token@")
    blocks = list(dsn.iter_parts())[1].get_payload()
    return {name: value for block in blocks for name, value in block.items()}


@pytest.mark.parametrize(
    ("recipient", "status", "diagnostic"),
    [
        ("nobody@remote.test", "5.1.1", "550 5.1.1"),
        ("disabled7@remote.test", "5.2.1", "550 5.2.1"),
        ("moved@remote.test", "5.1.6", "551 5.1.6"),
        ("policy@remote.test", "5.7.1", "554 5.7.1"),
        ("someone@denied.test", "5.7.1", "554 5.7.1"),
        ("someone@nohost.test", "5.4.4", "no-such-host"),
    ],
)
def test_a_refusal_comes_back_as_a_report_of_postfix_over_pop3s(mailnet, recipient, status, diagnostic):
    user = f"refusal-{recipient.replace('@', '-')}@sender.test"
    fields = report(mailnet, user, recipient)
    assert fields["Action"] == "failed"
    assert fields["Status"] == status
    assert fields["Final-Recipient"] == f"rfc822; {recipient}"
    assert fields["Original-Envelope-Id"] == "env1"
    assert diagnostic in fields["Diagnostic-Code"]


def test_a_full_mailbox_is_refused_by_the_quota_of_dovecot(mailnet):
    fields = report(
        mailnet, "quota@sender.test", "full3@remote.test", MAIL + b"more than fits in there\r\n" * 90
    )
    assert fields["Status"] == "5.2.2"
    assert "quota" in fields["Diagnostic-Code"].lower()


@pytest.mark.parametrize("recipient", ["busy@remote.test", "someone@refused.test", "someone@tempfail.test"])
def test_a_mail_that_must_wait_is_reported_as_delayed(mailnet, recipient):
    user = f"delay-{recipient.replace('@', '-')}@sender.test"
    fields = report(mailnet, user, recipient)
    assert fields["Action"] == "delayed"
    assert fields["Status"].startswith("4.")


def test_a_mail_that_waits_too_long_is_given_up(tmp_path):
    with MailNet(queue_lifetime="1s") as net:
        fields = report(net, "expiry@sender.test", "busy@remote.test")
        assert (fields["Action"], fields["Status"]) == ("failed", "4.3.2")
        assert net.queue() == []


def test_a_greylisted_mail_arrives_once_the_greylisting_ends(mailnet):
    mailnet.answer("person-late", "450 4.2.0 Greylisted, try again later")
    submit(mailnet, "grey@sender.test", "person-late@remote.test")
    mailnet.mails("grey@sender.test", at_least=1)  # so it was refused, and its delay is reported
    assert mailnet.mails("person-late@remote.test") == []
    mailnet.answer("person-late", None)
    mailnet.requeue()
    assert len(mailnet.mails("person-late@remote.test", at_least=1)) == 1


def test_a_good_mail_arrives_with_its_envelope_in_sight(mailnet):
    submit(mailnet, "good+token@sender.test", "person1@remote.test")
    (raw,) = mailnet.mails("person1@remote.test", at_least=1)
    arrived = email.message_from_bytes(raw)
    assert arrived["Return-Path"] == "<good+token@sender.test>"
    assert arrived["Delivered-To"] == "person1@remote.test"


def test_a_planted_mail_is_fetched_as_it_is(mailnet):
    mailnet.deliver("planted@sender.test", b"Subject: forged\n\nMAILER-DAEMON says so.\n")
    (mail,) = fetch(mailnet, "planted@sender.test")
    assert mail.as_bytes() == b"Subject: forged\n\nMAILER-DAEMON says so."


def test_submission_wants_starttls_before_it_takes_a_password(mailnet):
    with smtplib.SMTP("127.0.0.1", mailnet.ports["submission"]) as client:
        client.ehlo()
        assert not client.has_extn("auth")
        assert client.mail("shop@sender.test")[0] == 530
        client.starttls(context=mailnet.tls())
        client.login("shop@sender.test", PASSWORD)
        assert client.mail("shop@sender.test")[0] == 250


@pytest.mark.parametrize("port", ["submission", "smtps"])
def test_who_has_no_password_submits_nothing(mailnet, port):
    with contextlib.ExitStack() as stack:
        if port == "smtps":
            client = stack.enter_context(
                smtplib.SMTP_SSL("127.0.0.1", mailnet.ports[port], context=mailnet.tls())
            )
        else:
            client = stack.enter_context(smtplib.SMTP("127.0.0.1", mailnet.ports[port]))
            client.starttls(context=mailnet.tls())
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("shop@sender.test", "wrong")
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("shop@sender.test", ["nobody@remote.test"], MAIL)


def test_a_client_that_does_not_know_the_authority_refuses_the_servers(mailnet):
    with pytest.raises(ssl.SSLCertVerificationError):
        smtplib.SMTP_SSL("127.0.0.1", mailnet.ports["smtps"], context=ssl.create_default_context())


def test_the_mailbox_answers_over_stls_and_imap(mailnet):
    mailnet.deliver("ways@sender.test", MAIL)
    pop3 = poplib.POP3("127.0.0.1", mailnet.ports["pop3"])
    pop3.stls(context=mailnet.tls())
    pop3.user("ways@sender.test")
    pop3.pass_(PASSWORD)
    assert pop3.stat()[0] == 1
    pop3.quit()
    with imaplib.IMAP4_SSL("127.0.0.1", mailnet.ports["imaps"], ssl_context=mailnet.tls()) as imap:
        imap.login("ways@sender.test", PASSWORD)
        assert imap.select() == ("OK", [b"1"])
        assert "IDLE" in imap.capabilities


def test_nothing_is_left_of_the_mail_servers_when_they_stop():
    with MailNet() as net:
        running = [process.pid for process in net._running]
        home = net.home
    assert not home.exists()
    assert [pid for pid in running if Path(f"/proc/{pid}").exists()] == []


def test_servers_end_with_a_test_run_that_is_killed(tmp_path):
    script = (
        "import sys; from servers.postgres import Postgres\n"
        "with Postgres() as server: print(server._process.pid, server.home, flush=True); sys.stdin.read()"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(Path(servers.__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    pid, home = run.stdout.readline().decode().split()
    server = os.pidfd_open(int(pid))
    run.kill()
    run.communicate()
    ended, _, _ = select.select([server], [], [], 20)
    os.close(server)
    shutil.rmtree(home)
    assert ended


def test_each_database_is_empty_and_new(postgres: Postgres):
    with postgres.database() as first, postgres.database() as second:
        assert first != second
        for url in (first, second):
            engine = sqlalchemy.create_engine(url)
            with engine.begin() as connection:
                connection.execute(sqlalchemy.text("CREATE TABLE only_here (id int)"))
            engine.dispose()


def test_a_database_url_leads_to_an_empty_database(database_url):
    engine = sqlalchemy.create_engine(database_url)
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT 1")).scalar_one() == 1
        assert sqlalchemy.inspect(connection).get_table_names() == []
    engine.dispose()


def test_a_missing_program_skips_a_test_at_home_and_fails_it_in_ci(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program is not installed"):
        servers.need("no-such-program")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed"):
        servers.need("no-such-program")
