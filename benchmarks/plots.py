"""The figures as pictures beside the page."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

STYLES = {"ours": "-o", "peer": "--s"}
TITLES = {
    "summary": "Latency: how many times as fast as LangGraph's saver",
    "concurrency": "Throughput by the number of tasks, 2 ms from PostgreSQL",
}
"""The pictures of the summary."""
INK = "#7a7a7a"
"""Of text and axes: readable on the white and on the dark background of the site."""


def draw(figures: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, str]:
    """Draw what there are figures of; return part -> name of the file."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - the figures are made without it
    except ImportError:
        return {}
    mpl.use("svg")
    mpl.rcParams.update(
        {
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "svg.hashsalt": "benchmarks",
            "savefig.transparent": True,
            "legend.framealpha": 0,
            "grid.alpha": 0.3,
        }
    )
    plots: dict[str, Callable[[Any, list[dict[str, Any]]], None]] = {
        "throughput": throughput,
        "size": size,
        "history": history,
    }
    names = {}
    for part, plot in plots.items():
        if engines := figures.get(part):
            names[part] = f"benchmarks_{part}.svg"
            _save(folder / names[part], engines, plot)
    if "latency" in figures:
        names["summary"] = "benchmarks_summary.svg"
        _draw_summary(folder / names["summary"], figures["latency"])
    if "throughput" in figures:
        names["concurrency"] = "benchmarks_concurrency.svg"
        _draw_concurrency(folder / names["concurrency"], figures["throughput"])
    return names


def _draw_summary(path: Path, engines: Mapping[str, Any]) -> None:
    """Draw the ratio of each operation, with its interval; on the right of 1 ours is faster."""
    known = [
        (f"{engine}  {row['operation']}", row["peer/ours"], *map(float, row["95 %"].split("-")))
        for engine, entry in engines.items()
        for row in entry["rows"]
        if "peer/ours" in row
    ]
    with _axes(path, width=8, height=1 + 0.21 * len(known)) as (ax,):
        _ratios(ax, known)


def _ratios(ax: Any, known: list[tuple[str, float, float, float]]) -> None:
    for place, (_, ratio, low, high) in enumerate(known):
        colour = "C2" if low > 1 else "C1" if high < 1 else INK
        ax.plot([low, high], [place, place], "-", color=colour)
        ax.plot(ratio, place, "o", color=colour, ms=5)
    ax.axvline(1, color=INK, lw=1)
    ax.set_yticks(range(len(known)), [name for name, *_ in known], fontsize=8)
    ax.set(xscale="log", xlabel="slower  <  time of LangGraph's saver / time of ours  >  faster")
    ticks = [0.5, 0.7, 1, 1.4, 2]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.invert_yaxis()
    ax.grid(axis="x")


def _draw_concurrency(path: Path, engines: Mapping[str, Any]) -> None:
    """Draw the cycles of each driver and of its peer at a round trip of 2 ms."""
    with _axes(path, width=8, height=3.2) as (ax,):
        _cycles(ax, engines)


def _cycles(ax: Any, engines: Mapping[str, Any]) -> None:
    for colour, (engine, entry) in enumerate(engines.items()):
        rows = [row for row in entry["rows"] if row["round trip ms"] == 2]
        rows = [row for row in rows if row.get("connections") != "default"]
        tasks = [row["tasks"] for row in rows]
        for side, style in STYLES.items():
            rates = [row[f"{side} cycles/s"] for row in rows]
            name = f"{engine}, {'checkpoint_sa' if side == 'ours' else 'LangGraph'}"
            ax.plot(tasks, rates, style, color=f"C{colour}", label=name, ms=4)
        _tasks(ax, tasks)
    ax.set(ylim=(0, None))
    ax.legend(fontsize=8)
    ax.grid()


def _save(
    path: Path, engines: Mapping[str, Any], plot: Callable[[Any, list[dict[str, Any]]], None]
) -> None:
    with _axes(path, len(engines), width=4.2 * len(engines), height=3.6) as axes:
        for ax, (engine, entry) in zip(axes, engines.items(), strict=True):
            plot(ax, entry["rows"])
            ax.set_title(engine)
            ax.legend(fontsize=7)
            ax.grid()


@contextmanager
def _axes(path: Path, columns: int = 1, *, width: float, height: float) -> Iterator[list[Any]]:
    """Yield the axes of a figure beside each other, and write the figure."""
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(
        1, columns, figsize=(width, height), squeeze=False, layout="constrained"
    )
    yield list(axes[0])
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def throughput(ax: Any, rows: list[dict[str, Any]]) -> None:
    """Cycles a second by tasks, a line for each delay and side."""
    for colour, delay in enumerate(sorted({row["round trip ms"] for row in rows})):
        cells = [
            row
            for row in rows
            if row["round trip ms"] == delay and row.get("connections") != "default"
        ]
        for side, style in STYLES.items():
            rates = [row[f"{side} cycles/s"] for row in cells]
            tasks = [row["tasks"] for row in cells]
            ax.plot(tasks, rates, style, color=f"C{colour}", label=f"{side}, {delay} ms", ms=3)
    ax.set(yscale="log")
    _tasks(ax, sorted({row["tasks"] for row in rows}))


def _tasks(ax: Any, tasks: list[int]) -> None:
    """Label the axes of a plot of throughput."""
    ax.set(xscale="log", xlabel="tasks", ylabel="cycles a second")
    ax.set_xticks(tasks, map(str, tasks))
    ax.minorticks_off()


def size(ax: Any, rows: list[dict[str, Any]]) -> None:
    """Milliseconds by bytes of the state, a line for each operation and side."""
    _lines(ax, rows, "bytes", ("put", "get_tuple"))
    ax.set(xlabel="bytes of messages", ylabel="milliseconds")


def history(ax: Any, rows: list[dict[str, Any]]) -> None:
    """Milliseconds by checkpoints of the thread, a line for each operation and side."""
    _lines(ax, rows, "checkpoints", ("put", "get_tuple", "list"))
    ax.set(xlabel="checkpoints of the thread", ylabel="milliseconds")


def _lines(ax: Any, rows: list[dict[str, Any]], by: str, operations: tuple[str, ...]) -> None:
    for colour, operation in enumerate(operations):
        cells = [row for row in rows if row["operation"] == operation]
        for side, style in STYLES.items():
            known = [row for row in cells if f"{side} us" in row]
            times = [row[f"{side} us"] / 1000 for row in known]
            places = [row[by] for row in known]
            ax.plot(places, times, style, color=f"C{colour}", label=f"{side}, {operation}", ms=3)
    ax.set(xscale="log", yscale="log")
