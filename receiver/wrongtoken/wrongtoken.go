// Package wrongtoken makes guessing a token slow. receiver calls it for each request with a
// token that it does not know. A right token is never slowed, and what is remembered is
// bounded, however many addresses guess.
package wrongtoken

import (
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The limits of what wrong tokens cost: an address is remembered for memory
// after its last one, of maxAddresses at most; each further one waits twice as
// long, up to longestDelay; maxWaiting wait at a time.
const (
	memory       = 10 * time.Minute
	maxAddresses = 4096
	free         = 10 // a person's typing errors
	firstDelay   = 50 * time.Millisecond
	longestDelay = time.Second
	maxWaiting   = 64
)

// Guard counts, logs and slows requests with a wrong token, by address. A
// right token is never slowed, whatever its address did before.
type Guard struct {
	total   prometheus.Counter
	log     *slog.Logger
	now     func() time.Time
	waiting chan struct{}

	mu   sync.Mutex
	seen map[string]sender
}

type sender struct {
	count int
	last  time.Time
}

// New returns a guard whose metric is in registry.
func New(registry prometheus.Registerer, log *slog.Logger, now func() time.Time) (*Guard, error) {
	w := &Guard{
		total: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "backout_wrong_tokens_total", Help: "Requests with a token, or a name and password, that is not known.",
		}),
		log: log, now: now, waiting: make(chan struct{}, maxWaiting), seen: map[string]sender{},
	}
	return w, registry.Register(w.total)
}

// addressOf is the address that a request is counted under: that of the whole
// home or host with IPv6, which has 2^64 of them.
func addressOf(remote string) string {
	from, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	addr := from.Addr().Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	return netip.PrefixFrom(addr, 64).Masked().String()
}

// Came notes a request with a wrong token, and returns when it may be answered.
func (w *Guard) Came(r *http.Request) {
	w.total.Inc()
	address := addressOf(r.RemoteAddr)
	count := w.count(address)
	if count&(count-1) == 0 { // 1, 2, 4, 8: a flood does not fill the log
		w.log.Warn("wrong token", "address", address, "method", r.Method, "path", r.URL.Path, "count", count)
	}
	delay := delayOf(count)
	if delay == 0 {
		return
	}
	select {
	case w.waiting <- struct{}{}:
		defer func() { <-w.waiting }()
	default:
		return // as many wait as may
	}
	select {
	case <-time.After(delay):
	case <-r.Context().Done():
	}
}

// count returns how many came from an address recently, with this one. Addresses
// beyond those that are remembered count as one.
func (w *Guard) count(address string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	if len(w.seen) >= maxAddresses {
		for a, from := range w.seen {
			if now.Sub(from.last) > memory {
				delete(w.seen, a)
			}
		}
	}
	if _, known := w.seen[address]; !known && len(w.seen) >= maxAddresses {
		address = ""
	}
	from := w.seen[address]
	if now.Sub(from.last) > memory {
		from.count = 0
	}
	from.count++
	from.last = now
	w.seen[address] = from
	return from.count
}

func delayOf(count int) time.Duration {
	delay := firstDelay
	for range count - free - 1 {
		if delay *= 2; delay >= longestDelay {
			return longestDelay
		}
	}
	if count <= free {
		return 0
	}
	return delay
}
