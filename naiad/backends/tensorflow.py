"""TensorFlow SavedModels, as folders of that name or laid straight into the version folder, and Keras archives."""

from naiad.backends.base import Backend

BACKEND = Backend(
    name="tensorflow",
    platforms=("tensorflow_savedmodel",),
    filenames=("model.savedmodel", "model.keras", "saved_model.pb"),
    needs=("tensorflow",),
    reads_signature=True,
    warm_up_calls=1,
)
