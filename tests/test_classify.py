from __future__ import annotations

import re
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbound import classify
from mailbound.classify import literals, tables
from mailbound.errors import ConfigError
from mailbound.model import Action, Category, Fault, Phase, Reply
from mailbound.reading import phase
from mailbound.reading.report import RecipientReport
from mailbound.status import StatusCode

RULES = classify.rules()
PATTERNS = [re.compile(each.text) for each in RULES._tries]  # more than the cache of `re` holds

# The registry at IANA as of 2024-12-06: every subject and detail that 4.x.x or 5.x.x may carry.
REGISTERED = {
    0: [0],
    1: range(11),
    2: range(5),
    3: range(7),
    4: range(8),
    5: range(7),
    6: range(11),
    7: range(31),
}


def verdict(text, *, status=None, action=Action.FAILED):
    found = StatusCode.find(status) if status else None
    report = RecipientReport("bob@example.org", action=action, status=found, diagnostic_code=text)
    return classify.classify(report, RULES)


@pytest.mark.parametrize("rule", RULES.ordered, ids=lambda rule: rule.name)
def test_a_rule_takes_its_own_example(rule):
    code = re.match(r"[245]\d\d", rule.example)
    found = classify.judge(
        StatusCode.find(rule.example),
        int(code[0]) if code else 0,
        rule.example,
        RULES,
        diagnostic_type=rule.type,
        phase=min(rule.phase, default=None),
    )
    assert (found.rule, found.category) == (rule.name, rule.category)
    assert rule.source


def test_there_is_one_rule_of_a_name():
    names = [rule.name for rule in RULES.ordered]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "code",
    [StatusCode(c, s, d) for c in (4, 5) for s, details in REGISTERED.items() for d in details],
    ids=str,
)
def test_every_registered_status_code_has_a_rule(code):
    found = classify.judge(code, 0, "", RULES)
    assert found.permanent is (code.class_ == 5) or found.category in tables.SOFT
    assert found.rule.startswith(("registry:", "providers:", "sender-has-null-mx")) or code.is_bare


def test_the_registry_is_complete_and_dated():
    registered = {code for row in tables.codes() if row.rule.startswith("registry:") for code in row.status}
    wanted = {StatusCode(c, s, d) for c in (4, 5) for s, details in REGISTERED.items() for d in details}
    assert registered == wanted
    assert tables.registry_date() == date(2024, 12, 6)


@pytest.mark.parametrize(
    ("code", "like"), [("5.1.99", "5.1.0"), ("4.4.99", "4.4.0"), ("5.7.999", "5.7.0"), ("5.5.99", "5.5.0")]
)
def test_a_code_that_stands_nowhere_counts_as_the_undefined_one_of_its_subject(code, like):
    found, wanted = (classify.judge(StatusCode.find(each), 0, "", RULES) for each in (code, like))
    assert (found.category, found.permanent) == (wanted.category, wanted.permanent)


