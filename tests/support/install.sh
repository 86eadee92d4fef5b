#!/usr/bin/env bash
# Installs the independent clients that the tests drive: Debian's (apt), and Python's, Node's and
# Java's into the folder given. Quick when all is there already.
set -euo pipefail
CACHE=$1
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
mkdir -p "$CACHE"

fail() {
  echo "install: $*" >&2
  exit 1
}

# Debian packages: command, package. The mosquitto broker itself isn't needed, only its clients.
missing=()
want() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
want mosquitto_pub mosquitto-clients
want kcat kcat
want python3 python3
want node nodejs
want npm npm
want java default-jre-headless
want mvn maven
want openssl openssl
want cc build-essential
want readelf binutils
# Faults: links between namespaces, small disks.
want ip iproute2
want nft nftables
want mkfs.ext4 e2fsprogs
want mount mount
compgen -G '/usr/lib/llvm-*/lib/libclang.so*' >/dev/null || missing+=(libclang-dev)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
if ((${#missing[@]} > 0)); then
  echo "install: apt ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq || fail "apt-get update failed"
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || fail "apt-get install ${missing[*]} failed"
fi

# `stamp NAME FILE…`: true when NAME was installed from exactly these files.
stamp() {
  local name=$1 sum
  shift
  sum=$(cat "$@" | sha256sum | cut -d' ' -f1)
  [[ "$(cat "$CACHE/$name.stamp" 2>/dev/null)" == "$sum" ]] && return 0
  STAMP=$sum
  return 1
}

if ! stamp venv "$HERE/requirements.txt"; then
  echo "install: Python clients"
  rm -rf "$CACHE/venv"
  python3 -m venv "$CACHE/venv" || fail "python3 -m venv failed"
  "$CACHE/venv/bin/pip" install -q --disable-pip-version-check -r "$HERE/requirements.txt" || fail "pip install failed"
  echo "$STAMP" >"$CACHE/venv.stamp"
fi

if ! stamp node "$HERE/package.json"; then
  echo "install: Node clients"
  mkdir -p "$CACHE/node"
  cp "$HERE/package.json" "$CACHE/node/"
  (cd "$CACHE/node" && npm install --silent --no-audit --no-fund) || fail "npm install failed"
  echo "$STAMP" >"$CACHE/node.stamp"
fi

if ! stamp java "$HERE/pom.xml"; then
  echo "install: Java clients"
  rm -rf "$CACHE/java"
  mkdir -p "$CACHE/java"
  cp "$HERE/pom.xml" "$CACHE/java/"
  (cd "$CACHE/java" && mvn -q -B dependency:copy-dependencies -DoutputDirectory="$CACHE/java/lib") || fail "Maven couldn't fetch the Kafka tools"
  echo "$STAMP" >"$CACHE/java.stamp"
fi
echo "install: clients are in place"
