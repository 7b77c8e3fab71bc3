"""E-mail addresses: what may go into an envelope, and when two are the same (RFC 5321, 6531, 5890)."""

from __future__ import annotations

import re
from dataclasses import dataclass

import email_validator

from mailbound.errors import InputError

# What nearly every address looks like: an ASCII dot-atom at an ASCII host name under an alphabetic top-level
# domain. All else goes the long way, through email-validator; a test holds that both ways agree.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_PLAIN = re.compile(
    rf"(?=[^@]{{1,64}}@.{{1,189}}\Z)({_ATOM}(?:\.{_ATOM})*)@((?:{_LABEL}\.)+[A-Za-z]{{2,63}})\Z", re.ASCII
)
# Reserved names (RFC 6761) are the validator's to judge, by their last label.
_RESERVED = frozenset(name.rpartition(".")[2] for name in email_validator.SPECIAL_USE_DOMAIN_NAMES)

LOCAL_PART_LIMIT = 64
"""How many octets a local part may have (RFC 5321 §4.5.3.1.1)."""


@dataclass(frozen=True, slots=True)
class Address:
    """An address that can stand in an envelope."""

    given: str
    """The local part as it was given, at the domain in its ASCII form: what is sent."""
    key: str
    """The whole in lower case and with no needless quotes: for comparing only."""
    domain: str
    """The domain in its ASCII form (A-labels), lower case."""
    utf8: bool = False
    """Whether the local part needs SMTPUTF8 (RFC 6531)."""

    def __str__(self) -> str:
        """Return what is sent."""
        return self.given


def normalise(text: str) -> Address:
    """Return the address that `text` is. Raises InputError, with the reason, if it is none.

    Blanks around it are dropped. A display name, a source route, a comment, an address literal or a control
    character is refused: what comes back can be written between `<` and `>` as it is.
    """
    text = text.strip(" \t")
    plain = _PLAIN.match(text)
    if plain and "--" not in plain[2]:
        domain = plain[2].lower()
        if domain.rpartition(".")[2] not in _RESERVED:
            return Address(text, text.lower(), domain)
    return _validated(text)


def same(one: Address | str, other: Address | str) -> bool:
    """Tell whether both are one address. Local parts differ by case in theory only (RFC 5321 §2.4)."""
    return str(one).lower() == str(other).lower() or key(one) == key(other)


def key(address: Address | str) -> str:
    """Return what `address` is compared by. Never raises: what is no address is compared in lower case."""
    if isinstance(address, Address):
        return address.key
    try:
        return normalise(address).key
    except InputError:
        return address.strip().lower()


def masked(address: Address | str) -> str:
    """Return `address` with its local part hidden but for the first character, for logs."""
    local, at, domain = str(address).rpartition("@")
    if not at:
        return "***"
    return f"{local[:1] if local[:1].isprintable() else ''}***@{domain}"


def _validated(text: str) -> Address:
    try:
        valid = email_validator.validate_email(
            text,
            allow_quoted_local=True,
            strict=True,
            check_deliverability=False,
            test_environment=True,  # .test is reserved for rehearsals (RFC 6761 §6.2), which we want
        )
    except (email_validator.EmailNotValidError, UnicodeError) as error:
        raise InputError(f"{text!r} is no address: {error}") from error
    local, _, written = text.rpartition("@")
    if len(local.encode()) > LOCAL_PART_LIMIT:
        raise InputError(f"{text!r} is no address: more than {LOCAL_PART_LIMIT} octets before the @-sign.")
    domain = valid.ascii_domain.lower()
    given = text if written.isascii() else f"{local}@{domain}"
    return Address(given, f"{valid.local_part.lower()}@{domain}", domain, utf8=not local.isascii())