@pytest.mark.parametrize(
    ("text", "status", "category", "permanent"),
    [
        pytest.param("smtp; 550 5.1.1 User unknown", "5.1.1", Category.NO_SUCH_USER, True, id="no such user"),
        pytest.param("450 4.1.1 User unknown", "4.1.1", Category.NO_SUCH_USER, False, id="unknown for now"),
        pytest.param(
            "550 5.1.1 blocked using zen.spamhaus.org", "5.1.1", Category.BLOCKED, True, id="blocked, 5.1.1"
        ),
        pytest.param("550 5.1.1 mailbox is full", "5.1.1", Category.MAILBOX_FULL, False, id="full, 5.1.1"),
        pytest.param("552 5.2.2 Quota exceeded", "5.2.2", Category.MAILBOX_FULL, False, id="full"),
        pytest.param(
            "all hosts have been failing for a long time",
            "5.0.0",
            Category.EXPIRED,
            False,
            id="expired, 5.0.0",
        ),
        pytest.param(
            "550 5.1.1 User unknown: retry timeout exceeded",
            "5.1.1",
            Category.NO_SUCH_USER,
            False,
            id="gave up",
        ),
        pytest.param(
            "192.0.2.1 does not like recipient. 550 no", None, Category.UNCLEAR, True, id="qmail's dislike"
        ),
        pytest.param(
            "550 cannot find your IP address", None, Category.AUTHENTICATION, True, id="our address"
        ),
        pytest.param(
            "451 4.7.1 something", "5.0.0", Category.SYSTEM, False, id="the reply says more than 5.0.0"
        ),
        pytest.param("550 go away now", "5.0.0", Category.BLOCKED, True, id="go away"),
        pytest.param("550 no", "5.0.0", Category.UNCLEAR, True, id="a bare 550 is unclear"),
        pytest.param("", None, Category.UNCLEAR, True, id="silence is unclear"),
        pytest.param("", "5.999.999", Category.UNCLEAR, True, id="unregistered"),
        pytest.param(
            "550 5.7.1 <virus@example.org>: no", "5.7.1", Category.POLICY, True, id="a name decides nothing"
        ),
        pytest.param("550 USER_UNKNOWN", None, Category.NO_SUCH_USER, True, id="underscores"),
        pytest.param(
            "554 5.7.1 Relay access denied", "5.7.1", Category.POLICY, True, id="relay denied is about us"
        ),
    ],
)
def test_a_report_is_classified(text, status, category, permanent):
    found = verdict(text, status=status)
    assert (found.category, found.permanent) == (category, permanent)


def test_a_delay_is_never_permanent():
    assert not verdict("550 5.1.1 User unknown", status="5.1.1", action=Action.DELAYED).permanent


@pytest.mark.parametrize("action", sorted(set(Action) - {Action.FAILED, Action.DELAYED}))
def test_what_did_not_fail_says_nothing_about_the_address(action):
    found = verdict("550 5.1.1 User unknown", status="5.1.1", action=action)
    assert (found.category, found.permanent, found.rule) == (Category.UNCLEAR, False, f"action-{action}")


NOT_THE_RECIPIENT = (
    *(
        "The sender",
        "Sender's address",
        "The envelope sender",
        "Your e-mail address",
        "The From: address",
        "Your account",
    ),
    *(
        "Your server",
        "Your IP address",
        "Client host name",
        "HELO name",
        "Your domain",
        "The return path",
        "The URL",
    ),
)
PREDICATES = (
    *(
        "was not found",
        "does not exist",
        "is unknown",
        "is invalid",
        "is not in our list",
        "isn't registered here",
    ),
    *(
        "has been disabled",
        "is suspended",
        "has expired",
        "has moved",
        "is not one of ours",
        "could not be verified",
    ),
)


@pytest.mark.parametrize("said", ["550 ", "550 5.7.1 ", "host mx.x.example[192.0.2.4] said: 550 "])
@pytest.mark.parametrize("subject", NOT_THE_RECIPIENT)
def test_a_sentence_about_somebody_else_blames_no_address(subject, said):
    for predicate in PREDICATES:
        found = verdict(f"{said}{subject} {predicate}")
        assert found.fault is not Fault.ADDRESS, (subject, predicate, found.rule)


@pytest.mark.parametrize(
    "subject", ["The recipient", "User bob", "The address <bob@x.example>", "That mailbox"]
)
def test_the_same_sentence_about_the_recipient_does(subject):
    for predicate in PREDICATES[:-1]:
        if predicate not in {"has moved", "has expired"}:
            assert verdict(f"550 {subject} {predicate}").fault is Fault.ADDRESS, (subject, predicate)


@pytest.mark.parametrize("phase", [Phase.CONNECT, Phase.EHLO, Phase.STARTTLS, Phase.AUTH, Phase.MAIL])
@pytest.mark.parametrize("text", ["5.1.1 User unknown", "5.2.2 mailbox is full", "no"])
def test_before_rcpt_nothing_is_about_the_recipient(phase, text):
    found = classify.classify_reply(Reply(550, text), phase, RULES)
    assert found.fault in {Fault.SENDER, Fault.PATH}


