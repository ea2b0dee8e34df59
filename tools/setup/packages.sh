# Debian packages. Sourced by install.
# shellcheck shell=bash

product_packages="ca-certificates git make python3 python3-venv nginx-core libnginx-mod-http-lua lua-cjson openssh-server openssh-client"
# What code-server's native modules are compiled with; only needed while the editor is not in the cache.
editor_packages="g++ libkrb5-dev pkg-config python3"
test_packages="chromium redis-server postgresql docker.io debootstrap iptables nftables iproute2 curl rsync procps libnss3-tools lua-check openssl wrk e2fsprogs"
lint_packages="python3 python3-venv lua-check"

missing_packages() {
  local package
  for package; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || printf '%s ' "$package"
  done
}

packages() {
  local missing
  missing=$(missing_packages "$@")
  [ -n "$missing" ] || return 0
  if [ "$(id -u)" = 0 ]; then
    install_packages $missing
  elif sudo -n true 2>/dev/null; then
    say "with sudo: apt-get install $missing"
    sudo bash -c "$(declare -f say install_packages services_off); install_packages $missing"
  else
    say "these Debian packages are missing, and this user may not install them. Ask for:"
    say "  sudo apt-get install $missing"
    exit 3
  fi
}

install_packages() {
  say "Debian packages: $*"
  # Debian starts a server as soon as it is installed: nginx on port 80 and sshd on 22 would open this machine to its network.
  local guard=/usr/sbin/policy-rc.d made=
  [ -e $guard ] || { printf '#!/bin/sh\nexit 101\n' >$guard; chmod 755 $guard; made=yes; }
  local status=0
  export DEBIAN_FRONTEND=noninteractive
  apt-get -q update >/dev/null || status=$?
  [ $status != 0 ] || apt-get -q -y --no-install-recommends install "$@" >/dev/null || status=$?
  [ -z "$made" ] || rm -f $guard
  services_off "$@"
  [ $status = 0 ] || { say "apt-get failed ($status) for: $*"; exit $status; }
}

# Newly installed servers stay off at the next boot too: Mooring starts its own.
services_off() {
  [ -d /run/systemd/system ] || return 0
  local package
  for package; do
    case $package in
      nginx-core) systemctl disable -q nginx ;;
      openssh-server) systemctl disable -q ssh ;;
      redis-server | postgresql) systemctl disable -q "$package" ;;
      docker.io) systemctl disable -q docker docker.socket containerd ;;
    esac || true
  done
}
