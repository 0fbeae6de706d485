# Read by tools.sh and go.sh: where the programs that they fetch and build are kept for all checkouts of this user. The
# folder can be removed at any time; it is filled again when it is needed.
# shellcheck shell=bash
store=${XDG_CACHE_HOME:-~/.cache}/backout/$(uname -m)

# keep NAME KEY MAKE... sets $kept to the folder that holds NAME as KEY describes it. If there is none yet, MAKE is called
# with an empty folder as its last argument, and what it put there is kept once it has returned. What no checkout asked for
# in 60 days is removed then.
keep() {
  kept=$store/$1-$(cksum <<<"$2" | cut -d' ' -f1)
  shift 2
  if [ -d "$kept" ]; then
    touch "$kept"
    return
  fi
  mkdir -p "$store"
  exec 8>"$kept.lock"
  flock 8
  if [ ! -d "$kept" ]; then
    rm -rf "$kept.next"
    mkdir "$kept.next"
    "$@" "$kept.next"
    mv "$kept.next" "$kept"
    find "$store" -mindepth 1 -maxdepth 1 -mtime +60 -exec rm -rf {} +
  fi
  exec 8>&-
}
