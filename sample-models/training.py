"""What the training scripts share: train, export to ONNX, compare with the trainer, write the files of a bundle."""

import hashlib
import importlib.metadata
import importlib.resources
import json
import platform
import re
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.base import ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import Bunch
from threadpoolctl import threadpool_limits

import golden

ROOT = Path(__file__).resolve().parent
OPSETS = {"": 17, "ai.onnx.ml": 3}
SEED = 1
GOLDEN_ROWS = 8
GOLDEN_BATCH = 4


@dataclass(frozen=True)
class Dataset:
    """A data set that scikit-learn ships; `file` is its name there."""

    name: str
    file: str
    content: Bunch
    held_out_rows: int

    def digest(self) -> str:
        return sha256((importlib.resources.files("sklearn.datasets.data") / self.file).read_bytes())

    def features(self) -> np.ndarray:
        """FP32, as the served model gets them."""
        return self.content.data.astype(np.float32)

    def split(self) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers for training and row numbers held out; the same for every version, each class in proportion."""
        return train_test_split(
            np.arange(len(self.content.target)),
            test_size=self.held_out_rows,
            random_state=SEED,
            stratify=self.content.target,
        )


def train_versions(
    script: str, dataset: Dataset, input_name: str, versions: dict[str, dict], build: Callable[..., ClassifierMixin]
) -> None:
    """Trains each version and writes it to the folder of that name beside `script`.

    A version's parameters are `training_rows` and the arguments of `build`. baton.toml is left as it is.
    """
    for version, parameters in versions.items():
        folder = Path(script).resolve().parent / version
        folder.mkdir(exist_ok=True)
        training, held_out = dataset.split()
        rows = training[: parameters["training_rows"]]
        features, labels = dataset.features(), dataset.content.target

        model = build(**{name: value for name, value in parameters.items() if name != "training_rows"})
        # More threads would add up in another order, and a second run would give another file.
        with threadpool_limits(1):
            cost = Cost()
            model.fit(features[rows], labels[rows])
            cost = cost.so_far()
            accuracy = round(float(model.score(features[held_out], labels[held_out])), 4)

        export(model, input_name, features.shape[1], folder / "model.onnx", name=f"{dataset.name}-{version}")
        check_against_trainer(model, folder / "model.onnx", input_name, features)
        golden.write(folder / "model.onnx", folder / "golden.jsonl", golden_rows(dataset, input_name, held_out))
        write_json(
            folder / "provenance.json",
            {
                "dataset": {"name": dataset.name, "digest": dataset.digest(), "rows": len(features)},
                "code": code(Path(script)),
                "parameters": {
                    "model": " > ".join(type(step).__name__ for step in model),
                    "seed": SEED,
                    "held_out_rows": len(held_out),
                    **parameters,
                },
                "metrics": {"accuracy": accuracy},
                "environment": environment(),
                "cost": cost,
                "trained_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            },
        )
        print(f"{dataset.name} {version}: accuracy {accuracy} on {len(held_out)} held-out rows")


def export(model: ClassifierMixin, input_name: str, columns: int, to: Path, name: str) -> None:
    """Input FP32 [-1, columns]; outputs `label` INT64 [-1] and `probabilities` FP32 [-1, classes]."""
    exported = to_onnx(
        model,
        initial_types=[(input_name, FloatTensorType([None, columns]))],
        name=name,
        target_opset=OPSETS,
        # Without this the probabilities are a sequence of maps, which is no tensor.
        options={"zipmap": False},
    )
    to.write_bytes(exported.SerializeToString())


def check_against_trainer(model: ClassifierMixin, exported: Path, input_name: str, features: np.ndarray) -> None:
    """The exported model says what scikit-learn says, on every row of the data set: the golden rows are among them."""
    label, probabilities = golden.session(exported).run(["label", "probabilities"], {input_name: features})
    np.testing.assert_array_equal(label, model.predict(features))
    np.testing.assert_allclose(probabilities, model.predict_proba(features), atol=1e-5, rtol=1e-4)


def golden_rows(dataset: Dataset, input_name: str, held_out: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    features, classes = dataset.features(), dataset.content.target_names[dataset.content.target]
    rows = {
        f"{classes[row]}, row {row}": {input_name: features[row : row + 1]} for row in map(int, held_out[:GOLDEN_ROWS])
    }
    batch = held_out[:GOLDEN_BATCH]
    rows[f"batch of {len(batch)}"] = {input_name: features[batch]}
    return rows


class Cost:
    """Measures from where it is made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def so_far(self) -> dict:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "cpu_seconds": round(time.process_time() - self.cpu, 3),
            "wall_seconds": round(time.perf_counter() - self.wall, 3),
            # Of the whole process. Kilobytes everywhere but on macOS.
            "peak_memory_bytes": peak if sys.platform == "darwin" else peak * 1024,
        }


def code(script: Path) -> dict:
    def entry(path: Path) -> dict:
        resolved = path.resolve()
        return {"script": str(resolved.relative_to(ROOT.parent)), "digest": sha256(resolved.read_bytes())}

    return {**entry(script), "imports": [entry(Path(__file__)), entry(Path(golden.__file__))]}


def environment() -> dict:
    """Python and the packages of requirements.txt as installed; the digest is that of both as compact JSON."""
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(), flags=re.MULTILINE)
    packages = {name: importlib.metadata.version(name) for name in sorted(pinned)}
    content = {"python": platform.python_version(), "packages": packages}
    return {**content, "digest": sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())}


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def write_json(to: Path, content: dict) -> None:
    to.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
