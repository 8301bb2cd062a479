#!/bin/sh
# Inspect an image with curl.
#
#   sh examples/inspect.sh part.png bottle
#
# FLOWGAUGE_URL is the server's address, FLOWGAUGE_KEY the key. Prints the decision. The exit code is 0 for PASS, 10
# for REVIEW and 20 for REJECT. If nothing was inspected it is curl's: 22 for an error of the server.
set -eu
image=$1
category=$2
url=${FLOWGAUGE_URL:-http://127.0.0.1:8000}
url=${url%/}
# One key for all attempts: a request that curl repeats is inspected once. A later run inspects again.
idempotency_key=$(date +%s%N)-$$
# Quoted, because curl gives commas and semicolons in a name a meaning.
quoted=$(printf '%s' "$image" | sed 's/[\\"]/\\&/g')
# The key comes by standard input: other users of the machine can read a command line.
answer=$(printf 'X-API-Key: %s\n' "${FLOWGAUGE_KEY:-}" |
  curl --silent --show-error --fail-with-body --max-time 30 --retry 3 --retry-connrefused \
  --header @- \
  --header "Idempotency-Key: $idempotency_key" \
  --header 'Accept: application/json' \
  --form "file=@\"$quoted\"" \
  "$url/v1/models/$category/predict") || { code=$?; echo "$answer" >&2; exit "$code"; }
decision=$(printf '%s' "$answer" | sed -n 's/.*"decision":"\([A-Z]*\)".*/\1/p')
echo "$decision"
case $decision in
  PASS) exit 0 ;;
  REVIEW) exit 10 ;;
  REJECT) exit 20 ;;
  *) exit 1 ;;
esac
