"""How single values are written in config.toml, and what they become: durations, sizes, hosts, ports, names.

Each reader takes what TOML gave and returns the value, or raises ValueError with what is wrong and its mend.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
import unicodedata
import zoneinfo
from datetime import timedelta
from difflib import get_close_matches
from urllib.parse import urlsplit

from mailbound import address
from mailbound.errors import InputError

LONGEST = timedelta(days=3650)
"""No duration is longer than ten years: whoever writes more has mistaken the unit."""

_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_OCTETS = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_LIST_ID = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)+")
_STORE_KEY = re.compile(r"[a-z0-9-]{1,32}")
_CREDENTIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def quote(value: object) -> str:
    """Return `value` for a message: one line, short, printable, strings in quotes."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    literal = isinstance(value, bool | str)
    text = json.dumps(value, ensure_ascii=not str(value).isprintable()) if literal else str(value)
    return text if len(text) <= 80 else text[:76] + "…" + text[-1]


def duration(value: object) -> timedelta:
    """Return the duration that `90s`, `30m`, `12h` or `5d` stands for."""
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"(\d{1,12}) ?([smhd])", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{quote(value)} is not a duration; write it like "90s", "30m", "12h" or "5d"')
    seconds = int(match[1]) * _SECONDS[match[2]]
    if seconds > LONGEST.total_seconds():
        raise ValueError(f"{quote(value)} is longer than ten years")
    return timedelta(seconds=seconds)


def positive_duration(value: object) -> timedelta:
    """Return the duration that `value` stands for; it is longer than nothing."""
    result = duration(value)
    if not result:
        raise ValueError(f"{quote(value)} is no time at all; write a duration longer than 0s")
    return result


def write_duration(value: timedelta) -> str:
    """Return how `value` is written in config.toml, in the largest unit that fits."""
    seconds = round(value.total_seconds())
    unit = next((name for name, size in _SECONDS.items() if seconds and seconds % size == 0), "s")
    return f"{seconds // _SECONDS[unit]}{unit}"


def size(value: object) -> int:
    """Return the octets that `10MiB` stands for."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = re.fullmatch(r"(\d{1,16}) ?([KMGT]iB|B)", value) if isinstance(value, str) else None
    if match is None or not int(match[1]):
        raise ValueError(f'{quote(value)} is not a size; write it like "512KiB", "10MiB" or "2GiB"')
    return int(match[1]) * _OCTETS[match[2]]


def write_size(octets: int) -> str:
    """Return how `octets` is written in config.toml, in the largest unit that fits."""
    unit = next(name for name, factor in _OCTETS.items() if octets % factor == 0)
    return f"{octets // _OCTETS[unit]}{unit}"


def port(value: object) -> int:
    """Return a TCP port."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        raise ValueError(f"{quote(value)} is not a port (1-65535)")
    return value


def count(value: object) -> int:
    """Return a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{quote(value)} is not a whole number of 1 or more")
    return value


def times(value: object) -> int:
    """Return how often something is done again; 0 is never."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 100:
        raise ValueError(f"{quote(value)} is not a whole number from 0 to 100")
    return value


def connections(value: object) -> int:
    """Return how many connections may be open at once; a thousand is more than any relay takes."""
    if count(value) > 1000:
        raise ValueError(f"{quote(value)} connections are more than a relay takes (1-1000)")
    return count(value)


def rate(value: object) -> float:
    """Return a number of messages a second, 0 for no limit."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{quote(value)} is not a rate; write messages a second, or 0 for no limit")
    return float(value)


def domain_rates(value: object) -> dict[str, float]:
    """Return rates by domain, in lower case."""
    if not isinstance(value, dict):
        raise ValueError(  # noqa: TRY004 - pydantic takes it for a fault of the value only so
            f'{quote(value)} is no table; write {{ "example.com" = 5 }}'
        )
    rates = {}
    for domain, per_second in value.items():
        if is_ip(host(domain)):
            raise ValueError(f"{quote(domain)} is no domain of recipients")
        try:
            rates[domain.lower()] = rate(per_second)
        except ValueError as wrong:
            raise ValueError(f"{domain}: {wrong}") from None
    return rates


def share(value: object) -> float:
    """Return a share of a whole, 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{quote(value)} is not a share (0 to 1; 0.05 is one in twenty)")
    return float(value)


