"""The outlier model that goes with a model: an isolation forest over its training rows, as ONNX, for the checks of the
next data set.

Liu, Ting, Zhou: Isolation Forest, ICDM 2008. The forest's own threshold calls about one row in fifteen of ordinary
data an outlier, so the threshold is a quantile of the training rows' scores instead (scikit-learn's `contamination`): the
label of the exported file says what the checks will say.
"""

import json
from typing import TYPE_CHECKING, Any

from .errors import DataError, ExportError, UsageError, missing
from .export import CHECKED_ROWS, OPSETS, close, evenly, run

if TYPE_CHECKING:
    import numpy

TREES = 50
INPUT = "features"
# Depths are added up in FP32 there and in FP64 here.
TOLERANCE = 1e-4


def forest(features: "numpy.ndarray", columns: list[str], share: float) -> tuple[bytes, dict[str, Any]]:
    """The ONNX file and a summary for the provenance. `share` of the training rows are ordinary, 0.5 to 1.

    Input `features` FP32 [-1, columns]; outputs `label` INT64 (-1: an outlier) and `scores` FP32 [-1, 1], below 0 for
    outliers, the lower the stranger. Metadata of the file: `baton.outlier.share`, `baton.outlier.columns` (JSON list).
    Raises `ExportError` if the export scores a row differently.
    """
    import numpy

    try:
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import FloatTensorType
        from sklearn.ensemble import IsolationForest
    except ImportError as error:
        raise missing("outliers=... needs skl2onnx", "sklearn", error) from error
    if not 0.5 <= share < 1.0:
        raise UsageError(f"outliers={share}: the share of rows that are ordinary, 0.5 to 1, was expected")
    rows = features[numpy.isfinite(features).all(axis=1)]
    if len(rows) < 2:
        raise DataError("an outlier model needs at least two rows of training data without gaps")
    fitted = IsolationForest(n_estimators=TREES, contamination=1.0 - share, random_state=0).fit(rows)
    exported = to_onnx(fitted, initial_types=[(INPUT, FloatTensorType([None, rows.shape[1]]))], target_opset=OPSETS)
    content = exported.SerializeToString()
    scores = run(content, {INPUT: rows})["scores"].reshape(-1)
    try:
        own = fitted.decision_function(evenly(rows, CHECKED_ROWS))
        difference = close(evenly(scores, CHECKED_ROWS), own, TOLERANCE, "scores of outliers")
    except ExportError as error:
        raise ExportError(f"outlier model: {error}") from error
    for key, value in (
        ("baton.outlier.share", repr(share)),
        ("baton.outlier.columns", json.dumps(columns)),
    ):
        entry = exported.metadata_props.add()
        entry.key, entry.value = key, value
    summary = {"trees": TREES, "share": share, "largest_difference": difference}
    return exported.SerializeToString(), summary
