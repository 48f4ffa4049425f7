"""HTML that is safe by construction: text is escaped unless it is already `Html`, which only this module makes."""

from __future__ import annotations

import html
from collections.abc import Container, Iterable

VOID = {"meta", "br", "hr", "col"}


class Html(str):
    """Finished HTML; concatenating it with plain text gives plain text, which is escaped again."""

    __slots__ = ()


Child = str | int | Iterable["Child"] | None


def element(tag: str, *children: Child, **attributes: str | int | None) -> Html:
    """One element.

    Args:
        tag: the element's name, from the program, never from a user.
        children: text (escaped), `Html`, numbers, None (nothing), or iterables of these.
        attributes: values (escaped); a trailing underscore is dropped ("class_"), others become hyphens ("aria_label"); None leaves
            the attribute out.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{join(*children)}</{tag}>")


def join(*children: Child) -> Html:
    """The children one after another."""
    return Html("".join(_render(child) for child in children))


def table(
    head: Iterable[Child],
    rows: Iterable[Html],
    *,
    caption: str,
    numeric: Container[int] = range(1, 99),
) -> Html:
    """A table in a box that scrolls by itself, so that the page never does.

    Args:
        head: the columns' titles.
        rows: `tr` elements.
        caption: says what the table holds, for screen readers.
        numeric: the columns of numbers, set flush right.
    """
    titles = [
        element("th", title, scope="col", class_="num" if place in numeric else None)
        for place, title in enumerate(head)
    ]
    inner = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", titles)),
        element("tbody", rows),
    )
    return element("div", inner, class_="scroll", tabindex=0, role="region", aria_label=caption)


def bar_cell(share: float | None) -> Html:
    """A cell with a bar of that share of its width; empty for None."""
    width = None if share is None else f"width:{100 * min(1.0, max(0.0, share)):.1f}%"
    return element("td", element("i", style=width) if width else None, class_="bar")


def _render(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return str(child)
    if isinstance(child, str | int):
        return html.escape(str(child))
    return "".join(_render(part) for part in child)
