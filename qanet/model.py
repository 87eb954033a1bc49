"""One object for the whole job: train, export, calibrate, build, validate, benchmark and parse with a model."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qanet.bundle import SUFFIX, Bundle, open_bundle
from qanet.errors import QanetError

if TYPE_CHECKING:
    from qanet.benchmarks.results import Results
    from qanet.benchmarks.val import ValReport
    from qanet.calib.bundle import Calibration
    from qanet.export.building.bundle import BuildReport
    from qanet.results import People
    from qanet.runtime.parser import Parser

_CHECKPOINTS = (".safetensors", ".pt", ".pth")


class Model:
    """A bundle or a checkpoint, and everything that can be done with it; each method is a command of `qanet`.

    Args:
        name_or_path: a shipped model's name, a NAME.qanet folder, or a checkpoint. A checkpoint can be exported alone.
    Raises:
        QanetError: no such model.

    >>> model = Model("ccp13-lite0")
    >>> model
    Model(ccp13-lite0, ccp13, 384x288, graphs fp32)
    >>> model.labels.classes[1]
    'hat'
    """

    def __init__(self, name_or_path: str | Path = "ccp13-lite0"):
        path = Path(name_or_path)
        self.path = path
        self._bundle: Bundle | None = None
        self._parser: Parser | None = None
        self._opening = threading.Lock()  # of the parser
        if path.suffix in _CHECKPOINTS:
            if not path.is_file():
                raise QanetError(f"no checkpoint {path}", expected="a file of `qanet train`", got="nothing there")
        else:
            self._use(open_bundle(name_or_path))

    def _use(self, bundle: Bundle) -> None:
        self._bundle, self.path, self._parser = bundle, bundle.path, None

    def __reduce__(self) -> tuple[Any, ...]:
        return Model, (self.path,)

    def __repr__(self) -> str:
        if self._bundle is None:
            return f"Model({self.path}, a checkpoint)"
        height, width = self._bundle.input_hw
        graphs = ", ".join(name for name in self._bundle.manifest["graphs"] if "-" not in name)
        return f"Model({self._bundle.name}, {self._bundle.labels.name}, {height}x{width}, graphs {graphs})"

    @property
    def bundle(self) -> Bundle:
        """The bundle behind the model.

        Raises:
            QanetError: the model is a checkpoint that was not exported yet.
        """
        if self._bundle is None:
            raise QanetError(
                f"{self.path} is a checkpoint",
                expected="a bundle",
                next_command=f"Model({str(self.path)!r}).export(...)",
            )
        return self._bundle

    @property
    def labels(self) -> Any:
        """The label set: names, colours and left-right pairs of the classes."""
        return self.bundle.labels

    @classmethod
    def train(cls, recipe: str, data: str | Path, output: str | Path | None = None, **settings: Any) -> "Model":
        """Train a recipe and return its checkpoint as a model; a run that was interrupted continues.

        Args:
            recipe: a recipe's name, such as "ccp13-lite0".
            data: folder of the data set.
            output: folder of the run; None: runs/RECIPE.
            settings: keyword arguments and recipe settings of `qanet.train.run.train`, such as epochs=40.
        """
        from qanet.train.run import train

        return cls(train(recipe, data, output, **settings).weights)

    def export(
        self, output: str | Path, *, recipe: str | None = None, input_hw: tuple[int, int] | None = None
    ) -> "Model":
        """Export a checkpoint to a bundle, or write a copy of a bundle; returns the model of the new bundle.

        Args:
            output: the bundle's folder; the suffix .qanet is added.
            recipe: of an official checkpoint, which names none.
            input_hw: another input size (H, W) than the recipe's.
        """
        if self._bundle is None:
            from qanet.export.command import export_checkpoint

            return Model(export_checkpoint(self.path, output, recipe, input_hw).path)
        if recipe is not None or input_hw is not None:
            raise QanetError("a bundle is exported already", expected="a checkpoint with recipe or input_hw", got=self)
        from qanet.bundle import writable_copy

        target = Path(output)
        copy = writable_copy(self._bundle, target if target.suffix == SUFFIX else Path(f"{target}{SUFFIX}"))
        copy.save()
        return Model(copy.path)

    def calibrate(self, data: str | Path, *, method: str = "entropy", crops: int = 256) -> "Calibration":
        """Find INT8 scales on crops of people and write them and the INT8 graph into the bundle.

        A shipped bundle is copied to ./NAME.qanet first, and the model is that copy from then on.

        Args:
            data: a data set folder, a folder of images, or a video.
            method: "entropy", "minmax", "percentile" or "mse".
            crops: the largest number of crops.
        """
        from qanet.bundle import writable_copy
        from qanet.calib.bundle import calibrate, write_scales

        found = calibrate(self.bundle, data, method=method, crops=crops)
        bundle = writable_copy(self.bundle)
        write_scales(bundle, found.scales)
        self._use(bundle)
        return found

    def build(
        self,
        precisions: Sequence[str] = ("fp32", "fp16", "int8"),
        *,
        runtimes: Sequence[str] = (),
        targets: Sequence[str] | None = None,
        output: str | Path | None = None,
        verify: bool = False,
    ) -> "BuildReport":
        """Build engines for this machine, each checked by known answers before it is kept.

        A shipped bundle is copied to ./NAME.qanet first, and the model is that copy from then on.

        Args:
            precisions: of "fp32", "fp16", "bf16", "int8", "fp8".
            runtimes: of "openvino", "tensorrt", "tensorrt-rtx"; empty: TensorRT where it is installed, else OpenVINO.
            targets: GPUs to build for, such as "sm_86"; TensorRT-RTX alone.
            output: build into a copy there.
            verify: compare each engine with ONNX Runtime as well.
        """
        from qanet.export.building.bundle import build
        from qanet.export.building.options import BuildOptions

        options = BuildOptions(precisions=precisions, runtimes=runtimes, targets=targets, verify=verify)
        report = build(self.bundle, options, output=output)
        self._use(report.bundle)
        return report

    def val(
        self, data: str | Path, *, format: str | None = None, precision: str = "fp32", **options: Any
    ) -> "ValReport":
        """Accuracy on a data set, by the parser that `qanet.load` gives.

        Args:
            data: folder of the data set.
            format: its layout, see `qanet val --help`; None: by what lies in the folder.
            precision: of the engine.
            options: further arguments of `qanet.benchmarks.val.validate`.
        """
        from qanet.benchmarks.val import validate

        return validate(self.bundle, data, format=format, precision=precision, **options)

    def benchmark(self, input: str | Path, **options: Any) -> "Results":
        """Latency of every engine on the people of a video, an image or a folder; accuracy too with `data=`.

        Args:
            input: what to measure on.
            options: further fields of `qanet.benchmarks.options.BenchmarkOptions`; `output` writes report.html.
        """
        from qanet.benchmarks.benchmark import benchmark
        from qanet.benchmarks.options import BenchmarkOptions

        return benchmark(self.bundle, BenchmarkOptions(input=str(input), **options))

    def load(self, **options: Any) -> "Parser":
        """A parser of this model; options as for `qanet.load`."""
        from qanet.runtime.parser import load

        return load(self.bundle.path, **options)

    def parse(self, image: Any, **options: Any) -> "People | list[People]":
        """Parse an image or a list of images; the parser is opened once and kept.

        Args:
            image: anything that `Parser.__call__` takes.
            options: `boxes`, `box_scores` and `order` of `Parser.__call__`.
        """
        with self._opening:
            parser = self._parser = self._parser or self.load()
        return parser(image, **options)
