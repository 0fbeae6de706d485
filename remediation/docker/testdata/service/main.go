// Command service is what the tests run in containers: it serves its health and
// its environment, and breaks as its environment tells it to.
//
//	BREAKS_WHEN_OFF=crash    it ends a moment after its start while FLAG is 0
//	BREAKS_WHEN_OFF=sick     it is unhealthy while FLAG is 0
//	BREAKS_WHEN_OFF=deaf     it serves another value of FLAG than it has
//	BREAKS=crash|sick        the same, whatever FLAG is
//
// It serves VERSION too, as JSON.
//
// LISTEN is its address, :9000 by default.
//
// "service check" is its healthcheck.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	breaks := os.Getenv("BREAKS")
	if os.Getenv("FLAG") == "0" {
		breaks = os.Getenv("BREAKS_WHEN_OFF")
	}
	if len(os.Args) > 1 && os.Args[1] == "check" {
		res, err := http.Get("http://127.0.0.1:9000/health/")
		if err != nil || res.StatusCode != http.StatusOK {
			os.Exit(1)
		}
		return
	}
	if breaks == "crash" {
		time.Sleep(50 * time.Millisecond)
		os.Exit(3)
	}
	http.HandleFunc("GET /health/", func(w http.ResponseWriter, _ *http.Request) {
		if breaks == "sick" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	http.HandleFunc("GET /flags", func(w http.ResponseWriter, _ *http.Request) {
		flags := map[string]string{}
		for _, kv := range os.Environ() {
			if k, v, _ := strings.Cut(kv, "="); strings.HasPrefix(k, "FLAG") {
				flags[k] = v
			}
		}
		if breaks == "deaf" {
			flags["FLAG"] = "1"
		}
		if err := json.NewEncoder(w).Encode(flags); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	})
	http.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		if err := json.NewEncoder(w).Encode(map[string]string{"version": os.Getenv("VERSION")}); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	})
	listen := os.Getenv("LISTEN")
	if listen == "" {
		listen = ":9000"
	}
	go func() {
		fmt.Fprintln(os.Stderr, http.ListenAndServe(listen, nil))
		os.Exit(1)
	}()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
}
