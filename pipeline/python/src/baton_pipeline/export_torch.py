"""PyTorch modules as ONNX."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ExportError, missing
from .export import CHECKED_ROWS, Exported, close, evenly, run

if TYPE_CHECKING:
    import numpy

OPSET = 20


def is_module(model: Any) -> bool:
    """Asked without importing torch: most trainers have none."""
    return any(kind.__module__.startswith("torch.nn") for kind in type(model).__mro__)


def from_torch(model: Any, features: "numpy.ndarray", *, input_name: str, tolerance: float) -> Exported:
    """One input, FP32 [-1, columns], and one output `output` with a row for each row; give it a softmax if it
    classifies.

    Raises `ExportError` if there is no export, or if it answers differently on a row of `features`.
    """
    try:
        import onnx
        import torch
    except ImportError as error:
        raise missing("exporting needs PyTorch", "torch", error) from error
    sample = evenly(features, CHECKED_ROWS)
    model = model.eval().cpu()
    # Two rows: an export from one row would fix the number of rows at one.
    example = torch.from_numpy(sample[:2] if len(sample) > 1 else sample.repeat(2, axis=0))
    with tempfile.TemporaryDirectory(prefix="baton-") as folder, torch.no_grad():
        path = Path(folder) / "model.onnx"
        try:
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[input_name],
                output_names=["output"],
                dynamic_shapes=({0: torch.export.Dim("rows")},),
                verbose=False,
            )
            # One file with all tensors inside: the runner takes no other.
            program.save(str(path), external_data=False)
        except Exception as error:
            raise ExportError(f"torch.onnx cannot export {type(model).__name__}: {error}") from error
        content = path.read_bytes()
        wanted = model(torch.from_numpy(sample)).numpy()
    difference = close(run(content, {input_name: sample})["output"], wanted, tolerance, "output")
    exported = onnx.load_from_string(content)
    summary = {
        "opsets": {opset.domain or "ai.onnx": opset.version for opset in exported.opset_import},
        "ir_version": exported.ir_version,
        "checked": {"rows": len(sample), "outputs": ["output"], "largest_difference": difference},
    }
    return Exported(content, input_name, summary)
