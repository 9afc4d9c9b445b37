"""The figures as pictures beside the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

STYLES = {"ours": "-o", "peer": "--s"}


def draw(figures: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, str]:
    """Draw what there are figures of; return part -> name of the file."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - the figures are made without it
    except ImportError:
        return {}
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "benchmarks"
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
    return names


def _save(
    path: Path, engines: Mapping[str, Any], plot: Callable[[Any, list[dict[str, Any]]], None]
) -> None:
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(
        1, len(engines), figsize=(4.2 * len(engines), 3.6), squeeze=False, layout="constrained"
    )
    for ax, (engine, entry) in zip(axes[0], engines.items(), strict=True):
        plot(ax, entry["rows"])
        ax.set_title(engine)
        ax.legend(fontsize=7)
        ax.grid(alpha=0.3)
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
    ax.set(xscale="log", yscale="log", xlabel="tasks", ylabel="cycles a second")


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
