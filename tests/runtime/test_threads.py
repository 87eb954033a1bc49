"""Whatever a user opens may be shared by threads, and pickles for the workers of a pool that is spawned."""

import multiprocessing
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import ProcessPoolExecutor

import cv2
import numpy as np
import pytest
from int8_bundle import make_int8_bundle

import qanet
from qanet.bundle import open_bundle
from qanet.results import Person
from qanet.runtime.backends import openvino, select
from qanet.runtime.backends.base import KERNEL_TAIL_OUTPUTS
from qanet.runtime.detectors import open as detectors
from qanet.runtime.detectors.base import BoxesFile, Detections, WholeImage
from qanet.runtime.faces.detector import FaceDetector, HeadDetector
from qanet.runtime.video import pipeline

THREADS, CALLS = 8, 25  # a shared request without turns fails in three of four calls, even with half as many threads


def pictures():
    """Noise in blocks, no two of one size or aspect: a leftover of another call is never right by chance."""
    rng = np.random.default_rng(0)
    sizes = [(96, 64), (64, 128), (150, 70), (80, 80), (60, 180)]
    blocks = (rng.integers(0, 2, (h // 8 + 1, w // 8 + 1, 3), np.uint8) * np.uint8(255) for h, w in sizes)
    return [b.repeat(8, 0).repeat(8, 1)[:h, :w].copy() for b, (h, w) in zip(blocks, sizes)]


def plain(result):
    """An answer as something that == compares, to the last bit."""
    if isinstance(result, (Person, qanet.People)):
        return plain(list(result) if isinstance(result, qanet.People) else vars(result))
    if isinstance(result, (list, tuple)):
        return [plain(one) for one in result]
    if isinstance(result, dict):
        return {key: plain(one) for key, one in result.items()}
    return (result.shape, result.tobytes()) if isinstance(result, np.ndarray) else result


def check_shared(call, threads=THREADS, calls=CALLS):
    """Many calls from many threads, each on another picture than its neighbours, give what one thread alone gives."""
    images = pictures()
    alone = [plain(call(image)) for image in images]
    assert all(one != other for one, other in zip(alone, alone[1:])), "pictures that a mix-up could not be told by"
    begin = threading.Barrier(threads)

    def work(first):
        begin.wait()
        order = [(first + n) % len(images) for n in range(calls)]
        return [plain(call(images[k])) == alone[k] for k in order]

    with ThreadPoolExecutor(threads) as pool:
        right = [one for part in pool.map(work, range(threads)) for one in part]
    assert right == [True] * threads * calls


def boxes_of(image):
    """Two people side by side, of whole and of half height, and how sure the detector is."""
    height, width = image.shape[:2]
    boxes = [[2, 2, width / 2, height - 2], [width / 2, 1, width - 1, height / 2]]
    return np.array(boxes, np.float32), np.array([0.9, 0.8], np.float32)


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    return make_int8_bundle(tmp_path_factory.mktemp("int8"))


@pytest.mark.parametrize("device", ["cpu", "onnxruntime"])
@pytest.mark.parametrize(
    ("precision", "options"),
    [("fp32", {}), ("fp32", {"tail": "graph"}), ("fp32", {"flip": True}), ("int8", {})],
    ids=["kernel tail", "graph tail", "flipped", "int8"],
)
def test_a_parser(shared_tiny_bundle, int8, device, precision, options):
    if precision == "int8":  # weights by chance, which no known answers tell to be right
        bundle = open_bundle(int8)
        engine = select.open_choice(bundle, select.Choice(device, "int8", "int8"), KERNEL_TAIL_OUTPUTS)
        parser = qanet.Parser(bundle, engine)
    else:
        parser = qanet.load(shared_tiny_bundle, device=device, precision=precision, **options)
    check_shared(lambda image: parser.every_box(image, Detections(*boxes_of(image))))


@pytest.fixture
def onnx_detector(tmp_path):
    """A detector of the end-to-end form whose one box depends on how the image lies in the input, and on its colour."""
    parse = pytest.importorskip("onnx.parser").parse_model
    text = """
        <ir_version: 8, opset_import: ["": 17]>
        made (float[1,3,64,96] images) => (float[1,1,6] rows)
        <float[1,1,6] box = {10, 10, 50, 40, 0.5, 0}, float[1,1,6] share = {0, 0, 30, 10, 0.1, 0}> {
          mean = ReduceMean<keepdims = 0>(images)
          more = Mul(share, mean)
          rows = Add(box, more)
        }"""
    (tmp_path / "made.onnx").write_bytes(parse(text).SerializeToString())
    return detectors.OnnxDetector(tmp_path / "made.onnx", threads=1)


def found_by(detector):
    return lambda image: vars(detector.detect(image))


def test_an_onnx_detector(onnx_detector):
    check_shared(found_by(onnx_detector))


def test_detectors_of_faces(onnx_detector):
    check_shared(found_by(HeadDetector(onnx_detector, None)))
    check_shared(found_by(FaceDetector(onnx_detector)))


def test_the_shipped_detector():
    detector = detectors.PersonDetector(score_threshold=0.001, device="cpu")
    check_shared(found_by(detector), threads=4, calls=2)


def test_two_videos_at_once_give_what_each_gives_alone(make_clip, shared_tiny_bundle):
    parser = qanet.load(shared_tiny_bundle, device="cpu", detector=WholeImage(), threads=1)
    clips = [make_clip(12 + n, f"{n}.avi") for n in range(3)]
    before = cv2.getNumThreads()

    def people(clip):
        return [(frame.index, plain(found)) for frame, found in parser.video(clip)]

    alone = [people(clip) for clip in clips]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(people, clips)) == alone
    assert cv2.getNumThreads() == before


def test_opencv_gets_its_threads_back_when_the_last_run_ends():
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    first, second = pipeline._one_thread_a_call(), pipeline._one_thread_a_call()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert cv2.getNumThreads() == 1
    second.__exit__(None, None, None)
    assert cv2.getNumThreads() == 3
    cv2.setNumThreads(before)


def opened_once(monkeypatch, target, name, call):
    """What eight threads get from a call that opens `target.name` on first use; it was opened once."""
    made, begin = [], threading.Barrier(THREADS)

    class Slow:
        def __init__(self, *_, **__):
            made.append(self)
            threading.Event().wait(0.05)

        def __call__(self, *_, **__):
            return self

        def detect(self, *_):
            return self

        def usable(self):
            return self

    monkeypatch.setattr(target, name, Slow)

    def work(_):
        begin.wait()
        return call()

    with ThreadPoolExecutor(THREADS) as pool:
        got = list(pool.map(work, range(THREADS)))
    assert len(made) == 1 and all(one is made[0] for one in got)


def test_what_opens_on_first_use_opens_once(monkeypatch, shared_tiny_bundle):
    parser = qanet.load(shared_tiny_bundle, device="cpu")
    opened_once(monkeypatch, detectors, "PersonDetector", lambda: parser.detect(pictures()[0]))
    model = qanet.Model(shared_tiny_bundle)
    opened_once(monkeypatch, qanet.Model, "load", lambda: model.parse(pictures()[0]))
    monkeypatch.setattr(openvino, "_cores", [])
    opened_once(monkeypatch, openvino.import_openvino(), "Core", openvino.openvino_core)


@pytest.mark.parametrize("device", ["cpu", "onnxruntime"])
@pytest.mark.parametrize(
    "options",
    [{}, {"tail": "graph"}, {"flip": True}, {"threads": 1}, {"detector": WholeImage()}],
    ids=["plain", "graph tail", "flipped", "one thread", "detector"],
)
def test_a_parser_pickles_as_what_opened_it(shared_tiny_bundle, device, options):
    parser = qanet.load(shared_tiny_bundle, device=device, **options)
    copy = pickle.loads(pickle.dumps(parser))
    assert copy.engine is not parser.engine and repr(copy) == repr(parser)
    for image in pictures():
        assert plain(copy(image, *boxes_of(image))) == plain(parser(image, *boxes_of(image)))


def test_detectors_and_models_pickle(onnx_detector, shared_tiny_bundle, boxes_file, people):
    parser = qanet.load(shared_tiny_bundle, device="cpu", threads=1)
    person = detectors.PersonDetector(score_threshold=0.001, device="cpu")
    heads, faces = HeadDetector(onnx_detector, parser), FaceDetector(onnx_detector)
    for detector in (onnx_detector, person, heads, faces, BoxesFile(boxes_file), WholeImage()):
        copy = pickle.loads(pickle.dumps(detector))
        assert copy.name == detector.name
        assert plain(found_by(copy)(people(0))) == plain(found_by(detector)(people(0)))
    model = qanet.Model(shared_tiny_bundle)
    model.parse(pictures()[0], boxes=[])
    assert repr(pickle.loads(pickle.dumps(model))) == repr(model)


def test_an_engine_of_bare_bytes_says_why_it_does_not_pickle(tiny_graph):
    with pytest.raises(pickle.PicklingError, match="an engine of bare bytes cannot be pickled"):
        pickle.dumps(openvino.engine_from_graph(tiny_graph, "fp32"))


def test_workers_that_are_spawned_take_a_parser(shared_tiny_bundle):
    parser = qanet.load(shared_tiny_bundle, device="cpu", threads=1)
    image = pictures()[0]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(qanet.Parser.__call__, parser, image, *boxes_of(image)).result()
    assert plain(found) == plain(parser(image, *boxes_of(image))) != []
