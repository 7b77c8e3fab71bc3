"""CSS moved into `style` attributes, since many mail readers ignore style sheets."""

from __future__ import annotations

import css_inline

from mailbound.template import protection

# Media queries cannot be attributes; they stay behind for the readers that know them. Nothing is ever fetched.
_inliner = css_inline.CSSInliner(keep_at_rules=True, load_remote_stylesheets=False)


def inline(html: str) -> str:
    """Return rendered HTML with its style sheets inlined; unchanged if it has none."""
    return _inliner.inline(html) if "<style" in html else html


def inline_source(source: str) -> str | None:
    """Return the source of a template with its style sheets inlined.

    None if they can only be inlined in rendered HTML, or if it shows none: what it includes may have some.
    """
    if "<style" not in source:
        return None
    protected = protection.protect(source)
    if protected is None or not protected.is_nested() or protected.sways_styles():
        return None
    html = _inliner.inline(protected.html)
    return protected.restore(html) if protected.keeps(html) else None
