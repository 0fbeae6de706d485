package receiver

import (
	"log/slog"
	"net"
	"net/http"
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
		log: log, now: now, waiting: make(chan struct{}, wrongWaiting), seen: map[string]wrongFrom{},
	}
	return w, registry.Register(w.total)
}

// came notes a request with a wrong token, and returns when it may be answered.
func (w *wrongTokens) came(r *http.Request) {
	w.total.Inc()
	address, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		address = r.RemoteAddr
	}
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
	t := time.NewTimer(delay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
	}
}

// count returns how many came from an address of late, this one too.
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
	from := w.seen[address]
	if now.Sub(from.last) > wrongMemory {
		from.count = 0
	}
	from.count++
	from.last = now
	if _, known := w.seen[address]; known || len(w.seen) < wrongAddresses {
		w.seen[address] = from
	}
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
