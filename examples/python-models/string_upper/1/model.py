"""UPPER holds each string in capitals, LENGTH how many characters it has."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            raw = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
            texts = [element.decode("utf-8") for element in raw.reshape(-1)]
            upper = np.array([text.upper().encode("utf-8") for text in texts], dtype=np.object_)
            length = np.array([len(text) for text in texts], dtype=np.int32)
            responses.append(
                pb_utils.InferenceResponse(
                    [
                        pb_utils.Tensor("UPPER", upper.reshape(raw.shape)),
                        pb_utils.Tensor("LENGTH", length.reshape(raw.shape)),
                    ]
                )
            )
        return responses
