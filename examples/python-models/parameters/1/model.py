"""Multiplies by a number of its configuration, then adds one of the request; nothing is kept between requests."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.scale = float(config["parameters"]["scale"]["string_value"])

    def execute(self, requests):
        responses = []
        for request in requests:
            asked = json.loads(request.parameters() or "{}")
            value = pb_utils.get_input_tensor_by_name(request, "VALUE").as_numpy()
            result = value * self.scale + asked.get("offset", 0)
            if asked.get("round"):
                result = np.round(result)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("RESULT", result.astype(np.float32))]))
        return responses
