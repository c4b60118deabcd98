"""Adds up its input, writes about it into the server's log and says more on the response."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.logger = pb_utils.Logger
        self.logger.log_info(f"{args['model_name']} version {args['model_version']} is there")
        self.answered = 0

    def execute(self, requests):
        responses = []
        for request in requests:
            values = pb_utils.get_input_tensor_by_name(request, "INPUT").as_numpy()
            self.answered += 1
            if values.size == 0:
                self.logger.log_warn(f"request '{request.request_id()}' has no elements")
            total = np.array([values.sum()], dtype=np.int64)
            parameters = {"answered": self.answered, "empty": bool(values.size == 0), "by": "logger"}
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("TOTAL", total)], parameters=parameters))
        return responses

    def finalize(self):
        self.logger.log_info(f"{self.answered} requests were answered")
