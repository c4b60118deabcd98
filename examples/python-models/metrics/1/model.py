"""Counts the words of texts, and shows in the server's metrics what it has seen."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        # The families are kept: in Triton a metric ends with its family.
        self.words_family = pb_utils.MetricFamily(
            name="words_total", description="Words that were counted", kind=pb_utils.MetricFamily.COUNTER
        )
        self.words = {kind: self.words_family.Metric(labels={"kind": kind}) for kind in ("short", "long")}
        self.last_family = pb_utils.MetricFamily(
            name="words_last", description="Words of the latest text", kind=pb_utils.MetricFamily.GAUGE
        )
        self.last = self.last_family.Metric(labels={"of": "text"})
        self.per_text_family = pb_utils.MetricFamily(
            name="words_per_text", description="Words of each text", kind=pb_utils.MetricFamily.HISTOGRAM
        )
        self.per_text = self.per_text_family.Metric(labels={"of": "text"}, buckets=[2, 5, 10])

    def execute(self, requests):
        return [self.count(request) for request in requests]

    def count(self, request):
        texts = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
        counts = np.array([len(text.split()) for text in texts], dtype=np.int32)
        for count in counts.tolist():
            self.words["long" if count > 3 else "short"].increment(count)
            self.last.set(count)
            self.per_text.observe(count)
        return pb_utils.InferenceResponse([pb_utils.Tensor("WORDS", counts)])
