"""Elements of HTML and SVG; what is text stays text, because ElementTree escapes all of it."""

import re
from typing import Final
from xml.etree.ElementTree import Element, tostring

# What XML cannot hold at all, and what turns lines around or steers something.
_NO_TEXT: Final = re.compile(r"[^\n\t]")


def element(tag: str, *children: Element | str | None, **attributes: str | float) -> Element:
    """`class_` is the attribute class, `aria_label` is aria-label; None is no child."""
    made = Element(
        tag,
        {name.rstrip("_").replace("_", "-"): plain(_shown(v)) for name, v in attributes.items()},
    )
    for child in children:
        if isinstance(child, Element):
            made.append(child)
        elif child is not None:
            _add_text(made, plain(child))
    return made


def plain(text: str) -> str:
    """What may stand in a page or picture; `element` does this to all that it is given."""
    return _NO_TEXT.sub(lambda one: one[0] if one[0].isprintable() else "\ufffd", text)


def as_html(root: Element) -> str:
    return "<!DOCTYPE html>\n" + tostring(root, encoding="unicode", method="html") + "\n"


def as_svg(root: Element) -> str:
    return tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _add_text(parent: Element, text: str) -> None:
    if len(parent):
        parent[-1].tail = (parent[-1].tail or "") + text
    else:
        parent.text = (parent.text or "") + text


def _shown(value: str | float) -> str:
    """Coordinates to a tenth of a pixel's size."""
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
