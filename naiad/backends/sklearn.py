"""scikit-learn estimators: skops archives, and pickles that the configuration trusts."""

from naiad.backends.base import Backend

BACKEND = Backend(
    name="sklearn",
    platforms=("scikit-learn",),
    filenames=("model.skops", "model.joblib", "model.pkl"),
    needs=("sklearn", "skops"),
    reads_signature=True,
)
