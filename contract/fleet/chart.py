"""Shows what policies made of traces: a table, and an SVG of workers over time, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from contract.fleet.simulate import Outcome

_WIDTH, _ROW, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 170, 46, 14, 34, 30
_COLOURS = ("#0f6fc5", "#c2570c")


def draw(rows: Sequence[Sequence[Outcome]]) -> str:
    """Return the SVG; each row holds the outcomes of one trace, one a policy."""
    height = _ROW * len(rows) + 24
    size = f'viewBox="0 0 {_WIDTH} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12" role="img">',
        "<title>Workers over time, by trace and policy</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for n, outcomes in enumerate(rows):
        parts += _row(outcomes, n * _ROW)
    for n, outcome in enumerate(rows[0]):
        x, y = _LEFT + 190 * n, height - 12
        parts.append(f'<path d="M{x} {y - 4}h22" stroke="{_COLOURS[n % 2]}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 28}" y="{y}" fill="#333">{escape(outcome.policy)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _row(outcomes: Sequence[Outcome], top: int) -> list[str]:
    x0, x1, y0, y1 = _LEFT, _WIDTH - _RIGHT, top + _TOP, top + _ROW - _BOTTOM
    seconds = max(outcome.samples[-1].at for outcome in outcomes) or 1.0
    most = max(outcome.most_workers for outcome in outcomes) or 1
    parts = [
        f'<text x="{x0}" y="{top + 20}" fill="#111" font-weight="bold">{escape(outcomes[0].trace)}</text>',
        f'<path d="M{x0} {y0}V{y1}H{x1}" fill="none" stroke="#999"/>',
        f'<text x="{x0 - 6}" y="{y0 + 5}" text-anchor="end" fill="#555">{most}</text>',
        f'<text x="{x0 - 6}" y="{y1 + 4}" text-anchor="end" fill="#555">0</text>',
        f'<text x="{x1}" y="{y1 + 15}" text-anchor="end" fill="#555">{seconds / 60:.0f} minutes</text>',
    ]
    for n, outcome in enumerate(outcomes):
        path, last = "", -1
        for sample in outcome.samples:
            x = x0 + (x1 - x0) * sample.at / seconds
            y = y1 - (y1 - y0) * sample.workers / most
            if not path:
                path = f"M{x:.1f} {y:.1f}"
            elif sample.workers != last:
                path += f"H{x:.1f}V{y:.1f}"
            last = sample.workers
        path += f"H{x0 + (x1 - x0) * outcome.samples[-1].at / seconds:.1f}"
        parts.append(f'<path d="{path}" fill="none" stroke="{_COLOURS[n % 2]}" stroke-width="2"/>')
    return parts


_COLUMNS = {
    "trace": "trace",
    "policy": "policy",
    "minutes": "minutes to finish",
    "pod_hours": "pod-hours",
    "busy_share": "busy",
    "worst_wait_minutes": "worst wait",
    "slowest_job_minutes": "slowest job",
    "most_workers": "most workers",
    "turns": "turns",
}


def table(rows: Iterable[Sequence[Outcome]]) -> str:
    """Return the figures as a Markdown table; waits and jobs in minutes."""
    lines = ["| " + " | ".join(_COLUMNS.values()) + " |", "| --- | --- |" + " ---: |" * (len(_COLUMNS) - 2)]
    lines += [
        "| " + " | ".join(str(outcome.figures()[name]) for name in _COLUMNS) + " |" for row in rows for outcome in row
    ]
    return "\n".join(lines)
