"""Draw the dashboard as Prometheus answers its queries: `python docs/draw_dashboard.py URL FILE.png [MINUTES]`.

It made the picture in docs/howto/observe.md; Grafana draws the same lines where it runs.
"""

from __future__ import annotations

import io
import json
import re
import sys
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter, MinuteLocator
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

DASHBOARD = Path(__file__).resolve().parent.parent / "deploy" / "observability" / "dashboard.json"
POINTS = 120
"""Values of a line."""
WINDOW = "30s"
"""In place of `$__rate_interval`."""
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")


def lines(url: str, target: dict[str, str], since: float, until: float) -> list[tuple[str, list[tuple[float, float]]]]:
    """Return the name and the values of each line that a query of a panel draws."""
    query = target["expr"].replace("$__rate_interval", WINDOW)
    asked = urlencode({"query": query, "start": since, "end": until, "step": (until - since) / POINTS})
    with urllib.request.urlopen(f"{url}/api/v1/query_range?{asked}", timeout=30) as answer:
        found = json.loads(answer.read())["data"]["result"]

    def name(labels: dict[str, str]) -> str:
        return re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), target["legendFormat"])

    return [(name(one["metric"]), [(at, float(value)) for at, value in one["values"]]) for one in found]


def draw_panel(ax: Axes, panel: dict[str, Any], url: str, since: float, until: float) -> None:
    """Draw a panel; a line that is 0 throughout is left out."""
    ax.set_title(panel["title"], fontsize=9, loc="left", fontweight="bold")
    drawn = [
        one for target in panel["targets"] for one in lines(url, target, since, until) if any(v for _, v in one[1])
    ]
    for number, (name, values) in enumerate(drawn):
        times = [datetime.fromtimestamp(at, UTC) for at, _ in values]
        again, place = divmod(number, len(_COLOURS))
        style = ("-", "--", ":")[again % 3]
        ax.plot(times, [value for _, value in values], color=_COLOURS[place], linestyle=style, lw=1.2, label=name)
    unit = panel["fieldConfig"]["defaults"]["unit"]
    shown = {"s": lambda v, _: f"{v:g} s", "percentunit": lambda v, _: f"{v:.0%}"}.get(unit, lambda v, _: f"{v:,g}")
    ax.set_xlim(datetime.fromtimestamp(since, UTC), datetime.fromtimestamp(until, UTC))
    # Room for the legend above the lines.
    ax.set_ylim(0, 1.0 if unit == "percentunit" else 1.4 * max([0.7, *(v for _, values in drawn for _, v in values)]))
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter(FuncFormatter(shown))
    ax.xaxis.set_major_locator(MinuteLocator(interval=max(1, round((until - since) / 240))))
    ax.xaxis.set_major_formatter(DateFormatter("%H:%M"))
    ax.tick_params(labelsize=7, length=2)
    ax.grid(color="#dddddd", linewidth=0.5)
    ax.spines[["top", "right"]].set_visible(False)
    if drawn:
        ax.legend(fontsize=6, ncols=3, frameon=False, loc="upper left")
    else:
        ax.text(0.5, 0.5, "nothing", transform=ax.transAxes, ha="center", fontsize=8, color="#666666")


def main(url: str, file: str, minutes: str = "10") -> None:
    """Draw the last minutes, with each panel where the dashboard has it."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    until = time.time()
    rows = sorted({panel["gridPos"]["y"] for panel in panels})
    figure = Figure(figsize=(12, 2.5 * len(rows)), dpi=100, layout="constrained")
    grid = figure.add_gridspec(len(rows), 3)
    for panel in panels:
        place = panel["gridPos"]
        ax = figure.add_subplot(grid[rows.index(place["y"]), place["x"] // 8])
        draw_panel(ax, panel, url.rstrip("/"), until - 60 * float(minutes), until)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    Image.open(drawn).convert("RGB").quantize(128).save(file, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
