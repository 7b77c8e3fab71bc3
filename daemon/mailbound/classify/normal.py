"""A text as the rules want it: lower case, no accents, single blanks, nobody's name, no codes between its words."""

from __future__ import annotations

import functools
import re
import unicodedata

LIMIT = 4000
"""How many characters of a text are judged."""

SOMEONE = "someone@somewhere"
"""Stands for every address: what somebody is called decides nothing."""

_ADDRESS = re.compile(r"[^\s<>()\[\],;:\"'@]{1,64}@[\w-]+(?:\.[\w-]+)*")

# A reply of several lines carries its code before each of them, in the middle of a sentence (RFC 5321 §4.2.1).
# The blank comes first, since that is quick to look for.
_CODE_AGAIN = re.compile(
    r" (?<=[^\s:] )[245][0-5]\d(?:-(?:[245]\.\d{1,3}\.\d{1,3} )?| [245]\.\d{1,3}\.\d{1,3} )"
)

# Half of the servers that speak French or Czech leave the accents out. Only of Latin letters: in Cyrillic й is no и.
_LATIN = (*range(0xC0, 0x250), *range(0x1E00, 0x1F00))
_PLAIN = {code: unicodedata.normalize("NFD", chr(code))[0] for code in _LATIN}
_PLAIN |= {
    ord(letter): plain for letter, plain in zip("łøđßæœ", ("l", "o", "d", "ss", "ae", "oe"), strict=True)
}
_PLAIN |= {
    0x131: "i",
    0x307: "",
    0x2018: "'",
    0x2019: "'",
}  # Turkish i without its dot, i with it; apostrophes

# IronPort puts the registry's words for its own code before what the other server said: `5.1.0 - Unknown address
# error 550-'the reply'`.
_IRONPORT = re.compile(r"^[245]\.\d\.\d - [a-z ]+ (?=[245]\d\d[- ]['\"])")


def text(written: str) -> str:
    """Return `written` as the rules want it, cut at `LIMIT`."""
    return _text(written[:LIMIT])


@functools.lru_cache(maxsize=512)  # whoever classified a text asks for its gist soon
def _text(written: str) -> str:
    words = plain(written.lower()).split()
    if "@" in written:  # few of the words are addresses, and none is longer than a word
        words = [_ADDRESS.sub(SOMEONE, word) if "@" in word else word for word in words]
    joined = " ".join(words)
    if "_" in joined:  # USER_UNKNOWN is words as well
        joined = " ".join(joined.replace("_", " ").split())
    return _CODE_AGAIN.sub(" ", _IRONPORT.sub("", joined))


def plain(written: str) -> str:
    """Return `written` without the accents of its Latin letters, and with plain apostrophes."""
    if written.isascii():
        return written
    return unicodedata.normalize("NFC", written).translate(_PLAIN)
