#!/bin/sh
# Restore a backup into a scratch server, and see whether every task in it is accounted for: restore-drill.sh BACKUP [FOLDER]
#
#   restore-drill.sh /backups/relier-20260101T030000Z.rdb          a drill: nothing stays
#   restore-drill.sh /backups/relier-20260101T030000Z.rdb /data    the real thing: FOLDER, which must be empty, is what
#                                                                  redis.conf then starts from
#
# The scratch server listens on a socket that only this user can reach; no worker finds it, nothing runs. It needs
# redis-server, redis-cli and `rl` ($RL names another command), and RELIER_NAMESPACE when it is not the default. With RabbitMQ
# as broker, set RELIER_BROKER_URL to an empty virtual host: its messages are no part of the backup.
# Exits 1 when the file is damaged, when something is not loaded, or when the account does not add up.
set -eu

backup=${1:?say which backup: restore-drill.sh BACKUP [FOLDER]}
rl=${RL:-rl}
umask 077

scratch=$(mktemp -d)
data=${2:-$scratch/data}
pid=

finish() {
    [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
    [ -z "$pid" ] || wait "$pid" 2>/dev/null || true
    rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

fail() {
    echo "restore-drill.sh: $1" >&2
    exit 1
}

cli() {
    redis-cli -s "$scratch/s" "$@"
}

start() {  # start OPTION...: on the data folder, on nothing but the socket
    redis-server --port 0 --unixsocket "$scratch/s" --unixsocketperm 700 --dir "$data" --save '' \
        --maxmemory-policy noeviction --logfile "$scratch/log" "$@" &
    pid=$!
    until [ "$(cli ping 2>/dev/null)" = PONG ]; do
        kill -0 "$pid" 2>/dev/null || fail "the server did not start: $(tail -n 3 "$scratch/log")"
        sleep 0.1
    done
}

[ -r "$backup" ] || fail "cannot read $backup"
mkdir -p "$data"
[ -z "$(ls -A "$data")" ] || fail "$data is not empty"
if [ -r "$backup.sha256" ]; then
    wanted=$(cut -d' ' -f1 "$backup.sha256")
    [ "$(sha256sum "$backup" | cut -d' ' -f1)" = "$wanted" ] || fail "$backup is not what was written: its digest differs"
fi
told=$(redis-check-rdb "$backup" 2>&1) || fail "$backup cannot be read: $(printf %s "$told" | tail -n 2)"

# Redis does not load a snapshot when it keeps an AOF: load it without one, then have it written.
cp "$backup" "$data/dump.rdb"
start --appendonly no
keys=$(cli dbsize)
cli config set appendonly yes >/dev/null
until cli info persistence | tr -d '\r' | grep -qx aof_rewrite_in_progress:0 &&
    cli info persistence | tr -d '\r' | grep -qx aof_rewrite_scheduled:0; do
    sleep 0.1
done
cli info persistence | tr -d '\r' | grep -qx aof_last_bgrewrite_status:ok || fail "the AOF could not be written"
cli shutdown nosave >/dev/null 2>&1 || true
wait "$pid" || true
rm -f "$data/dump.rdb"

start --appendonly yes
[ "$(cli dbsize)" = "$keys" ] || fail "$keys keys were in the backup, $(cli dbsize) are in the AOF made of it"
echo "restored $keys keys of $backup"
RELIER_REDIS_URL="unix://$scratch/s" $rl audit || fail "the account of the backup does not add up (see above)"
cli shutdown >/dev/null 2>&1 || true
wait "$pid" || true
pid=
[ -z "${2:-}" ] || echo "start Redis with its data in $data"
