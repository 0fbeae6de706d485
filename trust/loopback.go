package trust

import (
	"net/netip"
	"strings"
)

// Loopback reports whether a host, without its port, is this machine: what is sent there
// needs no TLS.
func Loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.Unmap().IsLoopback()
}
