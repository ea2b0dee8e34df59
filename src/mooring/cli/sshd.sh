# Runs in a workspace, as its own user: sshd for the one connection on standard input and output. $1 is the public key
# that may enter; who gets as far as starting this has been let in by Mooring's API already.
set -eu
umask 077
say() { echo "mooring: $*" >&2; exit 1; }
sshd=$(PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; command -v sshd) && command -v ssh-keygen >/dev/null ||
  say "the workspace has no OpenSSH server: install openssh-server in it"
case $(getent passwd "$(id -u)" 2>/dev/null || :) in
  */nologin | */false) say "the user $(id -un) has no shell that ssh could use: chsh -s /bin/bash $(id -un)" ;;
esac
dir=$HOME/.mooring/ssh
mkdir -p "$dir"
# Two first connections at once: one key wins, and both use it.
if [ ! -s "$dir/host_key" ]; then
  ssh-keygen -q -t ed25519 -N '' -C mooring -f "$dir/new.$$"
  ln "$dir/new.$$" "$dir/host_key" 2>/dev/null || :
  rm -f "$dir/new.$$" "$dir/new.$$.pub"
fi
grep -qxF "$1" "$dir/authorized_keys" 2>/dev/null || echo "$1" >>"$dir/authorized_keys"
# sshd starts with an environment of its own, and in the home of the password file, which need not be the workspace's.
unset TERM OLDPWD
export -p >"$dir/new.$$" && mv "$dir/new.$$" "$dir/environment"
cat >"$dir/new.$$" <<'ENTER'
#!/bin/sh
. "${0%/*}/environment"
cd "$HOME" || exit 1
case ${SHELL-} in '' | */nologin | */false) SHELL=$(command -v bash || echo /bin/sh) && export SHELL ;; esac
case ${SSH_ORIGINAL_COMMAND-} in
  '') exec "$SHELL" ;;
  mooring-sftp)
    for server in /usr/lib/openssh /usr/libexec/openssh /usr/lib/ssh /usr/libexec /usr/lib/misc; do
      [ ! -x $server/sftp-server ] || exec $server/sftp-server
    done
    echo "mooring: the workspace has no sftp-server" >&2
    exit 1
    ;;
  *) exec "$SHELL" -c "$SSH_ORIGINAL_COMMAND" ;;
esac
ENTER
chmod 700 "$dir/new.$$" && mv "$dir/new.$$" "$dir/enter"
cat >"$dir/new.$$" <<CONFIG
HostKey "$dir/host_key"
AuthorizedKeysFile "$dir/authorized_keys"
ForceCommand exec "$dir/enter"
Subsystem sftp mooring-sftp
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AcceptEnv none
AllowTcpForwarding yes
AllowStreamLocalForwarding yes
AllowAgentForwarding yes
PrintMotd no
PrintLastLog no
PidFile none
LogLevel ERROR
CONFIG
mv "$dir/new.$$" "$dir/sshd_config"
# As root sshd wants the folder that its package makes at boot.
[ "$(id -u)" != 0 ] || mkdir -p -m 755 /run/sshd
exec "$sshd" -i -e -f "$dir/sshd_config"
