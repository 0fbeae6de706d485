package swarm

import (
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// runningTask is a task that listens on loopback.
func runningTask(spec object) object {
	return object{
		"ID": "t1", "Slot": 1, "DesiredState": "running", "Spec": spec, "Status": object{"State": "running"},
		"NetworksAttachments": []object{{"Addresses": []string{"127.0.0.1/8"}}},
	}
}

// fakeEngine is an engine with one service. At the same port its tasks answer /health, and
// say the flags at /said.
func fakeEngine(t *testing.T, service object, tasks []object, said string) (c *Client, port string) {
	t.Helper()
	answer := func(what any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(what) }
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", "1.41") })
	mux.HandleFunc("/v1.41/services", answer([]object{service}))
	mux.HandleFunc("/v1.41/tasks", answer(tasks))
	mux.HandleFunc("/health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/said", answer(json.RawMessage(said)))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	at := server.Listener.Addr().String()
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	c, err = New(Options{Host: "tcp://" + at, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, port
}
