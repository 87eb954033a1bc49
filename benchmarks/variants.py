"""Variants: a model, at a precision, with a tail, on a device."""

from collections.abc import Sequence
from dataclasses import dataclass

from qanet.bundle import OPTIONAL_PRECISIONS, PRECISIONS, Bundle
from qanet.errors import QanetError
from qanet.runtime.backends.base import GRAPH_TAIL_OUTPUTS, KERNEL_TAIL_OUTPUTS
from qanet.runtime.backends.select import has_cuda


@dataclass(frozen=True)
class Variant:
    """One row of the comparison.

    Attributes:
        model: unique among the bundles of a run.
        label: unique among the variants of a run.
    """

    bundle: Bundle
    model: str
    precision: str
    tail: str
    device: str
    label: str

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs that the tail needs of the engine."""
        return KERNEL_TAIL_OUTPUTS if self.tail == "kernel" else GRAPH_TAIL_OUTPUTS


def list_variants(
    bundles: Sequence[Bundle], precisions: Sequence[str] | None, tails: Sequence[str], devices: Sequence[str]
) -> list[Variant]:
    """Every combination that the bundles have graphs for, FP32 with the kernel tail on the first device first.

    Args:
        precisions: None: all that each bundle has.
    Raises:
        QanetError: a precision that one of the bundles lacks, or nothing to measure.
    """
    names = model_names(bundles)
    variants = []
    for bundle, model in zip(bundles, names):
        for precision in _of_bundle(bundle, precisions):
            for device in devices:
                for tail in tails:
                    details = [f"{tail} tail"] if len(tails) > 1 else []
                    details += [device] if len(devices) > 1 else []
                    label = f"{model} {precision}" if len(bundles) > 1 else precision
                    label += f" ({', '.join(details)})" if details else ""
                    variants.append(Variant(bundle, model, precision, tail, device, label))
    if not variants:
        raise QanetError("no precision to measure", expected=f"of {', '.join(PRECISIONS)}", got=precisions)
    return variants


def without_lacking(variants: Sequence[Variant]) -> tuple[list[Variant], list[str]]:
    """The variants that this machine can compute as they are called, and a sentence on each precision that it cannot.

    Raises:
        QanetError: none is left.
    """
    from qanet.runtime.backends.openvino import floating_point, openvino_core

    kept, sentences = [], []
    for variant in variants:
        is_16_bit = variant.precision in ("fp16", "bf16")
        on_cpu = variant.device == "cpu" or (variant.device == "auto" and not has_cuda())
        if is_16_bit and on_cpu and floating_point(openvino_core(), variant.precision) == "fp32":
            sentences.append(f"{variant.precision} is not in this report: this CPU computes FP32 only")
        else:
            kept.append(variant)
    if variants and not kept:
        raise QanetError(sentences[0], expected="a precision that this machine has", next_command="--precision fp32")
    return kept, list(dict.fromkeys(sentences))


def model_names(bundles: Sequence[Bundle]) -> list[str]:
    """The bundles' names; with the input size where two share one, with a number where even that is shared."""
    names = [bundle.name for bundle in bundles]
    sized = [
        f"{name} {bundle.input_hw[0]}x{bundle.input_hw[1]}" if names.count(name) > 1 else name
        for name, bundle in zip(names, bundles)
    ]
    return [f"{name} #{sized[: i + 1].count(name)}" if sized.count(name) > 1 else name for i, name in enumerate(sized)]


def reference_of(variant: Variant, variants: Sequence[Variant]) -> Variant | None:
    """The variant that a speed-up is relative to: the same model in FP32 on the same device, kernel tail first; None
    where the run has none or it is the variant itself."""
    alike = [v for v in variants if (v.model, v.precision, v.device) == (variant.model, "fp32", variant.device)]
    found = next((v for v in alike if v.tail == "kernel"), alike[0] if alike else None)
    return None if found is variant else found


def _of_bundle(bundle: Bundle, precisions: Sequence[str] | None) -> list[str]:
    graphs = bundle.manifest["graphs"]
    known = (*PRECISIONS, *OPTIONAL_PRECISIONS)
    if precisions is None:
        return [p for p in known if p in graphs]
    for precision in precisions:
        if precision not in known:
            raise QanetError("unknown precision", expected=f"of {', '.join(known)}", got=repr(precision))
        if precision not in graphs:
            raise QanetError(
                f"{bundle.path} has no {precision} graph",
                expected=f"of {', '.join(graphs)}",
                got=precision,
                next_command=f"qanet build {bundle.path} --precision {precision}",
            )
    return list(dict.fromkeys(precisions))
