"""TensorRT's builder, made up: it has the names of one release and no other, and an engine is JSON of what was asked.

Layers take the types that stand in the ONNX graph, as a strongly typed network's do. `faults` change that: "fp32" makes
every layer FP32, "no plan" builds nothing, "no dla" leaves all to the GPU, "no inspector" cannot load what it built.
"""

import json
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import onnx

_API = Path(__file__).parents[1] / "golden" / "tensorrt_api" / "names.json"
_NAMES = json.loads(_API.read_text())["names"]
ENUMERATIONS = (
    "BuilderFlag",
    "MemoryPoolType",
    "ProfilingVerbosity",
    "TacticSource",
    "HardwareCompatibilityLevel",
    "DeviceType",
    "NetworkDefinitionCreationFlag",
    "OnnxParserFlag",
    "LayerInformationFormat",
    "SerializationFlag",
)
_KINDS = {1: "Float", 10: "Half", 16: "BFloat16"}


def _has(release, name):
    return name in _NAMES and (not _NAMES[name] or release in _NAMES[name].split())


class Strict:
    """An object of the library: only names that its class has in the release can be read or set.

    The class has the library's own name, and in `Library` a subclass that knows its library; what the fake needs beside
    the library's names starts with an underscore.
    """

    def __setattr__(self, name, value):
        self._check(name)
        object.__setattr__(self, name, value)

    def __getattribute__(self, name):
        if not name.startswith("_"):
            self._check(name)
        return object.__getattribute__(self, name)

    def _check(self, name):
        kind = type(self).__name__
        if not name.startswith("_") and not _has(self._library.release, f"{kind}.{name}"):
            raise AttributeError(f"{kind} of {self._library.release} has no {name}")


class Enumeration:
    def __init__(self, release, kind):
        prefix = f"{kind}."
        members = [n[len(prefix) :] for n in _NAMES if n.startswith(prefix) and _has(release, n)]
        members = [name for name in members if name.isupper()]
        self.__dict__.update({name: number for number, name in enumerate(sorted(members))})

    def name_of(self, number):
        return next(name for name, value in self.__dict__.items() if value == number)


def layers_of(model, faults, dla):
    """Layers as the inspector tells them: one for each convolution and product, another for all the rest."""
    types = {t.name: _KINDS.get(t.data_type, "Int8" if t.data_type == 3 else "Other") for t in model.graph.initializer}
    types |= {n.output[0]: "Int8" for n in model.graph.node if n.op_type == "DequantizeLinear"}
    layers = []
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            kind = "Float" if "fp32" in faults else types[node.input[1]]
            tensor = {"Name": "t", "Dimensions": [1], "Format/Datatype": kind}
            layers.append(
                {
                    "Name": node.name,
                    "LayerType": "CaskConvolution",
                    "Inputs": [tensor],
                    "Outputs": [tensor],
                    "Weights": {"Type": kind, "Count": 8},
                    "Metadata": f"[ONNX Layer: {node.name}]",
                }
            )
    if dla and "no dla" not in faults:
        ends = [layers[0]["Name"], layers[-2]["Name"]]
        tensor = {"Name": "t", "Dimensions": [1], "Format/Datatype": "Half"}
        layers[:-1] = [
            {
                "Name": "{ForeignNode[" + "...".join(ends) + "]}",
                "LayerType": "DLA",
                "Inputs": [tensor],
                "Outputs": [tensor],
            }
        ]
    return layers


class ITimingCache(Strict):
    def __init__(self, data):
        self._entries = set(json.loads(data)) if data else set()

    def serialize(self):
        return json.dumps(sorted(self._entries)).encode()

    def combine(self, other, ignore_mismatch):
        assert ignore_mismatch is False
        self._entries.update(other._entries)
        return True


class IOptimizationProfile(Strict):
    def __init__(self):
        self._shapes = {}

    def set_shape(self, name, low, middle, high):
        self._shapes[name] = [list(low), list(middle), list(high)]


class IBuilderConfig(Strict):
    def __init__(self):
        self._flags, self._pools, self._profiles, self._sources, self._cache = {"TF32"}, {}, [], None, None
        self.builder_optimization_level, self.progress_monitor, self.DLA_core = 3, None, -1
        self.profiling_verbosity = self.default_device_type = self.hardware_compatibility_level = None

    def set_flag(self, flag):
        self._flags.add(self._library.BuilderFlag.name_of(flag))

    def clear_flag(self, flag):
        self._flags.discard(self._library.BuilderFlag.name_of(flag))

    def set_memory_pool_limit(self, pool, size):
        self._pools[self._library.MemoryPoolType.name_of(pool)] = size >> 20

    def set_tactic_sources(self, mask):
        members = self._library.TacticSource.__dict__.items()
        self._sources = sorted(name for name, number in members if mask >> number & 1)
        return True

    def add_optimization_profile(self, profile):
        self._profiles.append(profile._shapes)
        return len(self._profiles) - 1

    def create_timing_cache(self, data):
        return None if data == b"of another GPU" else self._library.ITimingCache(data)

    def set_timing_cache(self, cache, ignore_mismatch):
        assert ignore_mismatch is False
        self._cache = cache
        return True

    def get_timing_cache(self):
        return self._cache

    def _asked(self):
        """What a build with this configuration is asked for."""
        return {
            "flags": sorted(self._flags),
            "pools": self._pools,
            "profiles": self._profiles,
            "level": self.builder_optimization_level,
            "sources": self._sources,
            "dla": self.DLA_core,
            "hardware": self.hardware_compatibility_level,
            "monitored": self.progress_monitor is not None,
            "verbosity": self._library.ProfilingVerbosity.name_of(self.profiling_verbosity),
            "cached": sorted(self._cache._entries) if self._cache else None,
        }


