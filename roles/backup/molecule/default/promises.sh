#!/bin/bash
# Back up a store that is being written to, lose everything, and restore it.
set -euo pipefail
failed=0
hold() { "${@:2}" >/dev/null || { echo "does not hold: $1" >&2; failed=1; }; }
fails() { ! "$@" 2>/dev/null; }
home=/var/lib/fedward/node
job=/var/lib/fedward/federator/jobs/2f1c
rows() { python3 -c "import sqlite3; print(sqlite3.connect('$home/store/node.db').execute('SELECT COUNT(*) FROM rounds').fetchone()[0])"; }

hold "the timer is on" systemctl is-active fedward-backup.timer
hold "the unit can do little else" systemd-analyze security --no-pager --threshold=20 fedward-backup.service

owner=$(stat -c '%u %a' "$home/store/node.db")
systemctl start fedward-backup.service
archive=$(ls /var/backups/fedward/*.tar.gz | tail -1)
hold "the archive is root's alone" test "$(stat -c '%U %a' "$archive")" = "root 600"
rm -rf /root/seen && mkdir /root/seen && tar -xzf "$archive" -C /root/seen
hold "the store is in it" test -s "/root/seen$home/store/node.db"
hold "no private key is in it" fails grep -rlE "PRIVATE KEY|PrivateKey|PresharedKey" /root/seen
hold "nor WireGuard's" fails grep -rqF "$(cat /etc/fedward/vpn/private.key)" /root/seen
hold "nor the staff's second factors" test -z "$(find /root/seen -name 'staff*')"
hold "a running job's breakpoint is in it" test -n "$(ls /root/seen$job/experiment)"
hold "each of them whole" test -z "$(for one in /root/seen$job/experiment/*; do
  [ -s "$one/breakpoint.json" ] && [ -s "$one/parameters.safetensors" ] || echo "$one"
done)"
hold "settings are in it" grep -q north "/root/seen$home/member.toml"

# The machine's disk is lost; a new one was deployed with an empty home.
systemctl stop node-stand-in job-stand-in
rm -rf /var/lib/fedward/federator/jobs
rm -f "$home"/store/* "$home/member.toml" "$home/register.jws"
fedward-restore "$archive"
hold "the rounds are back" test "$(rows)" -gt 0
hold "the store is its owner's again" test "$(stat -c '%u %a' "$home/store/node.db")" = "$owner"
hold "the job is back" test -s "$(ls -d $job/experiment/breakpoint_* | tail -1)/parameters.safetensors"
hold "all of it is its federator's alone" test -z "$(find "$job" ! -user 1900010006 -o -type d ! -perm 700)"
hold "the register is back" grep -q signed "$home/register.jws"

openssl genpkey -algorithm ed25519 -out "$home/stray.toml"
hold "a key that got among the settings ends the backup" fails systemctl start fedward-backup.service
hold "and leaves no half archive" test -z "$(ls -A /var/backups/fedward | grep -v '^fedward-.*gz$')"
rm "$home/stray.toml"
for _ in 1 2 3; do
  systemctl reset-failed fedward-backup.service 2>/dev/null || true
  systemctl start fedward-backup.service
done
hold "only as many as wanted are kept" test "$(ls /var/backups/fedward/*.tar.gz | wc -l)" = 2
exit "$failed"
