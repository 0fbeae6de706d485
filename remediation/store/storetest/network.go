package storetest

import (
	"net"
	"sync/atomic"
	"testing"
)

// Network is a way to a server that may be gone at any time: it then takes what is sent, and
// nothing comes back. A connection that lost something that way stays dead.
type Network struct {
	// Address is what clients connect to.
	Address string
	Gone    atomic.Bool
	// Sent, where a test sets it, is called with what a client sends before it is passed on.
	Sent func([]byte)
}

// NewNetwork makes a way to the server at an address, which ends with the test.
func NewNetwork(t testing.TB, server string) *Network {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // the test ends it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	n := &Network{Address: l.Addr().String()}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", server) //nolint:noctx // the test ends it
			if err != nil {
				_ = c.Close()
				continue
			}
			lost := &atomic.Bool{}
			go n.pass(to, c, lost, n.Sent)
			go n.pass(c, to, lost, nil)
		}
	}()
	return n
}

func (n *Network) pass(to, from net.Conn, lost *atomic.Bool, see func([]byte)) {
	defer to.Close()   //nolint:errcheck // either may be closed already
	defer from.Close() //nolint:errcheck // either may be closed already
	buf := make([]byte, 64<<10)
	for {
		k, err := from.Read(buf)
		if err != nil {
			return
		}
		if see != nil {
			see(buf[:k])
		}
		if n.Gone.Load() {
			lost.Store(true)
		}
		if lost.Load() {
			continue
		}
		if _, err := to.Write(buf[:k]); err != nil {
			return
		}
	}
}
