#!/bin/sh
# Makes all that a plane needs, ready to start, in a new folder.
#
#     prepare.sh FOLDER NAME...
#
# NAME is what stands in the plane's URL, a host name or an address; give all that are used.
set -eu
umask 077

fail() {
    echo "prepare.sh: $1" >&2
    exit "${2:-2}"
}

[ $# -ge 2 ] || fail "usage: prepare.sh FOLDER NAME..., such as: prepare.sh plane plane.example 192.0.2.7"
command -v openssl >/dev/null || fail "openssl is not installed"
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
shift
[ ! -e "$folder" ] || fail "$folder is there already; nothing is overwritten"

# Gone again if anything fails.
mkdir -p "$folder"
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
folder=$(cd "$folder" && pwd)
# It is written into redis.conf, where blanks and quotes mean something.
case $folder in
    *[!A-Za-z0-9._/+-]*) fail "$folder: take a path of letters, digits and . _ + - only" ;;
esac

sh "$here/certificates.sh" "$folder" "$@"

mkdir "$folder/data"
for file in manager.password worker.password secret; do
    openssl rand -hex 32 >"$folder/$file"
done
hash() {
    tr -d '\n' <"$folder/$1.password" | openssl dgst -sha256 -r | cut -d ' ' -f 1
}
sed -e "s/HASH-OF-THE-PASSWORD-OF-THE-MANAGER/$(hash manager)/" \
    -e "s/HASH-OF-THE-PASSWORD-OF-THE-WORKERS/$(hash worker)/" "$here/users.acl" >"$folder/users.acl"
sed -e "s|\"/etc/redis/plane/|\"$folder/|" -e "s|^dir .*|dir \"$folder/data\"|" "$here/redis.conf" >"$folder/redis.conf"
trap - EXIT

echo "$folder/users.acl   who may do what, with the hashes of the passwords"
echo "$folder/manager.password, worker.password   theirs: (--plane-password-file)"
echo "$folder/secret      for manager and workers, not for the plane: it seals the target's credentials (--plane-secret-file)"
echo "$folder/redis.conf  start it: redis-server $folder/redis.conf"
