# The module proxies that the benchmark compares ours with: Athens, goproxy and goproxy.io. Sourced by install, after go.sh.
# shellcheck shell=bash

# NAME MODULE VERSION PACKAGE; the versions of all they are made of follow from the one version and are verified by
# the go command against the public checksum database.
MODULE_PROXIES="athens github.com/gomods/athens v0.18.0 /cmd/proxy
goproxy github.com/goproxy/goproxy v0.26.1 /cmd/goproxy
goproxyio github.com/goproxyio/goproxy/v2 v2.0.7"

module_proxies() {
  local name folder peer module version package
  name=module-proxies-$(printf '%s' "$MODULE_PROXIES" | hash_of -)
  folder=$cache/$name
  if [ ! -e "$folder/.complete" ]; then
    say "Athens, goproxy and goproxy.io to compare with (about 4 minutes, once)"
    rm -rf "$folder" && mkdir -p "$folder"
    while read -r peer module version package; do
      mkdir "$folder/$peer.module"
      # As a requirement of a module of our own: `go install` asks for the list of versions too, which not every proxy has.
      printf 'module bench.example/peer\n\ngo 1.26\n\nrequire %s %s\n' "$module" "$version" >"$folder/$peer.module/go.mod"
      (
        cd "$folder/$peer.module"
        GOPATH="$cache/go-path" GOCACHE="$cache/go-build" GOENV=off GOTOOLCHAIN=local GOFLAGS="-mod=mod -modcacherw -trimpath" \
          "$cache/go/bin/go" build -o "$folder/$peer" "$module$package" 2>&1
      ) >>"$cache/module-proxies.log" || { say "$peer did not build; the end of $cache/module-proxies.log:"; tail -n 20 "$cache/module-proxies.log" >&2; exit 1; }
    done <<<"$MODULE_PROXIES"
    touch "$folder/.complete"
  fi
  ln -sfn "$name" "$cache/module-proxies"
}
