#!/bin/bash
# Beside this host: containers on the bridges that the firewall knows, and the hub at the end of fedward0. Every one
# listens on ports 22, 8443, 8444, 8883 and 9999, and so does this host on 9999.
set -euo pipefail

place() { # place NAME HOST_SIDE ADDRESS GATEWAY: a namespace behind an interface of this host
  ip netns add "$1"
  ip link add "$2" type veth peer name eth0 netns "$1"
  ip -n "$1" address add "$3" dev eth0
  ip -n "$1" link set eth0 up
  ip -n "$1" link set lo up
  ip -n "$1" route add default via "$4"
  ip link set "$2" up
}

bridge() { # bridge NAME NETNS N
  ip link add "$1" type bridge
  ip address add "10.77.$3.1/24" dev "$1"
  ip link set "$1" up
  place "$2" "to-$2" "10.77.$3.2/24" "10.77.$3.1"
  ip link set "to-$2" master "$1"
}

listen() { # listen NETNS-OR-HOST PORT...
  local inside=()
  [ "$1" = host ] || inside=(ip netns exec "$1")
  shift
  for port; do
    "${inside[@]}" setsid python3 -c "
import socket
s = socket.create_server(('', $port))
while True:
    s.accept()[0].close()" >/dev/null 2>&1 </dev/null &
  done
}

sysctl -qw net.ipv4.ip_forward=1
bridge fdw-warden warden 1
bridge fdw-gui gui 2
bridge br-other other 3
place hub fedward0 10.98.0.1/24 10.98.0.9
ip -n hub address add 10.98.0.7/24 dev eth0 # another member, as the hub would pass it on
ip address add 10.98.0.9/24 dev fedward0
for one in hub warden gui; do listen "$one" 22 8443 8444 8883 9999; done
listen host 9999

# What Docker does for a published port, and for whoever goes out.
nft -f - <<'RULES'
table ip stands_for_docker {
    chain prerouting {
        type nat hook prerouting priority dstnat;
        fib daddr type local tcp dport 8444 dnat to 10.77.2.2:8444
        fib daddr type local tcp dport 9998 dnat to 10.77.2.2:9999
    }
    chain postrouting {
        type nat hook postrouting priority srcnat;
        ip saddr 10.77.0.0/16 oifname != "br-other" masquerade
    }
}
RULES
