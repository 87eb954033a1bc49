"""Official networks without official weights: the golden key lists, and the formula that fills them."""

import json
import zlib

import numpy as np
import torch

GOLDEN_NETWORKS = {  # key list in golden/model_forward -> our recipe
    "r50c_cihp_512x384": "cihp-r50c-512x384",
    "r101d_cihp_512x384": "cihp-r101d-512x384",
    "hrnet_w48_lip_512x384": "lip-w48-512x384",
}


def key_list(golden, network):
    """The document of a key list: "gain", and "keys" with key, shape and first value of every tensor."""
    return json.loads((golden / "model_forward" / f"keys_{network}.json").read_text())


def formula_tensor(key, shape, gain):
    """The tensor of that name: drawn in float64 from a generator seeded with the name, cast to float32."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if key.endswith("running_var"):
        values = 0.5 + rng.random(shape)
    elif key.endswith(("running_mean", "bias")):
        values = 0.1 * rng.standard_normal(shape)
    elif len(shape) >= 2:
        values = rng.standard_normal(shape) * np.sqrt(gain / np.prod(shape[1:]))
    else:
        values = 1 + 0.1 * rng.standard_normal(shape)
    return torch.from_numpy(values.astype(np.float32))


def formula_weights(golden, network):
    """Official name -> tensor, for every tensor of the network."""
    document = key_list(golden, network)
    return {k["key"]: formula_tensor(k["key"], k["shape"], document["gain"]) for k in document["keys"]}


def hollow_weights(golden, network):
    """Tensors of the right names and shapes that take a few bytes each in a file: one value, expanded."""
    return {
        k["key"]: torch.zeros((), dtype=getattr(torch, k["dtype"])).expand(k["shape"])
        for k in key_list(golden, network)["keys"]
    }