def line(value: object, *, longest: int = 200) -> str:
    """Return a text of one line: not empty, not long, and without characters that could end a command."""
    if not isinstance(value, str):
        raise ValueError(f"{quote(value)} is not a text; put it in quotes")  # noqa: TRY004 - pydantic wants it so
    if not value.strip():
        raise ValueError("it is empty")
    if has_control(value):
        raise ValueError("it holds a control character")
    if len(value) > longest:
        raise ValueError(f"it has {len(value)} characters, {longest} are the most")
    return value


def long_line(value: object) -> str:
    """Return a text of one line that may be as long as a path (PATH_MAX)."""
    return line(value, longest=4096)


def has_control(text: str) -> bool:
    """Return whether `text` holds a character that could end a line, a header or a command."""
    return any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in text)


def mailbox_address(value: object) -> str:
    """Return an address that mail can be sent to or from (RFC 5321 §4.1.2), as given."""
    try:
        return address.normalise(line(value)).given
    except InputError as error:
        raise ValueError(str(error)) from None


def host(value: object) -> str:
    """Return a host name or an IP address."""
    text = line(value)
    if is_ip(text) or (len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.split("."))):
        return text
    if not text.isascii():
        raise ValueError(f"{quote(text)} is not ASCII; write the host in its xn-- form")
    raise ValueError(f"{quote(text)} is not a host name or IP address; the port has a key of its own")


def ehlo_name(value: object) -> str:
    """Return a host name, or an IP address as a literal: `[192.0.2.1]` (RFC 5321 §4.1.3)."""
    text = line(value)
    if text.startswith("[") and is_ip(text[1:-1].removeprefix("IPv6:")):
        return text
    if is_ip(text):
        literal = f"[IPv6:{text}]" if ":" in text else f"[{text}]"
        raise ValueError(f"{quote(text)} is an IP address; write it as {quote(literal)}")
    return host(text)


def is_ip(text: str) -> bool:
    """Return whether `text` is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    """Return whether the host `name` is this machine for certain (RFC 6761 §6.3)."""
    if is_ip(name):
        return ipaddress.ip_address(name).is_loopback
    return name.lower().rstrip(".").rpartition(".")[2] == "localhost"


def list_id(value: object) -> str:
    """Return the identifier of a list: dot-separated atoms, at most 255 octets (RFC 2919 §2)."""
    text = line(value)
    if len(text) > 200 or not _LIST_ID.fullmatch(text):
        raise ValueError(
            f"{quote(text)} is not a list identifier; write it like a domain you own, without < >"
        )
    return text


def time_zone(value: object) -> zoneinfo.ZoneInfo:
    """Return a time zone of the IANA database."""
    if isinstance(value, zoneinfo.ZoneInfo):
        return value
    text = line(value)
    try:
        return zoneinfo.ZoneInfo(text)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder such as "Europe"
        hint = nearest(text, zoneinfo.available_timezones()) or 'write it like "Europe/Berlin"'
        raise ValueError(f"{quote(text)} is not a time zone; {hint}") from None


def credential(value: object) -> str:
    """Return the name of a credential: it must do as a file name and, in capitals, as a variable."""
    text = line(value)
    if not _CREDENTIAL.fullmatch(text):
        raise ValueError(
            "it is the name of a credential, not the secret itself; use letters, digits and hyphens"
        )
    return text


def store_key(text: str) -> str:
    """Return the name of a store in tables, log fields and commands; `*` stands for all of them."""
    if text == "*":
        raise ValueError("this name means all stores; give the store a name of its own")
    if not _STORE_KEY.fullmatch(text):
        raise ValueError("a store's name has 1 to 32 lower-case letters, digits and hyphens")
    return text


def https_url(value: object) -> str:
    """Return the base of https URLs, ending with a slash (RFC 8058 §3.1 demands https)."""
    text = line(value, longest=500)
    try:
        parts = urlsplit(text)
        host(parts.hostname)
    except ValueError:
        raise ValueError(f'{quote(text)} is not a URL; write it like "https://news.example.com/u/"') from None
    if parts.scheme != "https":
        raise ValueError(f"{quote(text)} is not https, which one-click unsubscribing demands (RFC 8058)")
    if parts.query or parts.fragment or "@" in parts.netloc or not text.isascii():
        raise ValueError(
            "it must be the plain beginning of a URL: no user, no ?query, no #fragment, ASCII only"
        )
    return text if text.endswith("/") else text + "/"


def nearest(word: str, known: set[str] | list[str]) -> str:
    """Return `did you mean "…"?` with the nearest of `known`, or "" if none is near."""
    found = get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f"did you mean {quote(found[0])}?" if found else ""
