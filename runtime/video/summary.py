"""Counts of a run, and the times of its stages."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

KEPT_SAMPLES = 2048  # per stage: a long run keeps the latest


@dataclass
class Summary:
    """Counts of a run or of one of its streams.

    Attributes:
        dropped: frames of a live source that arrived while an earlier one was parsed.
        skipped: frames that could not be decoded.
        reconnects: times that a lost live source came back.
        crowded: frames with more people than are parsed.
        detections: frames on which the detector ran.
        decoder: of a video file, see `decoders.Choice.to_json`; empty for other sources.
        error: why a stream failed while others went on.
        streams: one summary per stream if there are several.
    """

    frames: int = 0
    people_by_frame: list[int] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False
    dropped: int = 0
    skipped: int = 0
    reconnects: int = 0
    crowded: int = 0
    detections: int = 0
    decoder: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    streams: list["Summary"] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    stages_ms: dict[str, list[float]] = field(default_factory=dict)

    @property
    def people(self) -> int:
        """People in all frames."""
        return sum(self.people_by_frame)

    def to_json(self) -> dict[str, Any]:
        """Counts, rate, and p50/p90/p99 of each stage in milliseconds."""
        stages = {name: percentiles(samples) for name, samples in self.stages_ms.items()}
        rate = self.frames / self.seconds if self.seconds else 0.0
        return {
            "frames": self.frames,
            "people": self.people,
            "seconds": round(self.seconds, 3),
            "frames_per_second": round(rate, 2),
            "interrupted": self.interrupted,
            "dropped": self.dropped,
            "skipped": self.skipped,
            "reconnects": self.reconnects,
            "crowded": self.crowded,
            "detections": self.detections,
            "decoder": self.decoder,
            "error": self.error,
            "warnings": self.warnings,
            "people_by_frame": self.people_by_frame,
            "stages_ms": stages,
        }


def percentiles(samples_ms: list[float]) -> dict[str, float]:
    """p50, p90, p99 and the count of a stage's samples."""
    p50, p90, p99 = np.percentile(samples_ms, (50, 90, 99))
    return {"p50": round(float(p50), 3), "p90": round(float(p90), 3), "p99": round(float(p99), 3), "n": len(samples_ms)}


def forget_old(samples_ms: dict[str, list[float]]) -> None:
    """Keep the latest KEPT_SAMPLES of each stage, in place, so that the memory of a long run is bounded."""
    for samples in list(samples_ms.values()):
        del samples[:-KEPT_SAMPLES]
