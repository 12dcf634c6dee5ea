"""The paper's Figure 5 for any network: memory as stacked bars, as a small SVG file."""

from collections.abc import Sequence
from xml.sax.saxutils import escape

from peppp.records import Footprint

_PARTS = (("weights", "#4e79a7"), ("activations", "#f28e2b"), ("optimizer", "#59a14f"), ("raw", "#9c9c9c"))
_BAR, _GAP, _HEIGHT, _LEFT, _TOP = 64, 36, 260, 64, 44


def stacked_bars(rows: Sequence[tuple[str, Footprint]], title: str) -> str:
    """An SVG of one bar a row: weights, activations, optimizer and raw bytes on top of each other, in MB.

    >>> stacked_bars([("fp32/fp32", Footprint(10**7, 3 * 10**7, 10**7, {}))], "A network")[:4]
    '<svg'
    """
    highest = max((footprint.total for _, footprint in rows), default=1) or 1
    width = max(_LEFT + len(rows) * (_BAR + _GAP) + _GAP, 420)
    height = _TOP + _HEIGHT + 56
    body = [f'<text x="{_LEFT}" y="20" font-size="14" font-weight="bold">{escape(title)}</text>']
    for number, (part, colour) in enumerate(_PARTS):
        x = _LEFT + 88 * number
        body.append(f'<rect x="{x}" y="28" width="10" height="10" fill="{colour}"/>')
        body.append(f'<text x="{x + 14}" y="37" font-size="11">{part}</text>')
    for step in range(5):
        y = _TOP + _HEIGHT - _HEIGHT * step / 4
        label = f"{highest * step / 4 / 10**6:.0f}"
        body.append(f'<line x1="{_LEFT}" x2="{width - 8}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        body.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" font-size="11" text-anchor="end">{label}</text>')
    body.append(f'<text x="8" y="{_TOP + 4}" font-size="11">MB</text>')
    for number, (label, footprint) in enumerate(rows):
        x, y = _LEFT + _GAP + number * (_BAR + _GAP), float(_TOP + _HEIGHT)
        for part, colour in _PARTS:
            size = getattr(footprint, part)
            tall = _HEIGHT * size / highest
            y -= tall
            body.append(
                f'<rect x="{x}" y="{y:.2f}" width="{_BAR}" height="{tall:.2f}" fill="{colour}">'
                f"<title>{part}: {size / 10**6:.1f} MB</title></rect>"
            )
        middle = x + _BAR / 2
        for text, below in ((f"{footprint.total / 10**6:.1f}", y - 4), (label, _TOP + _HEIGHT + 18)):
            place = f'x="{middle}" y="{below:.1f}" font-size="11" text-anchor="middle"'
            body.append(f"<text {place}>{escape(text)}</text>")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" role="img"><title>{escape(title)}</title>'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(body)}</svg>\n'
    )
