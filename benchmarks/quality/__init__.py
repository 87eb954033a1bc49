"""The quality study: what each score is worth, on detected boxes that are jittered, doubled and spurious.

    python -m qanet.benchmarks.quality BUNDLE --data DIR --format cihp --boxes detections.json --output DIR

Every box is parsed once; box score alone, with the pixel score, with the IoU score, and the full QAM are then evaluated
on the same labels, with a grid of exponents and a sweep of the pixel threshold.
"""
