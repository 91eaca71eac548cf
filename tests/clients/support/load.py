"""What the server says about calls under way, for tests that need some to be."""

import numpy as np
import requests

from . import calls


def in_flight(server, model: str) -> float:
    """Calls of a model that the server has received and not answered."""
    lines = requests.get(f"http://{server.admin}/metrics", timeout=10).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if "in_flight" in line and f'"{model}"' in line)


def learn_that_it_is_slow(server, model: str) -> None:
    """A model that was fast when it was warmed up runs on the connection's own thread until it is known to be slow."""
    for _ in range(20):
        calls.triton_grpc_raw(server, model, {"rounds": np.array(1_000, dtype=np.int64)})
