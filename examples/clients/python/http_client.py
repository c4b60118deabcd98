"""Health, metadata and inference over HTTP, with JSON and with binary tensors."""

from __future__ import annotations

import tritonclient.http as triton
from digit import HEADERS, MODEL, NAME, PIXELS, URL, digit, refusal


def infer(client: triton.InferenceServerClient, *, binary: bool) -> str:
    """Send the digit; `binary` says how the tensors travel, both ways."""
    tensor = triton.InferInput(NAME, list(PIXELS.shape), "FP32")
    tensor.set_data_from_numpy(PIXELS, binary_data=binary)
    output = client.get_model_metadata(MODEL, headers=HEADERS)["outputs"][0]["name"]
    wanted = [triton.InferRequestedOutput(output, binary_data=binary)]
    result = client.infer(MODEL, [tensor], outputs=wanted, headers=HEADERS)
    return digit(result.as_numpy(output))


def wrong_datatype(client: triton.InferenceServerClient) -> None:
    """Send the pixels as integers, which the model does not take."""
    tensor = triton.InferInput(NAME, list(PIXELS.shape), "INT32")
    tensor.set_data_from_numpy(PIXELS.astype("int32"))
    client.infer(MODEL, [tensor], headers=HEADERS)


def main() -> None:
    """Make every call and print what came of it."""
    scheme, _, address = URL.rpartition("://")
    with triton.InferenceServerClient(address, ssl=scheme == "https") as client:
        live, ready = client.is_server_live(headers=HEADERS), client.is_server_ready(headers=HEADERS)
        print(f"http health: live {str(live).lower()}, ready {str(ready).lower()}")
        for tensor in client.get_model_metadata(MODEL, headers=HEADERS)["inputs"]:
            print(f"http metadata: {MODEL} takes {tensor['name']} {tensor['datatype']} {tensor['shape']}")
        print(f"http json: {infer(client, binary=False)}")
        print(f"http binary: {infer(client, binary=True)}")
        print(f"http error: {refusal(lambda: wrong_datatype(client))}")


if __name__ == "__main__":
    main()
