"""The forms of the tail that this machine can run, and the check each must pass before it is timed."""

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from qanet import quality
from qanet.benchmarks.tail.cases import Case
from qanet.errors import QanetError
from qanet.quality import PixelScores
from qanet.runtime.pixel_score import BACKENDS
from qanet.runtime.pixel_score import pixel_score as tail

BASELINE = "torch"  # PyTorch, as the official code computes it; needs the export extra
LABELS_MAY_DIFFER = 1e-5  # share of a region's pixels: ties that rounding decides
SCORES_MAY_DIFFER = 1e-4


@dataclass(frozen=True)
class Form:
    """A way to compute the tail.

    Attributes:
        name: "numpy", "native", ...; "baseline".
        backend: of `qanet.runtime.pixel_score`; "" for a function of its own.
        target: BASELINE, or "module:function" of another function, imported when it is first called.
    """

    name: str
    backend: str = ""
    target: str = ""

    def __call__(self, arguments: dict[str, Any]) -> PixelScores:
        """Labels and scores for the keyword arguments of a case."""
        if self.backend:
            return tail(**arguments, backend=self.backend)
        if self.target == BASELINE:
            from qanet.export.baseline import pixel_score

            return pixel_score(**arguments)
        module, _, name = self.target.partition(":")
        scored: PixelScores = getattr(importlib.import_module(module), name)(**arguments)
        return scored


def find_forms(baseline: str | None) -> list[Form]:
    """The back-ends that answer a trivial call, and the baseline when it was asked for.

    Raises:
        QanetError: a baseline that cannot be imported or does not answer.
    """
    trivial = {"logits": np.zeros((1, 2, 1, 1), np.float32), "boxes": [[0, 0, 4, 4]], "image_size": (4, 4)}
    forms = []
    for name in dict.fromkeys(("numpy", *BACKENDS)):
        try:
            Form(name, backend=name)(trivial)
        except QanetError:  # not built, or no such device here
            continue
        forms.append(Form(name, backend=name))
    if baseline is not None:
        form = Form("baseline", target=baseline)
        try:
            form(trivial)
        except (ImportError, AttributeError, ValueError) as error:
            raise QanetError(
                f"the baseline {baseline} cannot be had",
                expected="module:function that is installed",
                got=error,
                next_command="pip install 'qanet-edge[export]'",
            ) from error
        forms.append(form)
    return forms


def refusal(form: Form, case: Case, arguments: dict[str, Any]) -> str | None:
    """Why a form may not be timed on a case: its labels or scores are not the reference's; None when they are."""
    try:
        got = form(arguments)
    except Exception as error:  # whatever a library raises: the other forms go on
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return difference(got, quality.pixel_score(**arguments))


def difference(got: PixelScores, expected: PixelScores) -> str | None:
    """What tells two answers apart beyond rounding; None for nothing. The regions may differ, not what is in them."""
    if len(got.labels) != len(expected.labels):
        return f"{len(got.labels)} label maps where {len(expected.labels)} are due"
    for index, region in enumerate(expected.labels):
        wrong = int((got.full(index) != expected.full(index)).sum())
        if wrong > LABELS_MAY_DIFFER * max(region.size, 1):
            return f"person {index}: {wrong} of {region.size} labels differ from the reference"
    for name in ("pixel_scores", "part_scores"):
        ours, theirs = getattr(got, name), getattr(expected, name)
        if ours.shape != theirs.shape or not np.all(np.abs(ours - theirs) <= SCORES_MAY_DIFFER):
            return f"{name} differ from the reference by more than {SCORES_MAY_DIFFER:g}"
    return None
