# What start and stop share: the folder of a SLURM, its lock, and its daemons. To be sourced.

readonly DAEMONS=(munged slurmctld n1 n2)
readonly LOCK=artifactgen-slurm.lock

say() { printf '%s\n' "$*" >&2; }
fail() { say "$(basename "$0"): $*"; exit 1; }

# Sets DIR. The default lies in /tmp: sockets need a short path on a local disk, and every user who
# submits jobs must reach the folder, which rules out a home and most checkouts.
folder() {
  local default=/tmp/artifactgen-slurm-$(id -u)
  DIR=$(realpath --canonicalize-missing -- "${1:-${ARTIFACTGEN_SLURM:-$default}}")
  # 107 bytes is the longest path of a socket; slurmd adds node, job and step.
  [[ $DIR =~ ^/[A-Za-z0-9/._-]+$ && ${#DIR} -le 75 ]] ||
    fail "the folder $DIR must have at most 75 characters, of A-Z, a-z, 0-9 and /._- only."
}

# Whether DIR is a folder that start made: nothing else is ever removed.
is_ours() { [[ -O $DIR && -f $DIR/$LOCK ]]; }

# One start or stop at a time; another one may have removed the folder that we waited for.
lock() {
  until [[ $DIR/$LOCK -ef /proc/$$/fd/9 ]]; do
    mkdir -p "$DIR"
    exec 9>>"$DIR/$LOCK"
    flock --wait 120 9 || fail "another start or stop has been at work in $DIR for 2 minutes."
  done
}

# When a process was started, in clock ticks since boot: with its id it names one process for ever.
started_at() {
  local stat
  { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
  # The name, in brackets, may hold spaces; field 22 is the 20th after it.
  read -r -a stat <<<"${stat##*) }"
  [[ ${stat[0]} != Z ]] && printf '%s\n' "${stat[19]}"
}

# Prints the id of a daemon of DIR that lives.
pid_of() {
  local pid ticks
  { read -r pid ticks <"$DIR/$1.pid"; } 2>/dev/null || return 1
  [[ $(started_at "$pid") == "$ticks" ]] && printf '%s\n' "$pid"
}

# Starts a daemon, which stays the process that its file of the id names.
launch() {
  local name=$1
  shift
  setsid bash -c '
    source "$1"
    printf "%s %s\n" $$ "$(started_at $$)" >"$2.pid" || exit
    exec "${@:3}"
  ' launch "${BASH_SOURCE[0]}" "$DIR/$name" "$@" </dev/null >>"$DIR/log/$name.out" 2>&1 9>&- &
  within 10 has_noted_its_id "$name" $!
}
has_noted_its_id() { [[ $(cat "$DIR/$1.pid" 2>/dev/null) == "$2 "* ]]; }

# Waits at most $1 seconds for the command after it to succeed.
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS <= deadline)) || return 1
    sleep 0.05
  done
}

no_jobs() { [[ -z $(squeue --noheader 2>/dev/null) ]]; }
has_ended() { ! pid_of "$1" >/dev/null; }

end() {
  local pid
  pid=$(pid_of "$1") || return 0
  kill "$pid" 2>/dev/null || return 0
  within 10 has_ended "$1" || kill -KILL "$pid" 2>/dev/null || return 0
  within 5 has_ended "$1" || say "$1, process $pid, does not end."
}

# Ids of slurmd and of what it has made to guard the steps of jobs: all write the log of the node.
step_guards() {
  local fd
  for fd in /proc/[0-9]*/fd/*; do
    if [[ $(readlink "$fd") == "$DIR/log/"${1:-n?}.log ]]; then cut -d / -f 3 <<<"$fd"; fi
  done 2>/dev/null | sort -u
}

# Ends the jobs, then the daemons, and removes the folder.
remove_slurm() {
  export SLURM_CONF=$DIR/slurm.conf
  if pid_of slurmctld >/dev/null && ! no_jobs; then
    squeue --noheader --format=%A | sort -u | timeout 10 xargs scancel || true
    within "$(kill_wait_s)" no_jobs || say "Some jobs did not end in time."
  fi
  local name pid
  for name in n2 n1 slurmctld; do end "$name"; done
  for pid in $(step_guards); do kill -KILL "$pid" 2>/dev/null || true; done
  end munged
  rm -rf "$DIR"
}

# How long jobs may take to end: SLURM kills them after KillWait, and notices some seconds later.
kill_wait_s() {
  local s
  s=$(sed -n 's/^KillWait=//p' "$DIR/slurm.conf")
  printf '%s\n' $((s + 15))
}
