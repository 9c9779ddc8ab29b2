#!/bin/sh
# Copy everything that Redis holds at one moment into a file, and look whether it can be read: backup.sh FOLDER [redis-cli OPTION...]
#
#   REDISCLI_AUTH=secret backup.sh /backups -h redis-2 --user backup
#
# Redis forks and streams the copy as to a replica, so this works from any host, stops nobody, and needs no access to the
# server's disk. Ask a replica where there is one. The user `backup` of users.acl may do just this.
# FOLDER gets relier-<UTC time>.rdb and its digest beside it, readable for this user only; of these the newest KEEP (default
# 14) stay. Exits 1 and leaves no half file when anything fails. restore-drill.sh proves that a backup is of use.
set -eu

folder=${1:?say where the backup goes: backup.sh FOLDER [redis-cli OPTION...]}
shift
keep=${KEEP:-14}
umask 077

fail() {
    echo "backup.sh: $1" >&2
    exit 1
}

mkdir -p "$folder"
new=$(mktemp "$folder/.new-XXXXXX")
trap 'rm -f "$new"' EXIT
trap 'exit 1' HUP INT TERM

answer=$(redis-cli "$@" ping 2>&1) || fail "Redis does not answer: $answer"
[ "$answer" = PONG ] || fail "Redis refuses: $answer"
told=$(redis-cli "$@" --rdb "$new" 2>&1) || fail "the copy was cut off: $told"
told=$(redis-check-rdb "$new" 2>&1) || fail "the copy cannot be read: $told"

name=relier-$(date -u +%Y%m%dT%H%M%SZ).rdb
mv "$new" "$folder/$name"
(cd "$folder" && sha256sum "$name" >"$name.sha256")
echo "$folder/$name"

# Names sort by time.
find "$folder" -name 'relier-*.rdb' | sort -r | tail -n "+$((keep + 1))" | while read -r old; do
    rm -f "$old" "$old.sha256"
done
