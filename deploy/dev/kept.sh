# What tools.sh and go.sh fetch and build, for all checkouts of this user: they read this file, nobody runs it. It lies in
# ${XDG_CACHE_HOME:-~/.cache}/backout. Whoever removes that folder has it fetched again, nothing more.
# shellcheck shell=bash
store=${XDG_CACHE_HOME:-~/.cache}/backout

# keep NAME KEY MAKE... sets $kept to the folder that holds NAME as KEY describes it. If there is none yet, MAKE is called
# with an empty folder as its last argument, and what it put there is kept once it has returned.
keep() {
  kept=$store/$1-$(cksum <<<"$2" | cut -d' ' -f1)
  shift 2
  [ ! -d "$kept" ] || return 0
  mkdir -p "$store"
  exec 8>"$kept.lock"
  flock 8
  if [ ! -d "$kept" ]; then
    rm -rf "$kept.next"
    mkdir "$kept.next"
    "$@" "$kept.next"
    mv "$kept.next" "$kept"
  fi
  exec 8>&-
}