def test_at_rcpt_the_enhanced_code_of_a_reply_counts():
    found = classify.classify_reply(Reply(550, "No\n5.1.1 such address"), Phase.RCPT, RULES)
    assert (found.category, found.permanent, str(found.status)) == (Category.NO_SUCH_USER, True, "5.1.1")


def test_whom_a_server_knew_at_rcpt_it_does_not_miss_after_data():
    found = {
        step: classify.judge(None, 550, "550 Unknown user", RULES, phase=step).category
        for step in (phase.Phase.MAIL, phase.Phase.RCPT, phase.Phase.END)
    }
    assert list(found.values()) == [Category.POLICY, Category.NO_SUCH_USER, Category.UNCLEAR]


def test_rules_of_the_operator_come_first(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(
        'version = "own"\n[[rule]]\nname = "ours"\ncategory = "policy"\ntext = "user unknown"\n'
        'example = "user unknown"\nsource = "here"\n'
    )
    known = classify.Rules.load(path)
    assert classify.judge(None, 550, "User unknown", known).rule == "ours"
    assert known.version == f"{RULES.version}+own"


def test_of_two_files_of_the_operator_the_first_comes_first(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_text(
            f'[[rule]]\nname = "{name}"\ncategory = "policy"\ntext = ["no such {{user}}"]\n'
        )
    known = classify.Rules.load(tmp_path / "one", tmp_path / "two")
    assert classify.judge(None, 550, "No such mailbox", known).rule == "one"


def test_every_packaged_pattern_compiles():
    patterns = [(rule.name, it) for rule in RULES.ordered for it in (*rule.text, rule.unless, rule.mta)]
    assert len(patterns) > 500
    assert [(name, it) for name, it in patterns if not _compiles(it)] == []


def _compiles(pattern):
    try:
        return bool(re.compile(pattern))
    except re.error:
        return False


def test_every_fault_of_a_rule_file_is_told(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(
        """
[[rule]]
name = "one"
category = "nonsense"
text = "x"
[[rule]]
name = "two"
category = "policy"
text = "("
[[rule]]
name = "three"
category = "policy"
[[rule]]
name = "four"
category = "policy"
status = ["5.1"]
[[rule]]
name = "five"
category = "policy"
txet = "x"
"""
    )
    with pytest.raises(ConfigError) as caught:
        classify.Rules.load(path, tmp_path / "missing.toml")
    faults = "\n".join(caught.value.faults)
    for words in [
        "(one): 'nonsense'",
        "(two): ",
        "(three): it has none of code, mta, phase",
        "(four): '5.1'",
        "(five): unknown key txet",
    ]:
        assert words in faults
    assert "missing.toml" in faults


def test_every_category_has_a_name_elsewhere():
    assert tables.meanings().keys() == set(Category)


@pytest.mark.parametrize(
    ("text", "reason", "ses"),
    [
        ("550 5.1.1 User unknown", "userunknown", "Permanent/General"),
        ("450 4.1.1 User unknown", "userunknown", "Transient/General"),
        ("552 5.2.2 mailbox is full", "mailboxfull", "Transient/MailboxFull"),
        ("554 5.7.1 Relay access denied", "norelaying", "Undetermined/Undetermined"),
        ("550 no", "onhold", "Undetermined/Undetermined"),
    ],
)
def test_a_verdict_is_told_in_the_words_of_others(text, reason, ses):
    found = verdict(text, status=text[4:9])
    assert (classify.reason(found, RULES), classify.ses(found)) == (reason, ses)


@pytest.mark.parametrize(
    ("text", "status", "class_"),
    [
        ("550 no", "4.1.1", 4),
        ("550 5.5.0 no", "4.5.0", 5),
        ("421 4.3.2 busy", "5.0.0", 4),
        ("550 4.1.1 no", "4.1.1", 4),
        ("", "5.2.2", 5),
        ("the mailbox is full", None, 5),
        ("retry timeout exceeded", None, 4),
    ],
)
def test_the_class_of_a_failure_is_that_of_its_status_then_what_its_rule_knows(text, status, class_):
    report = RecipientReport(
        "bob@example.org", status=StatusCode.find(status) if status else None, diagnostic_code=text
    )
    assert classify.failure_class(report, classify.classify(report, RULES), RULES) == class_


@pytest.mark.parametrize(
    ("accented", "plain"),
    [
        ("550 Empfänger existiert nicht", "550 Empfanger existiert nicht"),
        ("550 Boîte aux lettres inexistante", "550 Boite aux lettres inexistante"),
        ("550 Uživatel neexistuje", "550 Uzivatel neexistuje"),
        ("550 User doesn\u2019t exist", "550 User doesn't exist"),
    ],
)
def test_accents_and_apostrophes_make_no_difference(accented, plain):
    found, wanted = (classify.judge(None, 550, each, RULES) for each in (accented, plain))
    assert found == wanted
    assert found.category is Category.NO_SUCH_USER


@given(st.text(max_size=200), st.integers(0, 999))
def test_any_text_gets_a_verdict(text, code):
    assert isinstance(classify.judge(None, code, text, RULES).category, Category)


@given(st.text(alphabet="abcdefghi mailboxfuquotnkw.-5", max_size=120))
def test_the_index_leaves_out_no_rule_that_fits(text):
    candidates = RULES._index.candidates(text)
    for number, pattern in enumerate(PATTERNS):
        if pattern.pattern and pattern.search(text):
            assert candidates >> number & 1, pattern.pattern


@pytest.mark.parametrize(
    ("pattern", "needed"),
    [
        ("quota (exceeded|reached)", [{"quota exceeded", "quota reached"}, {"exceeded", "reached"}]),
        ("gr[ae]y-?list", [{"graylist", "greylist", "gray-list", "grey-list"}]),
        (r"over\w*quota", [{"quota"}, {"over"}]),
        ("a|quota", []),
        (r"\d+", []),
        ("(full )?box", [{"box", "full box"}]),
        ("(?i:quota)", []),
        ("(?x) quo ta", []),
        (r"4\.2\.2[ -]full", [{"4.2.2 full", "4.2.2-full"}]),
        ("(?<!not )full(?= box)", [{"full"}]),
        ("x{2,}full.?", [{"full"}]),
        (r"(full[^a-c]){1,3}\bbox", [{"full"}, {"box"}]),
        ("[^)|]box|[])]full", [{"box", "]full", ")full"}]),
    ],
)
def test_of_what_a_pattern_needs_one_stands_in_all_that_it_fits(pattern, needed):
    assert literals.needed(pattern) == needed


@pytest.mark.parametrize(
    "text",
    [
        "550 5.1.1 User unknown for now, please try again later",
        "550 5.1.1 rejected due to spam content",
        "550 5.1.1 too many invalid recipients",
        "550 5.1.1 account over quota",
        "550 5.1.1 blocked using bl.example.net",
        "550 Sender verify failed: no such user",
        "550 sender domain does not exist",
        "550 You are not a known sender",
        "550 Your domain example.net does not exist in our allow list",
        "550 The IP address 192.0.2.1 does not exist in reverse DNS",
        "500 5.5.1 Command unrecognized",
        "554 Message contains invalid address in From header",
        "550 5.1.1 Message refused: recipient unknown; retry timeout exceeded",
        "550 No such user has permission to relay",
        "550 Return address can't be verified: mailbox unknown",
        "550 5.6.0 Invalid address in the From header",
        "550 We have blocked your mail server for sending to unknown users",
        "550 5.1.7 Sender mailbox does not exist",
        "550 Message body has a URL of an unknown domain",
        "550 Could not look up host: name server timeout",
        "552 sorry, the recipient hasn't any room left for your message (#5.2.2)",
        "550 Absender unbekannt",
        "550 Adresse d'expéditeur invalide",
        "550 Ihre IP-Adresse wurde gesperrt",
        "550 Votre compte est suspendu",
    ],
)
def test_what_is_not_about_the_address_never_makes_it_undeliverable(text):
    found = classify.judge(StatusCode.find(text), int(text[:3]), text, RULES)
    assert not (found.permanent and found.fault is Fault.ADDRESS), found.rule
