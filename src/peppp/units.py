"""Sizes in bytes, parsed from and formatted as text. 1 MB is 10^6 bytes; only MiB means 2^20."""

import re

from peppp.arguments import checked
from peppp.errors import SizeError

_FACTORS = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]*)\s*", re.ASCII)


@checked
def parse_bytes(text: str | int | float) -> int:
    """Parse a size into bytes; a number without a unit counts bytes.

    Raises SizeError for anything that is not a positive, finite size.

    >>> parse_bytes("100 mb"), parse_bytes("1.5GB"), parse_bytes("2GiB"), parse_bytes(4096)
    (100000000, 1500000000, 2147483648, 4096)
    """
    match = _SIZE.fullmatch(str(text)) if not isinstance(text, float) else _SIZE.fullmatch(f"{text:f}")
    factor = _FACTORS.get(match[2].upper() or "B") if match else None
    if match is None or factor is None or not 0.5 < float(match[1]) * factor < float("inf"):
        raise SizeError(f"not a size: {text!r}; write a number and a unit, such as 100MB, 1.5 GB or 512MiB")
    return round(float(match[1]) * factor)


@checked
def format_bytes(count: int | float) -> str:
    """Format a number of bytes in decimal units, with three or four significant digits.

    >>> format_bytes(1_200_000_000), format_bytes(95_234_567), format_bytes(8_300), format_bytes(830)
    ('1.20 GB', '95.2 MB', '8.30 kB', '830 B')
    """
    count = float(count)
    for unit in ("TB", "GB", "MB", "kB"):
        factor = _FACTORS[unit.upper()]
        if abs(count) >= 0.9995 * factor:
            value = count / factor
            return f"{value:.2f} {unit}" if abs(value) < 10 else f"{value:.1f} {unit}"
    return f"{count:.0f} B"
