"""The bar chart of the main rows, as SVG text from the JSON document. Pure.

It carries its own colours for light and dark pages, and every bar its number: nothing must be read off an axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import escape

from tests.bench.results import PEERS
from tests.bench.rows import BARE, Group

_WIDTH, _LEFT, _RIGHT = 760, 240, 100
_BAR, _GAP, _HEADING = 15, 12, 34
_DIRECTIONS = (("down", "tcp1_down_gbit_s"), ("up", "tcp1_up_gbit_s"))
_STYLE = """\
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f; }
.small { font-size: 11px; fill: #57606a; }
.heading { font-weight: 600; }
.down { fill: #0969da; } .up { fill: #1a7f37; }
.peer.down { fill: #8c959f; } .peer.up { fill: #afb8c1; }
.spread { stroke: #24292f; stroke-opacity: .55; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .small { fill: #9198a1; }
  .down { fill: #4493f8; } .up { fill: #3fb950; }
  .peer.down { fill: #6e7681; } .peer.up { fill: #484f58; }
  .spread { stroke: #e6edf3; }
}"""


def draw(document: dict[str, Any]) -> str:
    """The chart of all measured tunnels: TCP, one stream, medians with their spread."""
    shown = [*_entries(document)]
    longest = max((entry["max"] for row in shown for entry in row["bars"].values()), default=1.0)
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    body, y = [], 50
    group = None
    for row in shown:
        if row["group"] is not group:
            group = row["group"]
            body.append(_text(12, y + 14, group.heading, "heading"))
            y += _HEADING - 8
        body += _bars(row, y, scale)
        y += len(_DIRECTIONS) * _BAR + _GAP
    height = y + 46
    body += [_text(12, y + 20 + 15 * index, line, "small") for index, line in enumerate(_remarks(document))]
    title = "TCP through the tunnel, one stream, Gbit/s"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
            f'height="{height}" role="img" aria-label="{title}">',
            f"<title>{title}</title>",
            f"<style>{_STYLE}</style>",
            _text(12, 24, title, "heading"),
            *_legend(),
            *body,
            "</svg>\n",
        ]
    )


def _entries(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for group in (Group.PAIR, Group.GO_PROXY):
        rows = [row for row in document["rows"] if row["group"] == group]
        if rows and group is Group.GO_PROXY:
            rows += [row for row in document["rows"] if row["key"] in PEERS[group]]
        for row in rows:
            bars = {way: row["summary"][key] for way, key in _DIRECTIONS if key in row["summary"]}
            if bars:
                yield {"group": group, "label": row["label"], "bars": bars}


def _bars(row: dict[str, Any], y: int, scale: float) -> Iterator[str]:
    yield _text(_LEFT - 10, y + _BAR + 4, row["label"], "", anchor="end")
    kind = "" if row["label"].startswith("ours") else "peer "
    for index, (way, spread) in enumerate(row["bars"].items()):
        top, width = y + index * _BAR, spread["median"] * scale
        middle = top + _BAR / 2 - 0.5
        low, high = (_LEFT + spread[name] * scale for name in ("min", "max"))
        yield f'<rect class="{kind}{way}" x="{_LEFT}" y="{top}" width="{width:.1f}" height="{_BAR - 2}" rx="2"/>'
        yield f'<line class="spread" x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}"/>'
        yield _text(max(_LEFT + width, high) + 6, top + 11, f"{spread['median']:.2f}", "small")


def _legend() -> Iterator[str]:
    for index, (kind, text) in enumerate((("down", "down"), ("up", "up"), ("peer down", "others"))):
        x = _WIDTH - 230 + index * 70
        yield f'<rect class="{kind}" x="{x}" y="14" width="12" height="12" rx="2"/>'
        yield _text(x + 17, 24, text, "small")


def _remarks(document: dict[str, Any]) -> list[str]:
    bare: dict[str, Any] = next((row["summary"] for row in document["rows"] if row["key"] == BARE), {})
    speeds = [f"{bare[key]['median']:.1f} {way}" for way, key in _DIRECTIONS if key in bare]
    machine = document["machine"]
    return [
        f"Medians of {document['settings']['runs']} interleaved runs; thin lines from the least to the greatest. "
        + (f"The bare path: {', '.join(speeds)}." if speeds else ""),
        f"{document['date']}, {machine['cores']} cores shared by everything ({machine['cpu']}), "
        f"Linux {machine['kernel']}.",
    ]


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(text)}</text>'
