# What the benchmark compares Mooring's gateway with: HAProxy, Caddy and configurable-http-proxy. Sourced by install.
# shellcheck shell=bash

CADDY=github.com/caddyserver/caddy/v2/cmd/caddy@v2.11.9

peers() {
  local source=tools/setup/peers name folder
  name=peers-$(printf '%s' "$CADDY" | cat - $source/package-lock.json | hash_of -)
  folder=$cache/$name
  if [ ! -e "$folder/.complete" ]; then
    say "Caddy and configurable-http-proxy to compare with (about 3 minutes, once)"
    rm -rf "$folder" && mkdir -p "$folder"
    cp $source/package*.json "$folder/"
    {
      GOBIN="$folder" GOPATH="$cache/go-path" GOCACHE="$cache/go-build" GOTOOLCHAIN=local GOFLAGS=-modcacherw "$cache/go/bin/go" install "$CADDY"
      (cd "$folder" && npm_config_cache="$cache/npm" npm ci --silent --no-audit --no-fund)
    } >"$cache/peers.log" 2>&1 || { say "the peers did not install; the end of $cache/peers.log:"; tail -n 20 "$cache/peers.log" >&2; exit 1; }
    touch "$folder/.complete"
  fi
  ln -sfn "$name" "$cache/peers"
}
