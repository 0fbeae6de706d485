package receiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

const (
	// maxBody is the largest notification. Annotations are in a body twice:
	// 1.4 MB of them were measured as 2.8 MB.
	maxBody = 8 << 20
	// maxInFlight bounds the bodies that are being read or committed together.
	maxInFlight = 64 << 20
	// largeBody is from where on a body waits for its turn: what it becomes takes
	// several times its bytes, so one at a time is decoded and committed.
	largeBody = 256 << 10
	// firstRead is the buffer that a body starts with; nearly all need no other.
	firstRead = 16 << 10
)

var (
	errBusy     = errors.New("too many notifications in flight")
	errTooLarge = errors.New("body too large")
)

// bodies reads bodies, each of limit bytes at most, and holds all of them
// together below total bytes. Memory is reserved as it is needed, so that a
// client that announces much and sends little takes nothing from the others.
type bodies struct {
	limit, total int
	used         atomic.Int64
	pool         sync.Pool
	// large holds the turn of large bodies.
	large chan struct{}
}

// body is one that was read; release gives its memory back.
type body struct {
	data []byte
	from *bodies
	// turned: it has the turn of large bodies.
	turned bool
}

func newBodies(limit, total int) *bodies {
	return &bodies{limit: limit, total: total, large: make(chan struct{}, 1)}
}

// read reads r's body: errTooLarge, errBusy, or the error of the connection.
func (b *bodies) read(r *http.Request) (*body, error) {
	if r.ContentLength > int64(b.limit) {
		return nil, errTooLarge
	}
	if !b.reserve(firstRead) {
		return nil, errBusy
	}
	held, ok := b.pool.Get().(*body)
	if !ok {
		held = &body{data: make([]byte, 0, firstRead), from: b}
	}
	for {
		if len(held.data) == cap(held.data) {
			if err := held.grow(); err != nil {
				held.release()
				return nil, err
			}
		}
		n, err := r.Body.Read(held.data[len(held.data):cap(held.data)])
		held.data = held.data[:len(held.data)+n]
		switch {
		case len(held.data) > b.limit:
			held.release()
			return nil, errTooLarge
		case errors.Is(err, io.EOF):
			return held, nil
		case err != nil:
			held.release()
			return nil, fmt.Errorf("read body: %w", err)
		}
	}
}

// grow makes room for more, up to one byte past the limit, by which a body that
// is too large is known.
func (h *body) grow() error {
	size := min(4*cap(h.data), max(h.from.limit+1, firstRead))
	if !h.from.reserve(size - cap(h.data)) {
		return errBusy
	}
	h.data = append(make([]byte, 0, size), h.data...)
	return nil
}

// turn waits until what is in the body may be taken in: errBusy where ctx ends
// before that.
func (h *body) turn(ctx context.Context) error {
	if len(h.data) < largeBody {
		return nil
	}
	select {
	case h.from.large <- struct{}{}:
		h.turned = true
		return nil
	case <-ctx.Done():
		return errBusy
	}
}

func (h *body) release() {
	if h.turned {
		h.turned = false
		<-h.from.large
	}
	h.from.used.Add(-int64(cap(h.data)))
	if cap(h.data) == firstRead {
		h.data = h.data[:0]
		h.from.pool.Put(h)
	}
}

func (b *bodies) reserve(n int) bool {
	if b.used.Add(int64(n)) > int64(b.total) {
		b.used.Add(-int64(n))
		return false
	}
	return true
}

// discard reads the rest of a refused body, within bounds: many clients look at
// the answer only after they have sent everything, and see a broken connection
// instead. One that waits for "100 Continue" needs no such help.
func (b *bodies) discard(r *http.Request) error {
	if r.Header.Get("Expect") != "" {
		return nil
	}
	if _, err := io.CopyN(io.Discard, r.Body, 4*int64(b.limit)); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("discard body: %w", err)
	}
	return nil
}
