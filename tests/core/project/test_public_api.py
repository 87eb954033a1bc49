"""The contract of the public names: signatures, types, docstrings with an example, and the examples run."""

import doctest
import inspect
import typing

import numpy as np
import pytest

import qanet

NAMES = [name for name in qanet.__all__ if not name.startswith("__")]
SIGNATURES = {
    "load": "(name_or_path: 'str | Path' = 'ccp13-lite0', *, device: str = 'auto', precision: str = 'auto', tail: "
    "str = 'kernel', detector: 'Detector | str | None' = None, threads: int | None = None, flip: bool = False, scales: "
    "collections.abc.Sequence[float] = (1.0,)) -> 'Parser'",
    "People.draw": "(self, alpha: float = 0.55, boxes: bool = True, legend: bool = True, max_width: int = 0) -> "
    "numpy.ndarray[tuple[typing.Any, ...], numpy.dtype[numpy.uint8]]",
    "People.to_json": "(self, masks: bool = True) -> dict[str, typing.Any]",
    "People.to_coco": "(self, image_id: int = 0, parts: bool = False) -> list[dict[str, typing.Any]]",
}


def members(name):
    """The public functions and properties of a class, each with its dotted name."""
    thing = getattr(qanet, name)
    if inspect.isclass(thing):
        for key, value in vars(thing).items():
            if not key.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                yield f"{name}.{key}", value.fget if isinstance(value, property) else value
    else:
        yield name, thing


PUBLIC = dict(pair for name in NAMES for pair in members(name))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_types_and_a_docstring(name):
    function = PUBLIC[name]
    assert inspect.getdoc(function), f"{name} has no docstring"
    signature = inspect.signature(function)
    untyped = [p for p in signature.parameters.values() if p.name != "self" and p.annotation is p.empty]
    assert untyped == [] and signature.return_annotation is not signature.empty


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_signatures_of_the_front_door_stay(name):
    assert str(inspect.signature(PUBLIC[name])) == SIGNATURES[name]


def test_every_public_name_is_completed_by_editors():
    assert {"load", "Parser", "People", "Person", "QanetError"} <= set(NAMES)
    assert all(getattr(qanet, name).__module__.startswith("qanet") for name in NAMES)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        qanet.nothing  # noqa: B018
    assert typing.get_type_hints(qanet.People.__init__)  # a dataclass whose types resolve


@pytest.mark.parametrize("name", [name for name in NAMES if name != "QanetError"])
def test_the_examples_of_the_docstrings_run(name):
    thing = getattr(qanet, name)
    module = inspect.getmodule(thing)
    finder = doctest.DocTestFinder(exclude_empty=True)
    tests = [t for t in finder.find(thing, name, module, {**vars(module), "np": np}) if t.examples]
    runner = doctest.DocTestRunner()
    for test in tests:
        runner.run(test)
    assert runner.failures == 0 and (tests or name == "Person"), f"{name} has no example"
