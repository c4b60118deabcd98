"""Brings an image (height, width, colours) to the size and the range that an image model wants."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils


def resized(image, height, width):
    """Bilinear, pixel centres aligned, as a floating-point image of values from 0 to 255."""
    rows = np.clip((np.arange(height) + 0.5) * image.shape[0] / height - 0.5, 0, image.shape[0] - 1)
    columns = np.clip((np.arange(width) + 0.5) * image.shape[1] / width - 0.5, 0, image.shape[1] - 1)
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    bottom, right = np.minimum(top + 1, image.shape[0] - 1), np.minimum(left + 1, image.shape[1] - 1)
    down, across = (rows - top)[:, None, None], (columns - left)[None, :, None]
    pixels = image.astype(np.float32)
    upper = pixels[top][:, left] * (1 - across) + pixels[top][:, right] * across
    lower = pixels[bottom][:, left] * (1 - across) + pixels[bottom][:, right] * across
    return upper * (1 - down) + lower * down


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.mean = self.numbers(config, "mean")
        self.std = self.numbers(config, "std")
        _, self.height, self.width = pb_utils.get_output_config_by_name(config, "TENSOR")["dims"]

    def numbers(self, config, name):
        text = config["parameters"][name]["string_value"]
        return np.array([float(part) for part in text.split(",")], dtype=np.float32)

    def execute(self, requests):
        responses = []
        for request in requests:
            images = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy()
            batch = np.stack([self.prepared(image) for image in images])
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("TENSOR", batch)]))
        return responses

    def prepared(self, image):
        scaled = resized(image, self.height, self.width) / 255
        return ((scaled - self.mean) / self.std).transpose(2, 0, 1).astype(np.float32)
