#!/bin/sh
# Make the passwords that compose.yaml needs, in the folder `secrets` beside it: make-secrets.sh [FOLDER]
#
# What is there already stays. The folder is yours alone; its files can be read by the containers that are given them.
set -eu

folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
chmod 700 "$folder"

random() {
    head -c 24 /dev/urandom | base64 | tr '+/' '-_'
}

put() {  # put NAME: from stdin, unless it is there
    if [ -e "$folder/$1" ]; then
        cat >/dev/null
    else
        cat >"$folder/$1.new"
        chmod 644 "$folder/$1.new"
        mv "$folder/$1.new" "$folder/$1"
    fi
}

for user in admin producer worker resurrector viewer operator replica sentinel backup; do
    random | tr -d '\n' | put "redis_password_$user"
done
for role in producer worker resurrector viewer operator; do
    printf 'RELIER_REDIS_PASSWORD=%s\n' "$(cat "$folder/redis_password_$role")" | put "$role.env"
done
printf 'GF_SECURITY_ADMIN_PASSWORD=%s\n' "$(random)" | put grafana.env
printf 'RABBITMQ_DEFAULT_USER=relier\nRABBITMQ_DEFAULT_PASS=%s\n' "$(random)" | put rabbitmq.env
echo "passwords are in $folder"
