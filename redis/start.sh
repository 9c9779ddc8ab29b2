#!/bin/sh
# Start Redis or a Sentinel with the files beside this script: start.sh redis|sentinel [OPTION...]
#
#   start.sh redis                            a master (or what a Sentinel makes of it after a failover)
#   start.sh redis --replicaof redis-1 6379   a replica at its first start
#   start.sh sentinel                         a Sentinel of the master redis-1:6379, or $REDIS_MASTER ("host port")
#
# Passwords come from files named redis_password_<user> in $REDIS_SECRETS (default /run/secrets), else from variables
# REDIS_PASSWORD_<USER>. A user without one stays, and nobody can log in as it. $REDIS_RUN (default: the working folder,
# /data in the image) takes users.acl with the digests of the passwords, and what Redis and Sentinel rewrite. It must
# survive a restart: after a failover it says who the master is.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
run=${REDIS_RUN:-$PWD}
secrets=${REDIS_SECRETS:-/run/secrets}
umask 077

password() {  # password USER
    if [ -r "$secrets/redis_password_$1" ]; then
        cat "$secrets/redis_password_$1"
    else
        printenv "REDIS_PASSWORD_$(printf %s "$1" | tr '[:lower:]' '[:upper:]')" || true
    fi
}

digest() {  # digest USER: "#<sha256>" or nothing. A file's last line end is no part of the password.
    secret=$(password "$1")
    [ -z "$secret" ] || printf '#%s' "$(printf %s "$secret" | sha256sum | cut -d' ' -f1)"
}

users() {  # the users, each with its password behind its name
    while read -r word name state rights; do
        printf '%s %s %s %s %s\n' "$word" "$name" "$state" "$(digest "$name")" "$rights"
    done <"$here/users.acl" | tr -s ' '
}

what=${1:?say what to start: redis or sentinel}
shift
conf=$run/$what.conf

case $what in
    redis)
        users >"$run/users.acl"
        # Whose replica this is: at the first start the command line says so, later the file, which a Sentinel rewrites.
        master=$(sed -n 's/^replicaof //p' "$conf" 2>/dev/null || true)
        if [ "${1:-}" = --replicaof ]; then
            [ -e "$conf" ] || master="$2 $3"
            shift 3
        fi
        cp "$here/redis.conf" "$conf.new"
        printf '\n# Added by start.sh\ndir "%s"\naclfile "%s"\n' "$run" "$run/users.acl" >>"$conf.new"
        secret=$(password replica)
        [ -z "$secret" ] || printf 'masterauth "%s"\n' "$secret" >>"$conf.new"
        [ -z "$master" ] || printf 'replicaof %s\n' "$master" >>"$conf.new"
        mv "$conf.new" "$conf"
        exec redis-server "$conf" "$@"
        ;;
    sentinel)
        if [ ! -e "$conf" ]; then
            sed "s/^\(sentinel monitor relier-master\) redis-1 6379 /\1 ${REDIS_MASTER:-redis-1 6379} /" \
                "$here/sentinel.conf" >"$conf.new"
            printf 'dir "%s"\n' "$run" >>"$conf.new"
            secret=$(password sentinel)
            [ -z "$secret" ] || printf 'sentinel auth-pass relier-master "%s"\n' "$secret" >>"$conf.new"
            mv "$conf.new" "$conf"
        fi
        exec redis-server "$conf" --sentinel "$@"
        ;;
    *)
        echo "start.sh: say redis or sentinel, not '$what'." >&2
        exit 2
        ;;
esac
