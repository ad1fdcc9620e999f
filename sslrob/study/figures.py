"""A comparison as plots, PNG and SVG; the same numbers give the same files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslrob.errors import SslrobError
from sslrob.runs import telling_of_the_disk
from sslrob.study import tables
from sslrob.study.comparison import CLEAN, WORST, Comparison, Estimate, Result, Table
from sslrob.study.tables import verdict_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito (2008): told apart by people who see fewer colours; black is the reference.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8C6D31")
MARKERS = "osD^vPX*"
REFERENCE = "black"
STYLE: Any = {
    "svg.hashsalt": "sslrob",  # names inside the file, else random
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "axes.axisbelow": True,
    "legend.frameon": False,
}
COLUMNS = 4  # panels side by side


def write(comparison: Comparison, runs: Path, out: Path) -> list[Path]:
    """Tables and plots in a folder, which is made; returns the files.

    Raises:
        SslrobError: matplotlib is not installed.
        RunFailed: the disk does not take them.
    """
    with telling_of_the_disk(out):
        out.mkdir(parents=True, exist_ok=True)
        written = []
        for form, suffix in (("markdown", "md"), ("csv", "csv"), ("json", "json")):
            path = out / f"tables.{suffix}"
            path.write_text(tables.render(comparison, runs, form) + "\n", encoding="utf-8")
            written.append(path)
        with _styled():
            for name, figure in figures(comparison):
                for path, metadata in ((out / f"{name}.png", {"Software": None}), (out / f"{name}.svg", {"Date": None, "Creator": None})):
                    figure.savefig(path, metadata=metadata, dpi=150, bbox_inches="tight")
                    written.append(path)
    return written


def _styled() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise SslrobError("plots need matplotlib, which is not installed", hint="pip install matplotlib") from None
    return matplotlib.rc_context(STYLE)


def figures(comparison: Comparison) -> Iterator[tuple[str, Figure]]:
    """Name and figure of everything that there is to draw."""
    if not comparison.tables:
        return
    compared = comparison.study.backbones
    yield "robustness", _curves(comparison, comparison.tables, lambda one: [name for name in compared if name in one.results])
    if any(one.tests for one in comparison.tables):
        yield "differences", _differences(comparison)
    for factor, variants in comparison.study.factors.items():
        there = [one for one in comparison.tables if sum(name in one.results for name in variants) > 1]
        if there:
            yield f"factor-{re.sub(r'[^a-z0-9]+', '-', factor.lower()).strip('-')}", _factor(comparison, there, factor, variants)
    pairs = comparison.study.hardened
    there = [one for one in comparison.tables if any(a in one.results and b in one.results for a, b in pairs.items())]
    if there:
        yield "hardened", _curves(comparison, there, lambda one: [n for n in dict.fromkeys([*pairs.values(), *pairs]) if n in one.results])


def _panels(n: int, *, width: float = 3.6, height: float = 3.1, rows: int | None = None) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(n, COLUMNS) if rows is None else n // rows
    lines = -(-n // columns)
    figure = Figure(figsize=(width * columns, height * lines), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(lines, columns, i + 1) for i in range(n)]
    return figure, axes


def _title(one: Table) -> str:
    return f"{one.dataset} · {one.recipe}\n{one.images} images"


def _look(comparison: Comparison) -> Mapping[str, dict[str, Any]]:
    """Colour, marker and line of every backbone, the same in all plots: a hardened one is its natural self, dashed."""
    study = comparison.study
    others = [name for name in dict.fromkeys([*study.backbones, *study.hardened.values()]) if name != study.reference]
    look: dict[str, dict[str, Any]] = {
        name: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "linestyle": "-"} for i, name in enumerate(others)
    }
    if study.reference is not None:
        look[study.reference] = {"color": REFERENCE, "marker": "o", "linestyle": "-"}
    for hardened, natural in study.hardened.items():
        look[hardened] = {**look[natural], "linestyle": "--", "markerfacecolor": "white"}
    return look


def _curves(comparison: Comparison, those: Sequence[Table], backbones: Any) -> Figure:
    """The metric against epsilon, one line a backbone, a panel for each data set and recipe."""
    figure, axes = _panels(len(those))
    look = _look(comparison)
    handles: dict[str, Any] = {}
    for one, panel in zip(those, axes, strict=True):
        for name in backbones(one):
            xs, found = _curve(one.results[name], one)
            (line,) = panel.plot(xs, [e.value for e in found], markersize=4, linewidth=1.4, label=comparison.names[name], **look[name])
            panel.fill_between(xs, [e.low for e in found], [e.high for e in found], color=look[name]["color"], alpha=0.1, linewidth=0)
            handles.setdefault(name, line)
        _epsilon_axis(panel, one)
        panel.set_title(_title(one), fontsize=9)
        panel.set_ylabel(f"{one.metric} in %, {WORST if len(one.attacks) > 1 else one.attacks[0]}")
        panel.set_ylim(bottom=0)
    _legend(figure, comparison, handles)
    return figure


def _curve(result: Result, one: Table) -> tuple[list[float], list[Estimate]]:
    """Epsilon and estimate of each point, from 0, which is clean, on."""
    attack = WORST if len(one.attacks) > 1 else one.attacks[0]
    points = [(0.0, result.clean)]
    points += [(_radius(t, one), result.robust[attack, t]) for t in one.epsilons if (attack, t) in result.robust]
    return [x for x, _ in points], [e for _, e in points]


def _radius(threat_model: str, one: Table) -> float:
    """On the scale of the axis: 255ths for linf, else as it is."""
    radius = float(Fraction(*map(Fraction, threat_model.partition(":")[2].split("/"))))
    return 255 * radius if _linf(one) else radius


def _linf(one: Table) -> bool:
    return all(text.startswith("linf:") for text in one.epsilons)


def _epsilon_axis(panel: Axes, one: Table) -> None:
    xs = sorted({0.0, *(_radius(text, one) for text in one.epsilons)})
    panel.set_xticks(xs, ["clean" if x == 0 else f"{x:g}" for x in xs])
    panel.set_xlabel("epsilon in 255ths (linf)" if _linf(one) else "epsilon")


def _legend(figure: Figure, comparison: Comparison, handles: Mapping[str, Any]) -> None:
    names = [comparison.names[name] for name in handles]
    figure.legend(list(handles.values()), names, loc="outside lower center", ncols=min(len(names), 8) or 1)


def _differences(comparison: Comparison) -> Figure:
    """Each method minus the reference with its 95 % interval: clean above, the middle epsilon's worst case below, a colour for each protocol."""
    those = [one for one in comparison.tables if one.tests]
    datasets = list(dict.fromkeys(one.dataset for one in those))
    figure, axes = _panels(2 * len(datasets), rows=2)
    methods = [name for name in comparison.study.backbones if name != comparison.study.reference]
    handles: dict[str, Any] = {}
    for k, panel in enumerate(axes):
        dataset, clean = datasets[k % len(datasets)], k < len(datasets)
        here = [one for one in those if one.dataset == dataset]
        verdict = CLEAN if clean else here[0].epsilons[len(here[0].epsilons) // 2]
        for j, one in enumerate(here):
            look: dict[str, Any] = {"color": COLOURS[one.finetuned], "marker": MARKERS[j % len(MARKERS)], "markersize": 4, "linewidth": 1.2}
            for test in one.tests:
                if test.verdict == verdict:
                    found, y = test.difference, methods.index(test.backbone) + 0.28 * (j - (len(here) - 1) / 2)
                    dot = panel.errorbar(found.value, y, xerr=[[reach] for reach in _reach(found)], **look)
                    handles.setdefault("backbone finetuned" if one.finetuned else "backbone frozen", dot)
        panel.axvline(0, color=REFERENCE, linewidth=0.8)
        panel.set_yticks(range(len(methods)), [comparison.names[name] for name in methods])
        panel.set_ylim(len(methods) - 0.5, -0.5)
        panel.set_title(f"{dataset}\n{verdict_name(verdict)}", fontsize=9)
        panel.set_xlabel(f"{here[0].metric} minus that of {comparison.names[str(comparison.study.reference)]}, points")
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=2)
    return figure


