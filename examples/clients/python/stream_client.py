"""Three requests on one gRPC stream: the second is refused, and the third is answered all the same."""

from __future__ import annotations

import queue

import tritonclient.grpc as triton
from digit import GRPC, HEADERS, MODEL, NAME, PIXELS, digit
from tritonclient.utils import InferenceServerException

Reply = tuple[triton.InferResult | None, InferenceServerException | None]


def send(client: triton.InferenceServerClient, request_id: str, datatype: str) -> None:
    """Put one request on the stream; its reply comes later, in the order of the requests."""
    tensor = triton.InferInput(NAME, list(PIXELS.shape), datatype)
    tensor.set_data_from_numpy(PIXELS.astype("int32" if datatype == "INT32" else "float32"))
    client.async_stream_infer(MODEL, [tensor], request_id=request_id)


def main() -> None:
    """Send three, then print three."""
    replies: queue.Queue[Reply] = queue.Queue()
    with triton.InferenceServerClient(GRPC) as client:
        client.start_stream(callback=lambda result, error: replies.put((result, error)), headers=HEADERS)
        for request_id, datatype in (("1", "FP32"), ("2", "INT32"), ("3", "FP32")):
            send(client, request_id, datatype)
        for _ in range(3):
            result, error = replies.get(timeout=30)
            if result is None:
                print(f"grpc stream: refused: {error.message() if error else 'no reply'}")
            else:
                response = result.get_response()
                print(f"grpc stream: request {response.id}: {digit(result.as_numpy(response.outputs[0].name))}")
        client.stop_stream()


if __name__ == "__main__":
    main()
