"""Numbers as people read them: shares, counts and durations, the same in the terminal and in the report."""

from __future__ import annotations

import math

MISSING = "–"


def percent(share: float | None, digits: int = 1) -> str:
    """0.9617 -> "96.2 %"; a missing or non-finite value is a dash."""
    if share is None or not math.isfinite(share):
        return MISSING
    return f"{100 * share:.{digits}f} %"


def decimal(value: float | None, digits: int = 3) -> str:
    """0.89123 -> "0.891"; a missing or non-finite value is a dash."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.{digits}f}"


def count(number: int | None) -> str:
    """4132 -> "4,132"."""
    return MISSING if number is None else f"{number:,}"


def short_count(number: float | None) -> str:
    """4132 -> "4.13 k", 1250000 -> "1.25 M": three significant digits."""
    if number is None or not math.isfinite(number):
        return MISSING
    scaled, unit = float(number), ""
    for unit in ("", " k", " M", " G", " T"):
        if abs(scaled) < 999.5 or unit == " T":
            break
        scaled /= 1000
    digits = 0 if abs(scaled) >= 99.95 else 1 if abs(scaled) >= 9.995 else 2
    text = f"{scaled:.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + unit


def file_size(num_bytes: int) -> str:
    """2,300,000 -> "2.3 MB", in decimal units."""
    return f"{short_count(num_bytes)}{'' if num_bytes >= 1000 else ' '}B"


def duration(seconds: float | None) -> str:
    """4.23 -> "4.2 s", 62 -> "1 min 02 s", 3900 -> "1 h 05 min"."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def clock(seconds: float) -> str:
    """62 -> "1:02", 3900 -> "1:05:00": for displays that tick."""
    whole = max(0, int(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
