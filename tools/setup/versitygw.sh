# An S3 server for the tests, built from its Go module (which the go command verifies). Sourced by install, after go.sh.
# shellcheck shell=bash

VERSITYGW_VERSION=v1.8.0

s3_server() {
  local name=versitygw-$VERSITYGW_VERSION
  local folder=$cache/$name
  if [ ! -x "$folder/versitygw" ]; then
    say "an S3 server for the tests (this takes some minutes)"
    rm -rf "$folder.new" "$folder.build"
    GOBIN="$folder.new" GOPATH="$folder.build" GOCACHE="$folder.build/cache" GOENV=off GOTOOLCHAIN=local GOFLAGS="-modcacherw -trimpath" \
      "$cache/go/bin/go" install "github.com/versity/versitygw/cmd/versitygw@$VERSITYGW_VERSION"
    rm -rf "$folder.build" "$folder" && mv "$folder.new" "$folder"
  fi
  ln -sfn "$name" "$cache/versitygw"
}
