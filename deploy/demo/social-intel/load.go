package main

import (
	"context"
	"io"
	"net/http"
	"time"
)

// inFlight bounds the load's requests: a slow service is asked less often,
// rather than by ever more clients.
const inFlight = 64

// load sends the service its traffic over loopback: two of three requests are
// the feature's. It ends with ctx.
func (s *service) load(ctx context.Context, address string) {
	if s.rate == 0 {
		return
	}
	base := "http://" + address
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: inFlight}}
	free := make(chan struct{}, inFlight)
	tick := time.NewTicker(time.Second / time.Duration(s.rate))
	defer tick.Stop()
	paths := []string{"/basic/views", "/analytics/trends", "/analytics/forecast"}
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		path := paths[i%len(paths)]
		if path != paths[0] && s.share == 0 && s.broken.Load().QuietWhenOff {
			continue
		}
		select {
		case free <- struct{}{}:
		default:
			continue // as many as may be are waiting for an answer
		}
		go func() {
			defer func() { <-free }()
			get(ctx, client, base+path)
		}()
	}
}

// get asks and forgets: the result is in the service's own metrics.
func get(ctx context.Context, client *http.Client, url string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return
	}
	res, err := client.Do(req)
	if err != nil {
		return
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
}
