#!/usr/bin/env bash
# Build the wheel that every machine installs, and its SHA-256: admin/wheels.sh [FOLDER], by default dist.
# The same commit and the same versions of Python, setuptools and wheel give the same bytes. Needs git; no internet.
set -euo pipefail
umask 022
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
mkdir -p "${1:-$repository/dist}"
out="$(cd "${1:-$repository/dist}" && pwd)"
python="${PYTHON:-$repository/.venv/bin/python}"

source="$(mktemp -d)"
trap 'rm -rf "$source"' EXIT
# What is committed, without leftovers of earlier builds; a zip cannot hold times before 1980.
git -C "$repository" -c tar.umask=022 archive HEAD | tar -x -C "$source"
SOURCE_DATE_EPOCH="$(git -C "$repository" log -1 --format=%ct)"
export SOURCE_DATE_EPOCH

rm -f "$out"/fedpeft-*.whl "$out/SHA256SUMS"
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation -w "$out" "$source"
cd "$out"
sha256sum fedpeft-*.whl | tee SHA256SUMS
