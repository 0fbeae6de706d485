package receiver

import (
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The limits of what wrong tokens cost: an address is remembered for wrongMemory
// after its last one, of wrongAddresses at most; each further one waits twice as
// long, up to wrongLongest; wrongWaiting wait at a time.
const (
	wrongMemory    = 10 * time.Minute
	wrongAddresses = 4096
	wrongFree      = 10 // a person's typing errors
	wrongFirst     = 50 * time.Millisecond
	wrongLongest   = time.Second
	wrongWaiting   = 64
)

// wrongTokens counts, logs and slows requests with a wrong token, by address. A
// right token is never slowed, whatever its address did before.
type wrongTokens struct {
	total   prometheus.Counter
	log     *slog.Logger
	now     func() time.Time
	after   func(time.Duration) <-chan time.Time
	waiting chan struct{}

	mu   sync.Mutex
	seen map[string]wrongFrom
}

type wrongFrom struct {
	count int
	last  time.Time
}

func newWrongTokens(registry prometheus.Registerer, log *slog.Logger, now func() time.Time) (*wrongTokens, error) {
	w := &wrongTokens{
		total: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "backout_wrong_tokens_total", Help: "Requests with a token, or a name and password, that is not known.",
		}),
		log: log, now: now, after: time.After, waiting: make(chan struct{}, wrongWaiting), seen: map[string]wrongFrom{},
	}
	return w, registry.Register(w.total)
}

// wrongAddress is the address that a request is counted under: that of the whole
// home or host with IPv6, which has 2^64 of them.
func wrongAddress(remote string) string {
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

// came notes a request with a wrong token, and returns when it may be answered.
func (w *wrongTokens) came(r *http.Request) {
	w.total.Inc()
	address := wrongAddress(r.RemoteAddr)
	count := w.count(address)
	if count&(count-1) == 0 { // 1, 2, 4, 8: a flood does not fill the log
		w.log.Warn("wrong token", "address", address, "method", r.Method, "path", r.URL.Path, "count", count)
	}
	delay := wrongDelay(count)
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
	case <-w.after(delay):
	case <-r.Context().Done():
	}
}

// count returns how many came from an address recently, with this one. Addresses
// beyond those that are remembered count as one.
func (w *wrongTokens) count(address string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	if len(w.seen) >= wrongAddresses {
		for a, from := range w.seen {
			if now.Sub(from.last) > wrongMemory {
				delete(w.seen, a)
			}
		}
	}
	if _, known := w.seen[address]; !known && len(w.seen) >= wrongAddresses {
		address = ""
	}
	from := w.seen[address]
	if now.Sub(from.last) > wrongMemory {
		from.count = 0
	}
	from.count++
	from.last = now
	w.seen[address] = from
	return from.count
}

func wrongDelay(count int) time.Duration {
	delay := wrongFirst
	for range count - wrongFree - 1 {
		if delay *= 2; delay >= wrongLongest {
			return wrongLongest
		}
	}
	if count <= wrongFree {
		return 0
	}
	return delay
}
