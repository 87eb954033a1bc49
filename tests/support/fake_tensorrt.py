"""TensorRT over the made-up GPU; a plan is JSON: profiles, inputs, outputs, half (float16), fail (calls that fail),
capturable (what a context of TensorRT-RTX says of itself)."""

import json
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import numpy as np
from fake_cuda import Work
from toy_engines import SHAPES, network

LAYERS_MS = {"backbone.blocks.0.expand + relu": 0.25, "Reformatting CopyNode": 0.5}
INFORMATION = json.dumps(
    {
        "Layers": [
            {
                "Name": "backbone.blocks.0.expand + relu",
                "LayerType": "CaskConvolution",
                "Outputs": [{"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}],
            },
            "a layer without detail",
        ]
    }
)


class FakeContext:
    def __init__(self, engine):
        self.engine, self.profile, self.shapes, self.addresses = engine, None, {}, {}
        self.profiler = None
        if "capturable" in engine.spec:  # as TensorRT-RTX has it
            self.is_stream_capturable = lambda handle: engine.spec["capturable"]
        engine.machine.watch(self, "context")

    def set_optimization_profile_async(self, index, handle):
        assert handle == 77
        self.profile = self.engine.spec["profiles"][index]
        self.engine.machine.queue(Work(None, handle, set()))
        return self.engine.succeeds("set_optimization_profile_async")

    def set_input_shape(self, name, shape):
        low, high = self.profile
        if not (low <= shape[0] <= high and tuple(shape[1:]) == SHAPES[name]):
            return self.engine.refuse(f"{name}: shape {shape} is out of the profile {self.profile}")
        self.shapes[name] = tuple(shape)
        return self.engine.succeeds("set_input_shape")

    def get_tensor_shape(self, name):
        return (self.shapes["crops"][0], *SHAPES[name])

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return self.engine.succeeds("set_tensor_address")

    def execute_async_v3(self, handle):
        engine = self.engine
        engine.machine.need_context("execute")
        assert handle == 77 and set(self.addresses) == set(engine.names)
        engine.machine.queue(Work(self.compute, handle, set(self.addresses.values())))
        if self.profiler is not None:
            assert not engine.machine.captures, "a profiler in a recording"
            for layer, ms in LAYERS_MS.items():
                self.profiler.report_layer_time(layer, ms)
        return engine.succeeds("execute_async_v3")

    def array(self, name):
        shape, kind = self.get_tensor_shape(name), self.engine.get_tensor_dtype(name)
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        return self.engine.machine.memory[self.addresses[name]][:size].view(kind).reshape(shape)

    def compute(self):
        inputs = {name: self.array(name) for name in self.engine.spec["inputs"]}
        found = network(inputs["crops"], inputs.get("box_scores"))
        for name in self.engine.spec["outputs"]:
            self.array(name)[:] = found[name]


class FakeEngine:
    def __init__(self, machine, spec, logger):
        self.machine, self.spec, self.logger = machine, spec, logger
        self.names = [*spec["inputs"], *spec["outputs"]]
        self.num_io_tensors, self.num_optimization_profiles = len(self.names), len(spec["profiles"])
        self.get_tensor_name = self.names.__getitem__
        machine.watch(self, "engine")

    def refuse(self, message):
        self.logger.log(1, message)
        return False

    def succeeds(self, call):
        return self.refuse(f"Error Code 1: {call} went wrong") if call in self.spec.get("fail", ()) else True

    def get_tensor_mode(self, name):
        return "input" if name in self.spec["inputs"] else "output"

    def get_tensor_dtype(self, name):
        return {"crops": "uint8"}.get(name, "float16" if name in self.spec.get("half", ()) else "float32")

    def get_tensor_shape(self, name):
        return (-1, *SHAPES[name])

    def get_tensor_profile_shape(self, name, index):
        low, high = self.spec["profiles"][index]
        return [(size, *SHAPES[name]) for size in (low, high, high)]

    def create_execution_context(self, strategy):
        assert strategy == "on profile change"
        return FakeContext(self) if self.succeeds("create_execution_context") else None

    def create_engine_inspector(self):
        if "create_engine_inspector" in self.spec.get("fail", ()):
            raise RuntimeError("no inspector")
        return SimpleNamespace(get_engine_information=lambda form: INFORMATION if form == "json" else None)


def tensorrt_module(machine, name, version):
    """The module tensorrt or tensorrt_rtx."""

    class Runtime:
        engine_host_code_allowed = False

        def __init__(self, logger):
            self.logger = logger
            machine.watch(self, "runtime")

        def deserialize_cuda_engine(self, plan):
            machine.need_context("deserialize")
            machine.host_code = self.engine_host_code_allowed
            if plan == b"not a plan":
                self.logger.log(1, "Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed.")
                return None
            return FakeEngine(machine, json.loads(plan), self.logger)

    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.__dict__.update(
        __version__=version,
        Runtime=Runtime,
        TensorIOMode=SimpleNamespace(INPUT="input"),
        ILogger=type("ILogger", (), {}),
        IProfiler=type("IProfiler", (), {}),
        LayerInformationFormat=SimpleNamespace(JSON="json"),
        nptype=lambda kind: np.dtype(kind).type,
        ExecutionContextAllocationStrategy=SimpleNamespace(ON_PROFILE_CHANGE="on profile change"),
    )
    return module
