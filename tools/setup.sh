#!/bin/sh
# Makes a machine ready: the pinned Bun, the packages, and what only Debian has. Does nothing that is done already.
#   setup.sh        what running Warren needs
#   setup.sh dev    and what its tests and benches need
set -eu
purpose=${1:-run}
cd "$(dirname "$0")/.."
pinned=$(sed -n 's/.*"bun": "\([0-9.]*\)".*/\1/p' tools/package.json)
bun=tools/node_modules/.bin/bun

have_bun() { [ -x "$bun" ] && [ "$("$bun" --version 2>/dev/null)" = "$pinned" ]; }

if ! have_bun; then
  echo "setup: installing Bun $pinned"
  if command -v npm >/dev/null 2>&1; then
    (cd tools && npm ci --no-audit --no-fund --loglevel=error)
  elif command -v bun >/dev/null 2>&1; then
    (cd tools && bun install --no-save --silent)
  else
    echo "setup: neither npm nor bun is here: install Node 20 or newer, or Bun, and try again" >&2
    exit 1
  fi
  # Where install scripts do not run, the package holds a placeholder; the binary is in a package of its own beside it.
  for binary in tools/node_modules/@oven/bun-*/bin/bun; do
    have_bun && break
    "$binary" --version >/dev/null 2>&1 || continue
    ln -sf "$PWD/$binary" tools/node_modules/.bin/bun
    ln -sf "$PWD/$binary" tools/node_modules/.bin/bunx
  done
  have_bun || { echo "setup: Bun $pinned could not be installed into tools/" >&2; exit 1; }
fi

echo "setup: installing packages"
"$bun" install --frozen-lockfile --silent
for manifest in examples/*/package.json; do
  dir=$(dirname "$manifest")
  [ ! -f "$dir/bun.lock" ] || "$bun" install --frozen-lockfile --silent --cwd "$dir"
done

missing=
commands() {
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
  done
}
# Isolation level namespace.
commands bwrap:bubblewrap
if [ "$purpose" = dev ]; then
  # Tests run a real NATS server, a real PostgreSQL and a stock HTTP client, an agent that sees its host by ps and lsof alone, and
  # the shipped compose file on containers, completion in each shell. Without them they are skipped by name.
  commands nats-server:nats-server curl:curl lsof:lsof ps:procps ip:iproute2 dockerd:docker.io docker-compose:docker-compose gcc:gcc \
    zsh:zsh fish:fish
  # Debian keeps its server off PATH, by version.
  command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
  # Wall clocks that a test can set.
  ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || missing="$missing libfaketime"
  # And the billing consumer in C.
  for pair in /usr/include/nats/nats.h:libnats-dev /usr/include/sqlite3.h:libsqlite3-dev \
    /usr/include/stdio.h:libc6-dev; do
    [ -e "${pair%%:*}" ] || missing="$missing ${pair##*:}"
  done
fi
if [ -n "$missing" ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "setup: installing$missing"
    # Packages of daemons start them: the tests start their own, and nobody asked for any other.
    policy=/usr/sbin/policy-rc.d
    cluster=
    made=
    trap 'rm -f $made $cluster' EXIT
    if [ ! -e "$policy" ]; then
      made=$policy
      printf '#!/bin/sh\nexit 101\n' >"$policy"
      chmod 755 "$policy"
    fi
    # Nor a database of PostgreSQL's package, which a reboot would start.
    case "$missing" in
      *postgresql*)
        cluster=/etc/postgresql-common/createcluster.conf
        mkdir -p "${cluster%/*}"
        [ ! -e "$cluster" ] || cluster=
        [ -z "$cluster" ] || echo "create_main_cluster = false" >"$cluster"
        ;;
    esac
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
  else
    echo "setup: not here, and only root can install them:$missing (apt-get install$missing)" >&2
  fi
fi
