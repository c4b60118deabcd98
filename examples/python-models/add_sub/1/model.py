"""OUTPUT0 is the sum of the two inputs, OUTPUT1 their difference."""

import json

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.dtypes = {}
        for name in ("OUTPUT0", "OUTPUT1"):
            output = pb_utils.get_output_config_by_name(config, name)
            self.dtypes[name] = pb_utils.triton_string_to_numpy(output["data_type"])

    def execute(self, requests):
        responses = []
        for request in requests:
            first = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
            second = pb_utils.get_input_tensor_by_name(request, "INPUT1").as_numpy()
            results = {"OUTPUT0": first + second, "OUTPUT1": first - second}
            tensors = [pb_utils.Tensor(name, array.astype(self.dtypes[name])) for name, array in results.items()]
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return responses
