#!/bin/bash
# Each line: what must hold, and the command that says so.
failed=0
hold() { "${@:2}" >/dev/null 2>&1 || { echo "does not hold: $1" >&2; failed=1; }; }
fails() { ! "$@"; }
sshd_says() { sshd -T | grep -qix "$1"; }

hold "sshd runs with the new settings" systemctl is-active ssh
hold "SSH takes keys only" sshd_says "authenticationmethods publickey"
hold "SSH takes no passwords" sshd_says "passwordauthentication no"
hold "root logs in by key at most" sshd_says "permitrootlogin without-password"

# A key of our own comes in, a password does not.
rm -f /root/.ssh/probe* && mkdir -p -m 700 /root/.ssh
ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/probe && cat /root/.ssh/probe.pub >>/root/.ssh/authorized_keys
into=(ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes -o ConnectTimeout=10)
hold "a key comes in" "${into[@]}" -i /root/.ssh/probe root@127.0.0.1 true
hold "nobody comes in without" fails "${into[@]}" -o PubkeyAuthentication=no root@127.0.0.1 true
hold "sudo works as it did" "${into[@]}" -i /root/.ssh/probe root@127.0.0.1 sudo -n sh -c true
rm -f /root/.ssh/probe* /root/.ssh/authorized_keys

hold "Docker still forwards" test "$(sysctl -n net.ipv4.ip_forward)" = 1
hold "no redirects are taken" test "$(sysctl -n net.ipv4.conf.all.accept_redirects)" = 0
hold "the kernel is the machine's, not the test host's" test ! -e /etc/sysctl.d/91-fedward-kernel.conf

hold "weak passwords are refused" fails sh -c 'echo "root:short1A!" | chpasswd'
useradd -m probe 2>/dev/null
hold "a home is its owner's alone" test "$(stat -c %a /home/probe)" = 700
hold "an account is locked after five wrong passwords" grep -q "pam_faillock.so preauth" /etc/pam.d/common-auth
userdel -r probe 2>/dev/null
hold "sudo's settings are whole" visudo -c

hold "upgrades go on when no node is here" /usr/local/lib/fedward/may-upgrade
# A node that says that a round runs: Docker's client stands in for it.
mkdir -p /tmp/bin && printf '#!/bin/sh\necho "running  round 3 of e1"\n' >/tmp/bin/docker && chmod +x /tmp/bin/docker
mkdir -p /var/lib/apt/periodic && touch /var/lib/apt/periodic/unattended-upgrades-stamp
hold "upgrades wait while a round runs" fails env PATH="/tmp/bin:$PATH" /usr/local/lib/fedward/may-upgrade
touch -d '30 days ago' /var/lib/apt/periodic/unattended-upgrades-stamp
hold "but not for ever" env PATH="/tmp/bin:$PATH" /usr/local/lib/fedward/may-upgrade
rm -rf /tmp/bin /var/lib/apt/periodic/unattended-upgrades-stamp
hold "apt asks before it upgrades" sh -c 'systemctl cat apt-daily-upgrade.service | grep -q ExecCondition=/usr/local/lib/fedward/may-upgrade'
hold "only security upgrades are installed" sh -c 'apt-config dump | grep -q "Debian-Security"'

hold "the journal outlives a reboot" test -d /var/log/journal
hold "audit rules are in place" grep -q /opt/fedward/ /etc/audit/rules.d/50-fedward.rules
hold "no core is dumped" test "$(systemctl show -p DefaultLimitCORE --value)" = 0 -o -e /etc/systemd/system.conf.d/fedward.conf
hold "unused modules stay out" sh -c 'modprobe -n -v sctp | grep -q /bin/false'
exit "$failed"
