#!/bin/bash
# A node's home as its container leaves it: owned by a user that the host does not know, its store open and in use.
set -euo pipefail
home=/var/lib/fedward/node
mkdir -p "$home"/{keys,tls,store,gui} /etc/fedward/vpn/preshared
echo 'id = "north"' >"$home/member.toml"
echo signed >"$home/register.jws"
openssl genpkey -algorithm ed25519 -out "$home/keys/identity.pem"
openssl req -x509 -newkey ed25519 -noenc -subj /CN=north -keyout "$home/tls/key.pem" -out "$home/tls/cert.pem" 2>/dev/null
cp "$home/tls/cert.pem" "$home/tls/ca.pem"
echo secret >"$home/gui/staff.db"
# A federator's folder beside it, with a job whose breakpoint gives way to a newer one many times a second.
job=/var/lib/fedward/federator/jobs/2f1c
mkdir -p "$job/experiment" /var/lib/fedward/federator/keys
openssl genpkey -algorithm ed25519 -out /var/lib/fedward/federator/keys/identity.pem
echo signed >"$job/report.jws"
cat >/opt/job.sh <<SH
cd $job/experiment
for round in \$(seq 1000000); do
  mkdir .part && echo {} >.part/breakpoint.json && echo tensors >.part/parameters.safetensors
  mv .part breakpoint_\$round && rm -rf breakpoint_\$((round - 1))
done
SH
chown -R 1900010006:1900010006 /var/lib/fedward/federator
chmod 644 /opt/job.sh
systemd-run --quiet --unit job-stand-in setpriv --reuid 1900010006 --regid 1900010006 --clear-groups bash /opt/job.sh
head -c 32 /dev/urandom | base64 >/etc/fedward/vpn/private.key
echo 'listen_port = 51820' >/etc/fedward/vpn/vpn.toml
chown -R 1900010001:1900010001 "$home"
chmod -R go= "$home" /etc/fedward/vpn
cat >/root/store.py <<'PY'
import itertools, os, sqlite3, time
os.setgid(1900010001)
os.setuid(1900010001)
store = sqlite3.connect("/var/lib/fedward/node/store/node.db", isolation_level=None)
store.execute("PRAGMA journal_mode = WAL")
store.execute("CREATE TABLE IF NOT EXISTS rounds (number INTEGER PRIMARY KEY)")
for number in itertools.count():
    store.execute("INSERT INTO rounds VALUES (NULL)")
    time.sleep(0.05)
PY
systemd-run --quiet --unit node-stand-in python3 /root/store.py
until ls "$job"/experiment/breakpoint_*/breakpoint.json >/dev/null 2>&1 && [ -s "$home/store/node.db" ]; do sleep 0.2; done
