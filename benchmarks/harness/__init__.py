"""Interleaved timing: targets, warm-up, rounds over all of them, memory, and what a cold start costs."""

from qanet.benchmarks.harness.rounds import Clock, Measurement, Session, run
from qanet.benchmarks.harness.target import Target, null_target
from qanet.benchmarks.harness.warmup import WarmUp

__all__ = ["Clock", "Measurement", "Session", "Target", "WarmUp", "null_target", "run"]
