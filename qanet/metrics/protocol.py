"""The evaluation protocols: `official` reproduces the published code with its quirks, `strict` mends each of them."""

from dataclasses import dataclass

from qanet.errors import QanetError


@dataclass(frozen=True)
class Protocol:
    """What an evaluation does where the published code and the definition of a metric part ways.

    Everything else (thresholds, strict inequalities, the painting by box score before NMS) is common to all.
    """

    name: str
    shifted_nms: bool  # NMS numbers its candidates without those already dropped, so it drops the wrong ones
    skip_unpredicted: bool  # mIoU, AP^r and AP^h leave out an image without a prediction; AP^p and PCP never do
    reuse_truth: bool  # AP^r, AP^h: one ground truth can make several true positives, so AP can exceed 1
    nan_first: bool  # NaN scores are painted on top and come first in AP^r and AP^h; else below all, and last
    text_order: bool  # AP^h ranks the scores as text ("9.5" above "10.5")
    absent_is_zero: bool  # a class in neither ground truth nor prediction counts 0 in means; else it is nan, skipped
    void_is_error: bool  # AP^r, AP^h: predicted void pixels count against the prediction; else they are left out
    max_regions: int | None  # regions an image can hold (its map has 8 bits); those beyond it are lost


PROTOCOLS: dict[str, Protocol] = {
    "official": Protocol(
        "official",
        shifted_nms=True,
        skip_unpredicted=True,
        reuse_truth=True,
        nan_first=True,
        text_order=True,
        absent_is_zero=True,
        void_is_error=True,
        max_regions=254,
    ),
    "strict": Protocol(
        "strict",
        shifted_nms=False,
        skip_unpredicted=False,
        reuse_truth=False,
        nan_first=False,
        text_order=False,
        absent_is_zero=False,
        void_is_error=False,
        max_regions=None,
    ),
}


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        QanetError: an unknown name, with the known ones.
    """
    if name not in PROTOCOLS:
        raise QanetError(
            f"unknown evaluation protocol {name!r}",
            expected=" or ".join(PROTOCOLS),
            got=name,
            next_command='pass protocol="official" to compare with published numbers, "strict" to compare models',
        )
    return PROTOCOLS[name]
