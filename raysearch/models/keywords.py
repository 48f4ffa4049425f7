"""Modules whose names are Python keywords: `self.class` is no code, so graphs write `getattr(self, "class")`."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable
from typing import Any

from torch import fx

_OWNER = r'(?:self|getattr\((?:[^()"]|"[^"]*"|\([^()]*\))*\))(?:\.[A-Za-z_]\w*)*?'
_KEYWORD = re.compile(rf"({_OWNER})\.({'|'.join(keyword.kwlist)})\b")


class KeywordTracer(fx.Tracer):
    """Traces the code of such a graph again, as unpickling does."""

    def trace(self, *args: Any, **kwargs: Any) -> fx.Graph:
        """A graph that writes keywords as it was written itself."""
        return quote_keywords(super().trace(*args, **kwargs))


def quote_keywords(graph: fx.Graph) -> fx.Graph:
    """Makes the graph's code legal Python where modules have the names of keywords; returns the graph."""
    if any(_has_keyword(node) for node in graph.nodes):
        graph._tracer_cls = KeywordTracer
        graph.on_generate_code(lambda _: _quoted)
    return graph


def _has_keyword(node: fx.Node) -> bool:
    named = node.op in ("call_module", "get_attr")
    return named and any(keyword.iskeyword(part) for part in str(node.target).split("."))


def _quoted(code: Iterable[str]) -> list[str]:
    return [_quote(line) for line in code]


def _quote(line: str) -> str:
    found = _KEYWORD.sub(r'getattr(\1, "\2")', line)
    return line if found == line else _quote(found)
