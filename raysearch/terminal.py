"""What a terminal can take: a stream that cannot break a run, and characters that its encoding has."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO


class SafeStream(io.TextIOBase):
    """A text stream that swallows the failures of the one beneath: closed, a broken pipe, a character it cannot encode."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The encoding of the stream beneath; UTF-8 where it names none."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str, /) -> int:
        """Writes what can be written."""
        with contextlib.suppress(OSError, ValueError):  # a broken pipe, a full disk, a closed file
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                known = text.encode(self.encoding, "replace").decode(self.encoding)
                self._stream.write(known)
        return len(text)

    def flush(self) -> None:
        """Flushes if that is possible."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Whether a person's terminal is beneath."""
        try:
            return self._stream.isatty()
        except (OSError, ValueError, AttributeError):
            return False

    def fileno(self) -> int:
        """The descriptor beneath."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """Always: what cannot be written is dropped."""
        return True


def is_lively(stream: SafeStream) -> bool:
    """Whether a moving picture makes sense: a terminal that can move the cursor, and a person in front of it."""
    if os.environ.get("TERM", "") in ("dumb", "unknown") or os.environ.get("CI"):
        return False
    return stream.isatty()


@dataclass(frozen=True)
class Glyphs:
    """The characters of the display."""

    tick: str
    dot: str
    full: str
    empty: str
    spark: str
    ascii_only: bool

    @classmethod
    def of(cls, encoding: str) -> Glyphs:
        """Unicode's where the encoding is UTF, else ASCII's."""
        try:
            name = codecs.lookup(encoding).name
        except LookupError:
            name = "ascii"
        return UNICODE if name.startswith("utf") else ASCII

    def clean(self, text: str) -> str:
        """The text on one line, without control characters, in the characters that there are."""
        text = "".join(character if character.isprintable() else " " for character in text)
        if not self.ascii_only:
            return text
        return text.replace("–", "-").replace("·", "-").encode("ascii", "replace").decode("ascii")

    def bar(self, fraction: float, width: int) -> tuple[str, str]:
        """The full and the empty part of a bar of `width` characters."""
        filled = round(width * min(1.0, max(0.0, fraction)))
        return self.full * filled, self.empty * (width - filled)

    def sparkline(self, values: Sequence[float], width: int) -> str:
        """The values as a row of at most `width` bars from the least to the greatest; of each group the best one shows."""
        if not values or width < 1:
            return ""
        size = -(-len(values) // width)
        tops = [max(values[at : at + size]) for at in range(0, len(values), size)]
        low, span = min(tops), max(tops) - min(tops)
        last = len(self.spark) - 1
        return "".join(
            self.spark[round(last * (top - low) / span) if span else last] for top in tops
        )


UNICODE = Glyphs("✓", "·", "━", "─", "▁▂▃▄▅▆▇█", ascii_only=False)
ASCII = Glyphs("*", "-", "#", "-", "_.-=+*#@", ascii_only=True)
