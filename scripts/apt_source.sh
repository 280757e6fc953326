# Sourced by scripts/setup.sh: finds the machine's own apt source for one suite and prints it for another.
# So no script has to name a mirror, and a machine's proxy or snapshot serves the new suite too.

# existing_files FILE...: sets `files` to those that exist (an unmatched pattern is no file).
existing_files() {
  local file
  files=()
  for file; do
    [[ ! -f $file ]] || files+=("$file")
  done
}

# copy_source_entry FROM TO FILE...: the deb822 form (*.sources). Prints nothing when FROM is not there.
copy_source_entry() {
  local files
  existing_files "${@:3}"
  ((${#files[@]})) || return 0
  awk -v from="$1" -v to="$2" 'BEGIN {RS = ""; FS = "\n"} {
    entry = ""; binary = 0; suite = 0
    for (i = 1; i <= NF; ++i) {
      line = $i
      if (line ~ /^#/) continue
      if (line ~ /^Enabled: *no/) next
      if (line ~ /^Types:.*deb( |$)/) binary = 1
      if (line ~ /^Suites:/) { suite = index(line " ", " " from " "); line = "Suites: " to }
      entry = entry line "\n"
    }
    if (binary && suite) { printf "%s", entry; exit }
  }' "${files[@]}"
}

# copy_source_line FROM TO FILE...: the one-line form (sources.list).
copy_source_line() {
  local files
  existing_files "${@:3}"
  ((${#files[@]})) || return 0
  awk -v from="$1" -v to="$2" '$1 == "deb" {
    for (i = 2; i < NF; ++i) if ($i == from) { $i = to; print; exit }
  }' "${files[@]}"
}
