"""Divides; a divisor of zero is the fault of one request and not of those that share its batch."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.divide(request) for request in requests]

    def divide(self, request):
        dividend = pb_utils.get_input_tensor_by_name(request, "DIVIDEND").as_numpy()
        divisor = pb_utils.get_input_tensor_by_name(request, "DIVISOR").as_numpy()
        if np.any(divisor == 0):
            error = pb_utils.TritonError("DIVISOR must not be zero", pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(output_tensors=[], error=error)
        if not np.all(np.isfinite(dividend)):
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("DIVIDEND is not finite"))
        return pb_utils.InferenceResponse([pb_utils.Tensor("QUOTIENT", dividend / divisor)])
