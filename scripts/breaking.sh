#!/bin/sh
# Compares the contracts with those of the branch main: what a client or a stored event relies
# on may not go. Skipped, and said so, where there is nothing to compare with.
set -eu

cd "$(dirname "$0")/.."
skip() { printf 'buf: breaking changes: skipped, %s\n' "$*"; exit 0; }

command -v git >/dev/null 2>&1 || skip "git is not installed"
git rev-parse --git-dir >/dev/null 2>&1 || skip "this is no git repository"
git rev-parse --verify --quiet 'refs/heads/main^{commit}' >/dev/null || skip "there is no branch main"
git cat-file -e main:buf.yaml 2>/dev/null && git cat-file -e main:protos 2>/dev/null ||
    skip "main has no protos yet"

echo 'buf: breaking changes against main'
images=$(mktemp -d)
trap 'rm -rf "$images"' EXIT
# As images, since one of the two may have vendored protos that the other has not. The common folder,
# since in a linked work tree .git is a file.
.venv/bin/buf build --path protos -o "$images/now.binpb"
.venv/bin/buf build "$(git rev-parse --git-common-dir)#branch=main" --path protos -o "$images/main.binpb"
.venv/bin/buf breaking "$images/now.binpb" --against "$images/main.binpb" --exclude-imports
