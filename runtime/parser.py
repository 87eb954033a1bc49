"""Image in, people out: detector, crop, network, tail, quality, suppression."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qanet.bundle import Bundle, open_bundle
from qanet.bundle.ladder import LADDER
from qanet.errors import QanetError
from qanet.geometry import check_boxes, check_label_bytes
from qanet.images import open_image
from qanet.labels import CELEBAMASK19, PERSON1, PERSON_BOX1
from qanet.quality import PixelScores
from qanet.results import People, Person
from qanet.runtime.backends.base import GRAPH_TAIL_OUTPUTS, KERNEL_TAIL_OUTPUTS, Engine, Outputs, graph_name
from qanet.runtime.cuda.device_path import DevicePath, open_device_path
from qanet.runtime.detectors.base import Detections, Detector, WholeImage, check_scores
from qanet.runtime.kernels import choose_kernels
from qanet.runtime.postprocess import MIN_LABELLED_SHARE, expect, parsing_nms, people_of_graph, people_of_scores
from qanet.runtime.timing import StageTimes
from qanet.runtime.tta import PLAIN, Augmentation, check_augmentation, look, score_people
from qanet.runtime.whole_pictures import scores_within

if TYPE_CHECKING:
    from qanet.runtime.video.frame import Frame

TAILS = ("kernel", "graph")
MAX_BATCH = 16


def load(
    name_or_path: str | Path,
    device: str = "auto",
    precision: str = "auto",
    tail: str = "kernel",
    detector: Detector | str | Path | None = None,
    threads: int | None = None,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
) -> "Parser":
    """Load a bundle and compile or load its engine.

    Args:
        name_or_path: "balanced" or "accurate", a shipped bundle's name, or a NAME.qanet folder.
        device: "auto" (TensorRT where there is a GPU and it is installed, else OpenVINO), "cpu", "onnxruntime",
            "cuda".
        precision: "fp32", "fp16", "int8", or "auto": the fastest the bundle has a graph for.
        tail: "kernel" (labels and scores at image resolution) or "graph" (at crop resolution, inside the network).
        detector: finds the people where a call gives no boxes: a detector, or the name of a bundle or of an ONNX file;
            None opens the shipped one, person-lite0, on first use. A model of whole pictures runs without one and gives
            one person who fills the picture; with a detector or boxes its people are what lies in each box.
        threads: CPU threads of the engine; None leaves the choice to the runtime.
        flip: parse each crop's mirror image too and average the two; twice the network's time.
        scales: factors of the crop box to parse and average, each as long as the network; (0.9, 1.1, 1.2, 1.3) beside
            1 were published. Flip and scales want the kernel tail, and crop and average on the CPU.
    Raises:
        QanetError: the bundle, the device or the precision is not to be had.
    """
    from qanet.runtime.backends.select import open_engine

    if tail not in TAILS:
        raise QanetError("unknown tail", expected=f"one of {', '.join(TAILS)}", got=tail)
    augmentation = check_augmentation(flip, scales, tail)
    bundle = open_bundle(name_or_path)
    if bundle.is_shipped and str(name_or_path) in LADDER and tail == "kernel":
        augmentation = check_augmentation(flip or LADDER[str(name_or_path)].flip, scales, tail)
    if bundle.labels == PERSON1:
        raise QanetError(
            f"{bundle.name} gives instance masks, not parsings",
            expected="a parsing model",
            got=bundle.labels.name,
            next_command=f"qanet masks {bundle.path} --annotations COCO.json --images DIR --output RESULTS.json",
        )
    if bundle.labels == PERSON_BOX1:
        raise QanetError(
            f"{bundle.name} gives boxes of people, not parsings",
            expected="a parsing model",
            got=bundle.labels.name,
            next_command=f"qanet parse INPUT --detector {bundle.path}",
        )
    if isinstance(detector, (str, Path)):
        from qanet.runtime.detectors.open import open_detector

        detector = open_detector(str(detector), threads=threads)
    if bundle.view == "whole" and augmentation.scales != (1.0,):
        raise QanetError(f"{bundle.name} is of whole pictures", expected="scales (1,)", got=augmentation.scales)
    outputs = KERNEL_TAIL_OUTPUTS if tail == "kernel" else GRAPH_TAIL_OUTPUTS
    return Parser(bundle, open_engine(bundle, device, precision, outputs, threads), tail, detector, augmentation)


class Parser:
    """Parses the people of an image.

    Threads may share a parser: where the network's runtime takes one call at a time, their calls take turns, and crops
    and tail run beside each other. A parser pickles as its bundle, its options and its detector; the process that
    unpickles it opens an engine of its own: for the workers of a pool that `multiprocessing` spawns.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        tail: str = "kernel",
        detector: Detector | None = None,
        augmentation: Augmentation = PLAIN,
    ):
        self.bundle, self.engine, self.tail = bundle, engine, tail
        self.augmentation = augmentation
        self.is_whole = bundle.view == "whole"  # one run of the network a picture, whatever the number of people
        self.detector = WholeImage() if detector is None and self.is_whole else detector
        self.times = StageTimes()
        self.kernels = choose_kernels()
        # Looked up once: the manifest's entries are parsed anew at each access.
        self._labels, self._input_hw = bundle.labels, bundle.input_hw
        self._threshold, self._qam_weights = bundle.threshold, bundle.qam_weights
        self._quality_map = bundle.quality_map(graph_name(engine))
        self._is_plain = augmentation.is_plain
        self._tail: Callable[..., list[Person]] = self._kernel_tail if tail == "kernel" else self._graph_tail
        self._opening = threading.Lock()  # of the default detector
        self._device_path = open_device_path(engine) if tail == "kernel" and augmentation.is_plain else None

    def __enter__(self) -> "Parser":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the memory of the engine and of the detector back; the parser cannot be used afterwards."""
        for part in (self.engine, self.detector):
            if part is not None and hasattr(part, "close"):
                part.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return Parser, (self.bundle, self.engine, self.tail, self.detector, self.augmentation)

    def __repr__(self) -> str:
        height, width = self.bundle.input_hw
        engine = f"{self.engine.precision} on {self.engine.runtime}"
        return f"Parser({self.bundle.name}, {self.bundle.labels.name}, {height}x{width}, {engine}, {self.tail} tail)"

    @overload
    def __call__(self, image: list[Any] | tuple[Any, ...], *, order: str = ...) -> list[People]: ...

    @overload
    def __call__(
        self, image: Any, boxes: ArrayLike | None = ..., box_scores: ArrayLike | None = ..., *, order: str = ...
    ) -> People: ...

    def __call__(
        self, image: Any, boxes: ArrayLike | None = None, box_scores: ArrayLike | None = None, *, order: str = "auto"
    ) -> People | list[People]:
        """Parse an image, or a list of images whose people share the network's batches.

        Args:
            image: a path, an open file, a PIL image, a NumPy array, a torch tensor, or a list of these; see
                `qanet.images.open_image`.
            boxes: (N, 4) xyxy pixels of the people; None runs the detector. For one image alone.
            box_scores: (N,) in [0, 1]; None means 1, as for ground truth.
            order: channels of arrays and tensors, "bgr" or "rgb"; "auto" takes BGR for arrays and RGB for tensors.
        Returns:
            The people, best first, without duplicates; a list for a list.
        Raises:
            QanetError: not an image, or boxes that do not fit it.

        >>> import numpy as np, qanet
        >>> parser = qanet.load("ccp13-lite0", device="cpu", precision="fp32")
        >>> parser([np.zeros((90, 60, 3), np.uint8), np.zeros((40, 50), np.uint8)])
        [People(0 of ccp13, 90x60), People(0 of ccp13, 40x50)]
        """
        if isinstance(image, (list, tuple)):
            if boxes is not None or box_scores is not None:
                raise QanetError("boxes came with a list of images", expected="boxes for one image at a time")
            frames = [open_image(one, order) for one in image]
            return self.parse_batch([(frame, self.detect(frame, number)) for number, frame in enumerate(frames)])
        frame = open_image(image, order)
        if boxes is None and box_scores is not None:
            raise QanetError("box_scores came without boxes", expected="both, or neither: the detector has its own")
        if boxes is None:
            return self.parse(frame, self.detect(frame))
        where = check_boxes(boxes, frame.shape[:2])
        return self.parse(frame, Detections(where, check_scores(box_scores, len(where))))

    def video(
        self,
        source: str | Path,
        *,
        track: bool = True,
        smooth: bool = False,
        detect_every: int | None = None,
        output: str | Path | None = None,
        results: str | Path | None = None,
    ) -> Iterator[tuple["Frame", People]]:
        """Parse a video, a camera, a stream or a folder frame by frame.

        Leaving the loop closes everything that was opened, and the output files keep what was parsed.

        Args:
            source: a file, a folder of images, "/dev/video0", "rtsp://...", "-": see `qanet parse --help`.
            track: number the people and follow them from frame to frame.
            smooth: hold labels that flicker where nothing moves; videos and live sources only.
            detect_every: frames between two runs of the detector; None adapts them. Without `track` it runs on each.
            output: overlay video or folder to write as well.
            results: JSON lines to write as well.
        Yields:
            The frame (index, name, image, time_s) and its people.
        Raises:
            QanetError: no such source, one that cannot be decoded, or an output that cannot be written.
        """
        from qanet.runtime.video.outputs import open_sinks
        from qanet.runtime.video.pipeline import iterate
        from qanet.runtime.video.sources import open_source

        opened = open_source(str(source))
        sinks = open_sinks(
            None if output is None else str(output), None if results is None else str(results), opened.kind, opened.fps
        )
        return iterate(opened, self, sinks, detect_every if track else 1, track, smooth)

    @property
    def max_batch(self) -> int:
        """People that go through the network at once."""
        step = MAX_BATCH // (1 + self.augmentation.flip)  # a person and the mirror image share a batch
        return step if self._device_path is None else min(step, self._device_path.max_batch)

    def detect(self, image: NDArray[np.uint8], frame: int | str = 0) -> Detections:
        """The people of a BGR image, by the parser's detector."""
        if self.detector is None:
            with self._opening:
                self.detector = self.detector or self._default_detector()
        with self.times.stage("detect"):
            return self.detector.detect(image, frame).usable()

    def _default_detector(self) -> Detector:
        """The shipped detector of people; for a model of faces, of the heads of those people."""
        from qanet.runtime.detectors.open import PersonDetector

        people = PersonDetector()
        if self._labels != CELEBAMASK19:
            return people
        from qanet.runtime.faces.detector import HEAD_MODEL, HeadDetector

        return HeadDetector(people, load(HEAD_MODEL))

    def parse(self, image: NDArray[np.uint8], found: Detections) -> People:
        """The people at given boxes of a BGR image, best first, without duplicates."""
        return self.parse_batch([(image, found)])[0]

    def parse_batch(self, frames: Sequence[tuple[NDArray[np.uint8], Detections]]) -> list[People]:
        """`parse` for several BGR images of any sizes, whose people share the network's batches."""
        found = self._every_box(frames)
        with self.times.stage("suppress"):
            least = 0.0 if isinstance(self.detector, WholeImage) else MIN_LABELLED_SHARE  # a picture may be wide
            kept = [parsing_nms(people, self._labels.num_classes, least_share=least) for people in found]
        return [People(image, self._labels, people) for (image, _), people in zip(frames, kept)]

    def every_box(self, image: NDArray[np.uint8], found: Detections) -> list[Person]:
        """A person per box, in the order of the boxes, duplicates kept: for evaluations, which rank by themselves."""
        return self._every_box([(image, found)])[0]

    def _every_box(self, frames: Sequence[tuple[NDArray[np.uint8], Detections]]) -> list[list[Person]]:
        for image, found in frames:
            check_label_bytes(self.bundle.crop_boxes(found.boxes, image.shape[:2]), image.shape[:2])
        if self.is_whole:
            return [self._of_whole(image, found) for image, found in frames]
        people: list[list[Person]] = [[] for _ in frames]
        for batch in batches([len(found) for _, found in frames], self.max_batch):
            parts = [(frames[number][0], frames[number][1].take(where)) for number, where in batch]
            grown = [self.bundle.crop_boxes(found.boxes, image.shape[:2]) for image, found in parts]
            for (number, _), (_, found), parsed in zip(batch, parts, self._run(parts, grown)):
                people[number] += self._finished(parsed, found)
        return people

    def _of_whole(self, image: NDArray[np.uint8], found: Detections) -> list[Person]:
        """Of a network of whole pictures: who fills the picture as the network sees it, others within their box."""
        if len(found) == 0:
            return []
        if np.array_equal(found.boxes, WholeImage().detect(image).boxes):
            return self._finished(self._run([(image, found)], [found.boxes])[0], found)
        if self.tail != "kernel" or not self._is_plain:
            raise QanetError("people of a whole picture are separated by the plain kernel tail", got=self.tail)
        scored, iou = scores_within(self.engine, self.kernels, image, found, self.bundle, self.times)
        people = []
        for number, one in enumerate(scored):
            people += self._people(found.take(slice(number, number + 1)), one, iou)
        return self._finished(people, found)

    def _run(
        self, parts: list[tuple[NDArray[np.uint8], Detections]], grown: list[NDArray[np.float32]]
    ) -> list[list[Person]]:
        """One batch of the network, on the GPU as a whole where that is open."""
        if not self._is_plain:
            return [self._augmented(image, found) for image, found in parts]
        if self._device_path is not None:
            return self._on_device(self._device_path, parts, grown)
        return self._on_host(parts, grown)

    def _on_host(
        self, parts: list[tuple[NDArray[np.uint8], Detections]], grown: list[NDArray[np.float32]]
    ) -> list[list[Person]]:
        """Crops and tail on the CPU; one call of the engine."""
        with self.times.stage("crop"):
            crops = [self.kernels.crop_people(image, boxes, self._input_hw) for (image, _), boxes in zip(parts, grown)]
            batch = crops[0] if len(crops) == 1 else np.concatenate(crops)
        with self.times.stage("engine"):
            outputs = self.engine.run(batch, np.concatenate([found.scores for _, found in parts]))
        people, start = [], 0
        with self.times.stage("tail"):
            for (image, found), boxes in zip(parts, grown):
                rows = slice(start, start + len(found))
                mine = {name: values[rows] for name, values in outputs.items()}
                people.append(self._tail(mine, found, boxes, image.shape[:2]))
                start = rows.stop
        return people

    def _kernel_tail(
        self, outputs: Outputs, found: Detections, grown: NDArray[np.float32], image_hw: tuple[int, int]
    ) -> list[Person]:
        """Labels and scores at image resolution, from the logits."""
        scored = self.kernels.pixel_score(outputs["logits"], grown, image_hw, self._threshold)
        return self._people(found, scored, outputs["iou_scores"])

    def _augmented(self, image: NDArray[np.uint8], found: Detections) -> list[Person]:
        """Every view through the network, their mean through the kernel tail."""
        bundle = self.bundle
        views, iou = look(self.engine, self.kernels, image, found, bundle, self.augmentation, self.times)
        with self.times.stage("tail"):
            scored = score_people(self.kernels, views, image.shape[:2], bundle.threshold, bundle.labels.flip_pairs)
            return self._people(found, scored, iou)

    def _on_device(
        self, path: DevicePath, parts: list[tuple[NDArray[np.uint8], Detections]], grown: list[NDArray[np.float32]]
    ) -> list[list[Person]]:
        """Crop, network and kernel tail on the GPU; the times are of its clock."""
        box_scores = np.concatenate([found.scores for _, found in parts])
        frames = [(image, boxes) for (image, _), boxes in zip(parts, grown)]
        scored, iou, times = path.run_together(frames, box_scores, self._threshold)
        for stage, elapsed_ms in times.items():
            self.times.add(stage, elapsed_ms)
        ends = np.cumsum([len(found) for _, found in parts])[:-1]
        return [
            self._people(found, pixels, rows) for (_, found), pixels, rows in zip(parts, scored, np.split(iou, ends))
        ]

    def _people(self, found: Detections, scored: PixelScores, iou_scores: NDArray) -> list[Person]:
        return people_of_scores(found, scored, iou_scores, self._qam_weights)

    def _finished(self, people: list[Person], found: Detections) -> list[Person]:
        """The people with their expected IoUs and their track numbers, where there are any."""
        if self._quality_map is not None:
            expect(people, self._quality_map)
        for person, track_id in zip(people, () if found.track_ids is None else found.track_ids):
            person.track_id = int(track_id)
        return people

    def _graph_tail(
        self, outputs: Outputs, found: Detections, grown: NDArray[np.float32], image_hw: tuple[int, int]
    ) -> list[Person]:
        """Labels and scores that the graph computed at crop resolution."""
        return people_of_graph(outputs, found, grown, image_hw)


def batches(counts: Sequence[int], size: int) -> list[list[tuple[int, slice]]]:
    """Distribute people over batches of up to `size`, in order.

    Args:
        counts: number of people per image.
    Returns:
        For each batch the (image number, slice of its people) pairs.
    """
    made: list[list[tuple[int, slice]]] = []
    room = 0
    for number, count in enumerate(counts):
        start = 0
        while start < count:
            if room == 0:
                made.append([])
                room = size
            stop = min(count, start + room)
            made[-1].append((number, slice(start, stop)))
            room -= stop - start
            start = stop
    return made
