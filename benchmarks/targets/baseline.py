"""The method's PyTorch form, checked against our FP32 parser before it is timed: a wrong baseline makes any ratio."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qanet.benchmarks.targets.check import FLOOR
from qanet.benchmarks.targets.samples import Sample
from qanet.bundle import Bundle
from qanet.errors import QanetError
from qanet.runtime.parser import Parser

Parse = Callable[[Any, Any, Any], Any]  # image, boxes, box scores to (labels with pixel scores, quality)


def open_checked(
    bundle: Bundle, threads: int | None, parser: Parser | None, sample: Sample
) -> tuple[Parse | None, str]:
    """The baseline of a bundle, or None and the reason.

    Args:
        parser: our FP32 parser, kernel tail; None where none may be timed, and then neither may the baseline.
        sample: the frame to compare on.
    """
    if parser is None:
        return None, "there is no FP32 parser to check it against"
    try:
        from qanet.export.baseline import open_baseline  # imports torch

        parse = open_baseline(bundle, threads)
        scored, quality = parse(sample.image, sample.found.boxes, sample.found.scores)
    except (QanetError, RuntimeError, ImportError) as error:
        return None, error.line() if isinstance(error, QanetError) else f"{type(error).__name__}: {error}"
    share = label_share(scored.labels, parser, sample)
    if not np.isfinite(quality).all():
        return None, "its quality is not finite"
    if share < FLOOR:
        return None, f"its labels agree with our FP32 parser on {share:.1%} of the pixels, {FLOOR:.0%} are needed"
    return parse, ""


def label_share(labels: Any, parser: Parser, sample: Sample) -> float:
    """Share of equal labels inside our people's regions; `labels` are N maps (H, W) of the whole image."""
    equal = total = 0
    for theirs, person in zip(labels, parser.everybody(sample.image, sample.found)):
        x0, y0, x1, y1 = person.roi
        equal += int((theirs[y0:y1, x0:x1] == person.labels).sum())
        total += person.labels.size
    return equal / max(total, 1)
