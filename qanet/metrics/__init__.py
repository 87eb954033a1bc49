"""Human-parsing metrics: mIoU, AP^p, PCP, AP^r, AP^h, boundary IoU, and how far the quality scores can be trusted.

    from qanet.metrics import Prediction, Truth, evaluate_parsing
    report = evaluate_parsing(truths, predictions, num_classes=20, protocol="official", weights=(1, 0.5, 3))

`ParsingEvaluator` does the same image by image; `ScoreSweep` evaluates many ways of scoring the same predictions in one
pass. `PROTOCOLS` lists what each protocol does and which quirks it corrects. Average precision of detected boxes is in
`qanet.metrics.detection`.
"""

from qanet.metrics.evaluator import ParsingEvaluator, evaluate_parsing
from qanet.metrics.records import PROTOCOLS, Prediction, Protocol, Truth
from qanet.metrics.sweep import ScoreSweep, Setting

__all__ = [
    "PROTOCOLS",
    "ParsingEvaluator",
    "Prediction",
    "Protocol",
    "ScoreSweep",
    "Setting",
    "Truth",
    "evaluate_parsing",
]
