#!/usr/bin/env bash
# Sends the sample digit to the service and prints its answer.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
state=$here/../../.naiad

if [[ -n ${URL:-} ]]; then
  key=${KEY:+X-API-Key: $KEY}
else
  # The port stands in the addresses that `naiad up` wrote; sed is enough to read it.
  URL=$(sed -n 's/.*"http_url": *"\([^"]*\)".*/\1/p' "$state/run/addresses.json")/v2/models/mnist-cnn
  key=$(<"$state/keys/mnist-cnn.header")
fi

# The key comes in on a descriptor, so that no list of processes shows it.
curl --fail-with-body --silent --show-error -X POST "$URL/infer" \
  -H "Content-Type: application/json" -H @<(printf '%s\n' "$key") -d "@$here/request.json"
echo
