package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// notification is a body as Alertmanager posts it, with one firing alert for
// each instance.
func notification(labels map[string]string, instances ...string) ([]byte, error) {
	alerts := make([]any, len(instances))
	for i, name := range instances {
		own := map[string]string{"instance": name}
		for k, v := range labels {
			own[k] = v
		}
		alerts[i] = map[string]any{
			"status": "firing", "labels": own, "annotations": map[string]string{},
			"startsAt": time.Now().UTC().Format(time.RFC3339Nano), "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "",
		}
	}
	return json.Marshal(map[string]any{
		"version": "4", "groupKey": "{}:{" + instances[0] + "}", "status": "firing", "receiver": "backout", "externalURL": "http://am",
		"groupLabels": map[string]string{}, "commonLabels": labels, "commonAnnotations": map[string]string{}, "truncatedAlerts": 0, "alerts": alerts,
	})
}

// breach are the labels of the demo playbook's error-rate alert.
func breach() map[string]string {
	return map[string]string{
		"alertname": "RollbackErrorRate", "service": "social-intel", "severity": "critical", "trigger": "error_rate", "rollout": "v2.0.0",
	}
}

// post sends a notification as Alertmanager; nil means that it was answered 200.
func (s *stack) post(ctx context.Context, client *http.Client, body []byte) error {
	return postTo(ctx, client, s.url("backout")+"/api/v1/webhook/alertmanager", s.token["am"], body)
}

func postTo(ctx context.Context, client *http.Client, url, token string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("post to %s: %s: %s", url, res.Status, text)
	}
	return nil
}

// stream is posters that send notifications of the breach, each with fresh
// alerts, whether backout is there or not.
type stream struct {
	mu       sync.Mutex
	accepted []string // instances of what was answered 200
	first    chan struct{}
	stop     func()
}

func (s *stack) stream(name string, posters int, pause time.Duration) *stream {
	ctx, cancel := context.WithCancel(context.Background())
	st := &stream{first: make(chan struct{})}
	var wg sync.WaitGroup
	var once sync.Once
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: posters}}
	st.stop = func() {
		cancel()
		wg.Wait()
		client.CloseIdleConnections()
	}
	for p := range posters {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := 0; ctx.Err() == nil; i++ {
				instances := []string{fmt.Sprintf("%s-%d-%d-a", name, p, i), fmt.Sprintf("%s-%d-%d-b", name, p, i)}
				body, err := notification(breach(), instances...)
				if err == nil {
					// A request that was sent is brought to its answer, so that what was accepted is known.
					err = s.post(context.WithoutCancel(ctx), client, body)
				}
				st.note(instances, err)
				once.Do(func() { close(st.first) })
				select {
				case <-ctx.Done():
				case <-time.After(pause):
				}
			}
		}()
	}
	return st
}

// note keeps what became of a notification. Without an answer it may have been
// accepted or not; Alertmanager would send it again.
func (st *stream) note(instances []string, err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if err == nil {
		st.accepted = append(st.accepted, instances...)
	}
}
