#!/usr/bin/env bash
# Publish a price and notify a user with curl: examples/http_api.sh URL TOKEN USER
# The token needs the scopes market:publish, market:read and admin ("token of ops" of the demo).
set -euo pipefail
url=${1:?the address of the server, such as http://127.0.0.1:8000}/api/v1
token=${2:?a token} user=${3:-ann}

call() { # METHOD PATH [JSON]
  curl --silent --show-error --fail-with-body --request "$1" "$url$2" \
    --header "Authorization: Bearer $token" ${3:+--json "$3"}
  echo
}

# The key makes the call safe to repeat: the message keeps its position.
curl --silent --show-error --fail-with-body "$url/publish" \
  --header "Authorization: Bearer $token" --header "Idempotency-Key: tick-1" --json '{
    "messages": [{
      "topic": "PRICE:BTCUSDT",
      "data": {"bid": "64000.1", "ask": "64000.2", "last": "64000.1", "volume": "12.5"}
    }]}'
echo
call GET /topics/PRICE:BTCUSDT
call POST "/users/$user/notify" '{"event": "margin.call", "data": {"missing": "1200.00"}}'
call GET "/users/$user"