def _reach(found: Any) -> tuple[float, float]:
    """How far an estimate's interval reaches down and up; a bootstrapped one need not hold the value."""
    return max(0.0, found.value - found.low), max(0.0, found.high - found.value)


def _factor(comparison: Comparison, those: Sequence[Table], factor: str, variants: Sequence[str]) -> Figure:
    """The metric by variant, in order: a line for clean and one for each epsilon."""
    figure, axes = _panels(len(those))
    handles: dict[str, Any] = {}
    for one, panel in zip(those, axes, strict=True):
        there = [name for name in variants if name in one.results]
        attack = WORST if len(one.attacks) > 1 else one.attacks[0]
        for k, verdict in enumerate((CLEAN, *one.epsilons)):
            results = [(i, one.results[name]) for i, name in enumerate(there)]
            found = [(i, r.clean if verdict == CLEAN else r.robust.get((attack, verdict))) for i, r in results]
            points = [(i, e) for i, e in found if e is not None]
            colour = REFERENCE if verdict == CLEAN else COLOURS[(k - 1) % len(COLOURS)]
            error = list(zip(*(_reach(e) for _, e in points), strict=True)) or None
            xs, ys = [i + 0.04 * (k - len(one.epsilons) / 2) for i, _ in points], [e.value for _, e in points]
            line = panel.errorbar(xs, ys, yerr=error, color=colour, marker=MARKERS[k % len(MARKERS)], markersize=4, linewidth=1.2)
            handles.setdefault(verdict_name(verdict), line)
        panel.set_xticks(range(len(there)), [comparison.names[name] for name in there], rotation=30, ha="right")
        panel.set_title(_title(one), fontsize=9)
        panel.set_ylabel(f"{one.metric} in %")
        panel.set_ylim(bottom=0)
    figure.suptitle(factor)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=min(len(handles), 6))
    return figure
