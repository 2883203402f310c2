"""Tables from the JSON document: for a terminal, and as Markdown for the README. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tests.bench.results import PEERS
from tests.bench.rows import Group

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
NOTHING, ABSENT, FAILED = "–", "absent: ", "failed: "

Document = dict[str, Any]
Table = list[list[str]]
"""Cells; the first line is the head."""

_TUNNEL_COLUMNS = (
    ("TCP down, Gbit/s", ("tcp1_down_gbit_s",), 1.0, True),
    ("TCP up, Gbit/s", ("tcp1_up_gbit_s",), 1.0, True),
    ("4 streams, down / up", ("tcp4_down_gbit_s", "tcp4_up_gbit_s"), 1.0, False),
    ("UDP 64 / 1200 B, 1000 packets/s", ("udp64_pps", "udp1200_pps"), 1e-3, False),
    ("added rtt idle, p50 / p99 ms", ("added_rtt_idle_p50_ms", "added_rtt_idle_p99_ms"), 1.0, False),
    ("half load", ("added_rtt_load_p50_ms", "added_rtt_load_p99_ms"), 1.0, False),
    ("client CPU down / up, s/GB", ("client_cpu_s_per_gb_down", "client_cpu_s_per_gb_up"), 1.0, False),
    ("proxy CPU", ("proxy_cpu_s_per_gb_down", "proxy_cpu_s_per_gb_up"), 1.0, False),
    ("client memory, MiB", ("client_peak_mib",), 1.0, False),
    ("connect, s", ("connect_s",), 1.0, False),
)
_FORWARDER_COLUMNS = (
    ("64 B, 1000 packets/s", ("udp64_pps",), 1e-3, True),
    ("1200 B, 1000 packets/s", ("udp1200_pps",), 1e-3, True),
    ("client CPU 64 / 1200 B, µs/packet", ("udp64_client_cpu_us", "udp1200_client_cpu_us"), 1.0, False),
    ("proxy CPU", ("udp64_proxy_cpu_us", "udp1200_proxy_cpu_us"), 1.0, False),
    ("client memory, MiB", ("client_peak_mib",), 1.0, False),
    ("connect, s", ("connect_s",), 1.0, False),
)


def text_report(document: Document) -> str:
    """Everything, for a terminal."""
    parts = [f"{heading}\n{_align(table)}" for heading, table in _tables(document)]
    parts.append(f"Bars\n{_align(bars_table(document))}")
    troubles = [f"{row['key']}: {text}" for row in document["rows"] for text in row["failures"]]
    if troubles:
        parts.append("Failed\n" + "\n".join(troubles))
    return "\n\n".join([*parts, _described(document)]) + "\n"


def markdown_report(document: Document, chart: str | None = None) -> str:
    """The README's block; `chart` is the path of the SVG as seen from there."""
    parts = [f"![TCP throughput of the tunnels]({chart})"] if chart else []
    parts.append(_described(document))
    parts += [f"**{heading}**\n\n{_markdown(table)}" for heading, table in _tables(document)]
    parts.append(f"**What was promised**\n\n{_markdown(bars_table(document))}")
    return "\n\n".join(parts)


def replace_block(readme: str, block: str) -> str:
    """`readme` with what stands between the two marks replaced.

    Raises:
        ValueError: the marks are not there, once each and in order.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"the README needs one {BEGIN} and, after it, one {END}")
    return f"{before}{BEGIN}\n{block.strip()}\n{END}{after}"


def bars_table(document: Document) -> Table:
    """Each promise, what it asks for and what was found."""
    table = [["", "required", "measured", "min–max", "reached"]]
    for bar in document["bars"]:
        measured = bar["measured"]
        found = [_number(measured["median"]), _range(measured)] if measured else [NOTHING, NOTHING]
        table.append(
            [bar["name"], bar["required"], *found, {True: "yes", False: "no", None: "not measured"}[bar["ok"]]]
        )
    return table


def _tables(document: Document) -> Iterable[tuple[str, Table]]:
    for group in Group:
        rows = [row for row in document["rows"] if row["group"] == group]
        if group is Group.BARE or not rows:
            continue
        if group is Group.PAIR:
            rows = [row for row in document["rows"] if row["group"] == Group.BARE] + rows
        if group is Group.GO_PROXY:  # its own client there is the pair of the table before
            rows += [row for row in document["rows"] if row["key"] in PEERS[group]]
        columns = _FORWARDER_COLUMNS if group.is_forwarder else _TUNNEL_COLUMNS
        yield group.heading, [["", *(head for head, *_ in columns)], *(_line(row, columns) for row in rows)]


def _line(row: Document, columns: Sequence[tuple[str, tuple[str, ...], float, bool]]) -> list[str]:
    if not row["summary"]:
        reason = (
            f"{ABSENT}{row['absent']}" if row["absent"] else f"{FAILED}{(row['failures'] or ['nothing measured'])[0]}"
        )
        return [row["label"], reason, *[""] * (len(columns) - 1)]
    return [row["label"], *(_cell(row["summary"], keys, scale, ranged) for _, keys, scale, ranged in columns)]


def _cell(summary: Document, keys: tuple[str, ...], scale: float, ranged: bool) -> str:
    found = [summary.get(key) for key in keys]
    text = " / ".join(_number(spread["median"] * scale) if spread else NOTHING for spread in found)
    if not ranged or found[0] is None or found[0]["min"] == found[0]["max"]:
        return text
    return f"{text} ({_range({name: value * scale for name, value in found[0].items()})})"


def _range(spread: dict[str, float]) -> str:
    return f"{_number(spread['min'])}–{_number(spread['max'])}"


def _number(value: float) -> str:
    """Three digits are more than enough, two behind the point at most."""
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def _described(document: Document) -> str:
    machine, versions = document["machine"], document["versions"]
    settings = document["settings"]
    programs = ", ".join(f"{name} {text}" for name, text in versions.items())
    return (
        f"Measured {document['date']} on {machine['cores']} cores ({machine['cpu']}, {machine['memory_gib']} GiB, "
        f"Linux {machine['kernel']}), shared by client, proxy, load and measuring. Medians of {settings['runs']} "
        f"interleaved runs, in parentheses the least and the greatest; ratios within a run, then their median. "
        f"Command: `{document['command']}`. {programs}."
    )


def _align(table: Table) -> str:
    whole = [line for line in table if not line[1].startswith((ABSENT, FAILED))]
    widths = [
        max(len(line[0]) for line in table),
        *(max(map(len, column)) for column in [*zip(*whole, strict=True)][1:]),
    ]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table
    )


def _markdown(table: Table) -> str:
    head, *lines = table
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in (head, rule, *lines))
