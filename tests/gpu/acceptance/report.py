"""The report of an acceptance run: checks that pass or fail, figures, and what they were measured on."""

from __future__ import annotations

import json
import math
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Check:
    """A statement and whether it held; `detail` says what was seen."""

    name: str
    passed: bool
    detail: str


@dataclass
class Report:
    """Checks and figures; it is written after each stage, so that a run cut short leaves what it has."""

    folder: Path
    about: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """What was not tried, and why."""
    seconds: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)
    limit: float = float("inf")
    """Seconds after which no stage begins."""

    def say(self, line: str) -> None:
        """Print a line, with the seconds since the start."""
        print(f"{time.perf_counter() - self.began:6.1f} {line}", flush=True)

    def check(self, name: str, passed: bool, detail: str = "") -> None:
        self.checks.append(Check(name, passed, detail))
        self.say(f"{'ok  ' if passed else 'FAIL'} {name}{f': {detail}' if detail else ''}")

    def figure(self, stage: str, name: str, value: Any) -> None:
        if isinstance(value, float) and not math.isfinite(value):
            value = None  # JSON has no other word for what could not be measured
        self.figures.setdefault(stage, {})[name] = value
        self.say(f"     {name}: {value:,.4g}" if isinstance(value, float) else f"     {name}: {value}")

    def skip(self, what: str, why: str) -> None:
        self.skipped[what] = why
        self.say(f"skip {what}: {why}")

    def in_time(self, name: str) -> bool:
        """Return whether a stage may begin; one that comes too late is a failed check."""
        late = time.perf_counter() - self.began > self.limit
        if late:
            self.check(f"{name} begins in time", False, f"{self.limit:.0f} s were over before")
            self.write()
        return not late

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; an error in it is a failed check, and the next stage runs."""
        self.say(f"{name} …")
        began = time.perf_counter()
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.check(f"{name} runs to its end", False, f"{type(error).__name__}: {str(error)[:300]}")
        self.seconds[name] = round(time.perf_counter() - began, 1)
        self.write()

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(check.passed for check in self.checks)

    def write(self) -> None:
        """Write `gpu.json` and `gpu.md`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        checks = [vars(check) for check in self.checks]
        whole = {
            "about": self.about,
            "seconds": self.seconds,
            "checks": checks,
            "skipped": self.skipped,
            "figures": self.figures,
        }
        (self.folder / "gpu.json").write_text(json.dumps(whole, indent=1))
        lines = ["# GPU acceptance", ""]
        lines += [f"- {name}: {value}" for name, value in self.about.items()]
        lines += ["", "| check | passed | seen |", "| --- | --- | --- |"]
        lines += [f"| {c.name} | {'yes' if c.passed else '**no**'} | {c.detail} |" for c in self.checks]
        if self.skipped:
            lines += ["", "| skipped | why |", "| --- | --- |"]
            lines += [f"| {what} | {why} |" for what, why in self.skipped.items()]
        for stage, figures in self.figures.items():
            lines += ["", f"## {stage}", "", "| figure | value |", "| --- | --- |"]
            lines += [f"| {name} | {_plain(value)} |" for name, value in figures.items()]
        (self.folder / "gpu.md").write_text("\n".join(lines) + "\n")


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)
