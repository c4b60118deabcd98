"""Scales rows of any length; there is no config.pbtxt, for the model says what it takes."""

import triton_python_backend_utils as pb_utils

FACTOR = 3


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        auto_complete_model_config.add_input({"name": "ROW", "data_type": "TYPE_INT64", "dims": [-1]})
        auto_complete_model_config.add_output({"name": "SCALED", "data_type": "TYPE_INT64", "dims": [-1]})
        auto_complete_model_config.set_max_batch_size(16)
        auto_complete_model_config.set_dynamic_batching()
        return auto_complete_model_config

    def execute(self, requests):
        responses = []
        for request in requests:
            row = pb_utils.get_input_tensor_by_name(request, "ROW").as_numpy()
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("SCALED", row * FACTOR)]))
        return responses
