"""What `qanet parse` tells: a progress bar, the summary as text, and as one JSON document."""

from typing import Any

from qanet.commandline import table
from qanet.runtime.cli.places import Place
from qanet.runtime.video.sources.base import Source
from qanet.runtime.video.summary import Summary

_LOST = ("dropped", "skipped", "reconnects")


class Progress:
    """tqdm with the number of people, and of dropped frames where there are any; or nothing when quiet."""

    def __init__(self, sources: list[Source], quiet: bool):
        from tqdm import tqdm

        self._sources = sources
        expected = [source.expected_frames for source in sources]
        total = sum(expected) if all(expected) else None
        self._bar = tqdm(total=total, unit="frame", disable=quiet or None, desc="parse")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update_people(self, count: int) -> None:
        """One frame done, with so many people."""
        dropped = sum(getattr(source, "dropped", 0) for source in self._sources)
        self._bar.set_postfix(people=count, **({"dropped": dropped} if dropped else {}), refresh=False)
        self._bar.update()


def document(about: dict[str, Any], places: list[Place], summary: Summary) -> dict[str, Any]:
    """The JSON document: `about` the model, and what was done; of several streams each by itself, too."""
    if not summary.streams:
        return {"input": places[0].input, **about, **summary.to_json(), **_outputs(places[0])}
    total = summary.to_json()
    for name in ("people_by_frame", "decoder", "error", "warnings"):  # a stream's own
        del total[name]
    streams = [
        {"name": place.name, "input": place.input, **part.to_json(), **_outputs(place)}
        for place, part in zip(places, summary.streams)
    ]
    return {**about, **total, "streams": streams}


def _outputs(place: Place) -> dict[str, str | None]:
    return {"output": place.output, "results": place.results, "labels": place.labels}


def text(told: dict[str, Any], places: list[Place], summary: Summary) -> str:
    """The document for a person."""
    parts = [_head(told, summary)]
    for place, part in zip(places, summary.streams or [summary]):
        if part.error is None:
            parts += [f"wrote {path}" for path in _outputs(place).values() if path]
    if summary.streams:
        parts.append(_streams(places, summary))
    elif lost := ", ".join(f"{name}: {getattr(summary, name)}" for name in _LOST if getattr(summary, name)):
        parts.append(lost)
    if told.get("decoder"):
        parts += _decoder(told["decoder"])
    stages = [(name, s["p50"], s["p90"], s["p99"], s["n"]) for name, s in told["stages_ms"].items()]
    if stages:
        parts.append(table(stages, ("stage", "p50 ms", "p90 ms", "p99 ms", "samples")))
    if summary.interrupted:
        parts.append("interrupted: what was parsed so far is kept")
    return "\n".join(parts)


def _head(told: dict[str, Any], summary: Summary) -> str:
    people = summary.people / max(summary.frames, 1)
    streams = f" of {len(summary.streams)} streams" if summary.streams else ""
    return (
        f"{summary.frames} frames{streams}, {people:.2f} people a frame, {told['frames_per_second']} frames/s "
        f"({told['model']} {told['precision']} on {told['runtime']}, detector: {told['detector']})"
    )


def _streams(places: list[Place], summary: Summary) -> str:
    header = ("stream", "frames", "people a frame", "frames/s", "p50 ms", "p99 ms", *_LOST, "end")
    rows = []
    for place, part in zip(places, summary.streams):
        told = part.to_json()
        frame_ms = told["stages_ms"].get("frame", {"p50": 0.0, "p99": 0.0})
        people = round(part.people / max(part.frames, 1), 2)
        rows.append(
            (
                place.name,
                part.frames,
                people,
                told["frames_per_second"],
                frame_ms["p50"],
                frame_ms["p99"],
                *(getattr(part, name) for name in _LOST),
                "error" if part.error else "",
            )
        )
    return table(rows, header)


def _decoder(told: dict[str, Any]) -> list[str]:
    """Which decoder took the file, where there was a choice."""
    if not told["frame_ms"]:
        return []
    times = ", ".join(f"{name} {ms:.3g} ms a frame" for name, ms in told["frame_ms"].items())
    return [f"decoded by {told['name']} ({times})"]
