"""Health, metadata and inference over gRPC, one request and one response at a time."""

from __future__ import annotations

import tritonclient.grpc as triton
from digit import GRPC, HEADERS, MODEL, NAME, PIXELS, digit, refusal


def infer(client: triton.InferenceServerClient) -> str:
    """Send the digit."""
    tensor = triton.InferInput(NAME, list(PIXELS.shape), "FP32")
    tensor.set_data_from_numpy(PIXELS)
    result = client.infer(MODEL, [tensor], headers=HEADERS)
    return digit(result.as_numpy(result.get_response().outputs[0].name))


def wrong_datatype(client: triton.InferenceServerClient) -> None:
    """Send the pixels as integers, which the model does not take."""
    tensor = triton.InferInput(NAME, list(PIXELS.shape), "INT32")
    tensor.set_data_from_numpy(PIXELS.astype("int32"))
    client.infer(MODEL, [tensor], headers=HEADERS)


def main() -> None:
    """Make every call and print what came of it."""
    with triton.InferenceServerClient(GRPC) as client:
        live, ready = client.is_server_live(headers=HEADERS), client.is_server_ready(headers=HEADERS)
        print(f"grpc health: live {str(live).lower()}, ready {str(ready).lower()}")
        for tensor in client.get_model_metadata(MODEL, headers=HEADERS).inputs:
            print(f"grpc metadata: {MODEL} takes {tensor.name} {tensor.datatype} {list(tensor.shape)}")
        print(f"grpc infer: {infer(client)}")
        status, _, message = refusal(lambda: wrong_datatype(client)).removeprefix("StatusCode.").partition(" ")
        print(f"grpc error: {status} {message}")


if __name__ == "__main__":
    main()
