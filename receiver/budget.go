package receiver

import (
	"context"
	"net"
	"net/http"
	"sync"
	"syscall"
)

// The connections that one listener may hold at a time, where the process may open
// that many files; the rest is for the store, the engine and the other listener.
const (
	maxConnections       = 512
	maxPublicConnections = 256
)

// budget bounds the connections of one listener. Once there are too many, the one
// that has waited for longest is closed, so that clients that say nothing, or say it
// slowly, keep no notification out.
type budget struct {
	max int

	mu   sync.Mutex
	turn uint64
	open map[net.Conn]*use
}

// use is what a connection does.
type use struct {
	waits   uint64 // the turn since when no handler answers it
	answers int    // the handlers that answer it; more than one with HTTP/2
}

// newBudget allows max connections, or a quarter of the files that the process may open.
func newBudget(max int) *budget {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil && files.Cur/4 < uint64(max) {
		max = int(files.Cur / 4)
	}
	return &budget{max: max, open: map[net.Conn]*use{}}
}

type connKey struct{}

// bound makes a server keep to the budget.
func (b *budget) bound(srv *http.Server) {
	next := srv.Handler
	srv.ConnState = b.state
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := r.Context().Value(connKey{}).(net.Conn)
		b.answer(c, 1)
		defer b.answer(c, -1)
		next.ServeHTTP(w, r)
	})
}

// answer counts a handler that begins or ends.
func (b *budget) answer(c net.Conn, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn++
	if u := b.open[c]; u != nil {
		u.answers += n
		u.waits = b.turn
	}
}

// state is an http.Server's ConnState.
func (b *budget) state(c net.Conn, s http.ConnState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn++
	switch s {
	case http.StateNew:
		b.open[c] = &use{waits: b.turn}
	case http.StateActive, http.StateIdle:
		if u := b.open[c]; u != nil {
			u.waits = b.turn
		}
	case http.StateHijacked, http.StateClosed:
		delete(b.open, c)
	}
	if s != http.StateNew || len(b.open) <= b.max {
		return
	}
	oldest := c // if handlers answer all others, the new one is closed
	for other, u := range b.open {
		if u.answers == 0 && u.waits < b.open[oldest].waits {
			oldest = other
		}
	}
	delete(b.open, oldest)
	if t, ok := oldest.(interface{ NetConn() net.Conn }); ok {
		oldest = t.NetConn() // TLS would wait to say goodbye
	}
	_ = oldest.Close() // its server notices by itself
}
