#!/bin/sh
# Inspect a picture with curl, from a shell or a machine's script.
#
#   sh examples/inspect.sh part.png bottle
#
# FLOWGAUGE_URL and FLOWGAUGE_KEY say where the server is and who asks. Prints the decision; exits with 0 for PASS,
# 10 for REVIEW, 20 for REJECT, and with curl's own code, 22 for an error of the server, if nothing was inspected.
set -eu
picture=$1
category=$2
url=${FLOWGAUGE_URL:-http://127.0.0.1:8000}
url=${url%/}
# What curl sends again, because an answer was lost, is not inspected twice; the same picture tomorrow is.
once=$(date +%s%N)-$$
# Quoted, as curl takes a comma or semicolon in a name for the beginning of something else.
quoted=$(printf '%s' "$picture" | sed 's/[\\"]/\\&/g')
# The key goes in by standard input: everybody on the machine can read a command line.
answer=$(printf 'X-API-Key: %s\n' "${FLOWGAUGE_KEY:-}" |
  curl --silent --show-error --fail-with-body --max-time 30 --retry 3 --retry-connrefused \
  --header @- \
  --header "Idempotency-Key: $once" \
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
