#!/bin/sh
# Makes what TLS needs on a plane: an authority of its own, and a server certificate by it.
#
#     certificates.sh FOLDER NAME...
#
# NAME is what stands in the plane's URL, a host name or an address; give all that are used. An
# authority that is in FOLDER already is used again, so that a new server certificate needs no new
# ca.pem on the workers. Nothing is overwritten.
set -eu
umask 077

# Days that a certificate is good for.
AUTHORITY=3650
SERVER=825

fail() {
    echo "certificates.sh: $1" >&2
    exit "${2:-2}"
}

[ $# -ge 2 ] || fail "usage: certificates.sh FOLDER NAME..., such as: certificates.sh plane plane.example 192.0.2.7"
command -v openssl >/dev/null || fail "openssl is not installed"
folder=$1
shift

names=
for name; do
    case $name in
        '' | -* | *[!A-Za-z0-9.:*-]*) fail "'$name' is neither a host name nor an address" ;;
        *:*) kind=IP ;;
        *[!0-9.]*) kind=DNS ;;
        *) kind=IP ;;
    esac
    names=${names:+$names,}$kind:$name
done
# A common name has at most 64 characters; nobody reads it, the names above are what counts.
common=$(printf '%.64s' "$1")

for file in server.pem server.key; do
    [ ! -e "$folder/$file" ] || fail "$folder/$file is there already; move it away to make a new one"
done
if [ -e "$folder/ca.pem" ] && [ ! -e "$folder/ca.key" ]; then
    fail "$folder/ca.pem is there, but not its key ca.key; bring it, or move ca.pem away to make a new authority"
fi
if [ -e "$folder/ca.key" ] && [ ! -e "$folder/ca.pem" ]; then
    fail "$folder/ca.key is there, but not its certificate ca.pem; bring it, or move ca.key away"
fi

mkdir -p "$folder"
# Made aside and moved at the end: half of it would be in the way of the next try.
work=$(mktemp -d "$folder/.making.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

quietly() {
    "$@" 2>"$work/said" || {
        cat "$work/said" >&2
        fail "openssl could not make a certificate for $names" 1
    }
}
new_key() {
    quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
}

made=
if [ -e "$folder/ca.key" ]; then
    cp "$folder/ca.key" "$folder/ca.pem" "$work/"
else
    new_key "$work/ca.key"
    quietly openssl req -x509 -new -key "$work/ca.key" -sha256 -days $AUTHORITY -out "$work/ca.pem" \
        -subj "/CN=springtide plane, authority" \
        -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign"
    made="ca.pem ca.key"
fi
new_key "$work/server.key"
quietly openssl req -new -key "$work/server.key" -subj "/CN=$common" -out "$work/server.csr"
{
    echo "subjectAltName=$names"
    echo "basicConstraints=critical,CA:FALSE"
    echo "keyUsage=critical,digitalSignature"
    echo "extendedKeyUsage=serverAuth"
} >"$work/extensions"
quietly openssl x509 -req -in "$work/server.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -sha256 -days $SERVER \
    -set_serial "0x$(openssl rand -hex 16)" -extfile "$work/extensions" -out "$work/server.pem"

chmod 644 "$work/ca.pem" "$work/server.pem"
for file in $made server.pem server.key; do
    mv "$work/$file" "$folder/$file"
done

case $made in
    '') echo "$folder/ca.pem      used as it was: the authority" ;;
    *)
        echo "$folder/ca.pem      the authority: every manager and worker gets it (--plane-ca-cert)"
        echo "$folder/ca.key      its key: keep it off the plane's host; it is needed for the next server certificate only"
        ;;
esac
echo "$folder/server.pem  the plane's certificate for $names, $(openssl x509 -in "$folder/server.pem" -noout -enddate | sed 's/notAfter=/until /')"
echo "$folder/server.key  its key: for the plane's Redis alone"