class Builder(Strict):
    def __init__(self, logger):
        self._logger, self.max_threads, self.num_DLA_cores = logger, 0, self._library.dla_cores

    def create_builder_config(self):
        return self._library.IBuilderConfig()

    def create_optimization_profile(self):
        return self._library.IOptimizationProfile()

    def create_network(self, flags):
        return SimpleNamespace(flags=flags, model=None)

    def build_serialized_network(self, network, config):
        strong = getattr(self._library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        is_strong = strong is not None and network.flags == 1 << strong
        asked = config._asked() | {"strongly_typed": is_strong, "threads": self.max_threads}
        self._library.builds.append(asked)
        if config._cache:
            config._cache._entries |= {node.op_type for node in network.model.graph.node}
        if "no plan" in self._library.faults:
            self._logger.log(1, "Error Code 2: OutOfMemory (Requested size was 4294967296 bytes.)")
            return None
        layers = layers_of(network.model, self._library.faults, config.DLA_core >= 0)
        return json.dumps({"weights": "STRIP_PLAN" not in asked["flags"], "layers": layers}).encode()


class OnnxParser(Strict):
    def __init__(self, network, logger):
        self._network, self._flags, self.num_errors = network, [], 0

    def set_flag(self, flag):
        self._flags.append(flag)

    def parse(self, data):
        self._network.model = onnx.load_model_from_string(data)
        return True


class EngineInspector(Strict):
    def __init__(self, spec):
        self._spec = spec

    def get_engine_information(self, form):
        assert form == self._library.LayerInformationFormat.JSON
        return json.dumps({"Layers": self._spec["layers"]})


class ISerializationConfig(Strict):
    def __init__(self):
        self._flags = {"EXCLUDE_WEIGHTS"}

    def clear_flag(self, flag):
        self._flags.discard(self._library.SerializationFlag.name_of(flag))


class ICudaEngine(Strict):
    def __init__(self, spec):
        self._spec = spec

    def create_engine_inspector(self):
        return self._library.EngineInspector(self._spec)

    def create_serialization_config(self):
        return self._library.ISerializationConfig()

    def serialize_with_config(self, config):
        return json.dumps(self._spec | {"weights": not config._flags}).encode()


class Runtime(Strict):
    def __init__(self, logger):
        self._logger, self.engine_host_code_allowed = logger, False

    def deserialize_cuda_engine(self, plan):
        if "no inspector" in self._library.faults or not plan.startswith(b"{"):
            self._logger.log(1, "Serialization assertion failed.")
            return None
        return self._library.ICudaEngine(json.loads(plan))


class Refitter(Strict):
    def __init__(self, engine, logger):
        self._engine, self._given = engine, set()

    def get_missing_weights(self):
        return sorted({layer["Name"] for layer in self._engine._spec["layers"]} - self._given)

    def refit_cuda_engine(self):
        return True


class OnnxParserRefitter(Strict):
    def __init__(self, refitter, logger):
        self._refitter = refitter

    def refit_from_bytes(self, data):
        self._refitter._given |= {node.name for node in onnx.load_model_from_string(data).graph.node}
        return True


@dataclass
class Library:
    """What all objects of one made-up library share; enumerations and classes are attributes, as in a module."""

    release: str
    faults: tuple
    dla_cores: int
    builds: list = field(default_factory=list)

    def __post_init__(self):
        for kind in ENUMERATIONS:
            setattr(self, kind, Enumeration(self.release, kind))
        for kind in Strict.__subclasses__():
            setattr(self, kind.__name__, type(kind.__name__, (kind,), {"_library": self}))


def tensorrt_builder_module(version, *, faults=(), dla_cores=0):
    """The module `tensorrt` of a version whose release names.json has; `.builds` tells what every build was asked."""
    library = Library(".".join(version.split(".")[:2]), tuple(faults), dla_cores)
    module = ModuleType("tensorrt")
    module.__spec__ = ModuleSpec("tensorrt", None)
    module.__version__, module.builds, module.faults = version, library.builds, faults
    for name in (*ENUMERATIONS, "Builder", "OnnxParser", "Runtime", "Refitter", "OnnxParserRefitter"):
        setattr(module, name, getattr(library, name))
    for name in ("ILogger", "IProgressMonitor"):  # to be subclassed
        setattr(module, name, type(name, (), {}))
    return module
