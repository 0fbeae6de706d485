// Package receiver is backout's HTTP side: Alertmanager's webhook, the API, the
// metrics and the health addresses. It authenticates, bounds, decodes and
// answers; all else is done by the Service behind it, which engine.Engine is. cmd builds a
// Server and serves it.
//
// Its invariants:
//
//   - The webhook answers 200 only after Service.Accept has returned without an
//     error. Not committed, or too many bytes of bodies in flight: 503.
//     Malformed: 400. Too large: 413. Never 429, which Alertmanager does not
//     repeat.
//   - One odd alert costs no other alert of its notification.
//   - Without tokens nothing but the webhook and reading works, and only on
//     loopback.
//   - A web page of another site can change nothing: not with the credentials
//     that a browser keeps, nor with a name that resolves to this machine.
//   - Every error is answered as {"error": "..."}; no token is in an answer, a
//     log line or a metric.
package receiver

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/receiver/page"
	"github.com/locotoki/backout/receiver/wrongtoken"
	"github.com/locotoki/backout/remediation"
)

// Options is what New needs; every field is required, except Transport.
type Options struct {
	Service Service
	// Backtester replays what the playbook's page shows of the past.
	Backtester Backtester
	Config     *config.Config
	// Registry takes the receiver's metrics, and is what /metrics shows.
	Registry *prometheus.Registry
	Logger   *slog.Logger
	// Reload reads the configuration and the playbooks again, for /-/reload.
	// Its error goes to the caller, a commander, whose token is named actor.
	Reload func(ctx context.Context, actor string) error
	Now    func() time.Time
	// FormKey signs the console's forms: 32 random bytes, the same for all replicas.
	FormKey []byte
	// Transport carries what is said to Slack, where Config names it.
	Transport http.RoundTripper
}

// Server answers backout's addresses. It is an http.Handler.
type Server struct {
	// The parts of Service: a handler's calls tell which one it takes.
	notifications Notifications
	incidents     Incidents
	rollouts      Rollouts
	preflights    Preflights
	auditLog      AuditLog
	remembers     Remembers

	logger  *slog.Logger
	reload  func(ctx context.Context, actor string) error
	now     func() time.Time
	echo    *echo.Echo
	bodies  *bodies
	results results
	// auditReads are the turns of those who read the audit log.
	auditReads turns
	access     atomic.Pointer[access]
	pages      *page.Pages
	// metricsPage answers /metrics.
	metricsPage http.Handler
	csrf        csrf
	backtests   *backtests
	// slackBodies are the bodies of Slack's requests; slackTransport carries our answers.
	slackBodies    *bodies
	slackTransport http.RoundTripper
	// streams counts those of events that are open, for which one looks every
	// eventsEvery; ending is closed when Serve begins to end.
	streams     atomic.Int64
	lastSeen    lastStamp
	eventsEvery time.Duration
	ending      chan struct{}
	end         sync.Once
	// listening holds the addresses that Serve serves.
	listening atomic.Pointer[[]string]
	// headerTimeout bounds the arrival of a request's header, grace what is in
	// flight when Serve ends.
	headerTimeout, grace time.Duration
}

// New returns a server that is ready to serve.
func New(o Options) (*Server, error) {
	if o.Service == nil || o.Backtester == nil || o.Config == nil || o.Registry == nil || o.Logger == nil || o.Reload == nil || o.Now == nil || len(o.FormKey) < sha256.Size {
		return nil, errors.New("build receiver: an option is missing")
	}
	results, err := newResults(o.Registry)
	if err != nil {
		return nil, err
	}
	wrong, err := wrongtoken.New(o.Registry, o.Logger, o.Now)
	if err != nil {
		return nil, fmt.Errorf("build receiver: %w", err)
	}
	pages, err := page.New()
	if err != nil {
		return nil, fmt.Errorf("build receiver: %w", err)
	}
	s := &Server{
		pages:         pages,
		csrf:          csrf{o.FormKey},
		eventsEvery:   eventsEvery,
		ending:        make(chan struct{}),
		notifications: o.Service, incidents: o.Service, rollouts: o.Service, preflights: o.Service, auditLog: o.Service, remembers: o.Service,
		backtests:   newBacktests(o.Backtester, o.Logger, o.Now),
		logger:      o.Logger,
		reload:      o.Reload,
		now:         o.Now,
		echo:        echo.New(),
		bodies:      newBodies(maxBody, maxInFlight),
		slackBodies: newBodies(maxInteraction, 16*maxInteraction), slackTransport: o.Transport,
		metricsPage:   metricsHandler(o.Registry, o.Logger),
		results:       results,
		auditReads:    make(turns, auditReaders),
		headerTimeout: readHeaderTimeout,
		grace:         shutdownGrace,
	}
	s.access.Store(newAccess(o.Config, wrong))
	s.echo.HTTPErrorHandler = s.fail
	s.routes()
	return s, nil
}

// Reconfigure applies the tokens and the external URL of a reloaded configuration. It
// refuses to drop the last token while a non-loopback address is served, and then
// changes nothing.
func (s *Server) Reconfigure(cfg *config.Config) error {
	if served := s.listening.Load(); served != nil {
		if err := CheckListen(*served, cfg); err != nil {
			return err
		}
	}
	s.access.Store(newAccess(cfg, s.access.Load().wrong))
	return nil
}

// ServeHTTP answers one request; a panic costs that request only.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(p) // net/http's own way to cut an answer off
		}
		s.logger.Error("panic while answering", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		s.write(w, http.StatusInternalServerError, problem{"internal error: the server's log has the details"})
	}()
	if s.logger.Enabled(r.Context(), slog.LevelDebug) {
		start := s.now()
		defer func() {
			s.logger.Debug("answered", "method", r.Method, "path", r.URL.Path, "remote", r.RemoteAddr, "duration", s.now().Sub(start))
		}()
	}
	// HEAD is GET without its body, which net/http leaves out. A stream has no end.
	if r.Method == http.MethodHead && r.URL.Path != "/events" {
		r = r.Clone(r.Context())
		r.Method = http.MethodGet
		w = headOnly{w}
	}
	s.echo.ServeHTTP(w, r)
}

// headOnly leaves the body of an answer out.
type headOnly struct{ http.ResponseWriter }

// Write implements io.Writer.
func (h headOnly) Write(p []byte) (int, error) { return len(p), nil }

// Unwrap is http.ResponseController's.
func (h headOnly) Unwrap() http.ResponseWriter { return h.ResponseWriter }

// problem is the body of every error.
type problem struct {
	Error string `json:"error"`
}

// refuse is an error that is answered with this status and these words.
func refuse(status int, format string, args ...any) error {
	return echo.NewHTTPError(status, fmt.Sprintf(format, args...))
}

// withHint is the message of a refusal in err, with err's hint: what wraps it is not
// for who asked.
func withHint(message string, err error) string {
	_, try := hint.Of(err)
	return hint.Text(message, try)
}

// fail answers an error; it is echo's error handler, so 404 and 405 come here
// as well.
func (s *Server) fail(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	r := c.Request()
	status, words := http.StatusInternalServerError, "internal error: the server's log has the details"
	var he *echo.HTTPError
	var re *remediation.RefusedError
	switch {
	case errors.As(err, new(*remediation.StoreAwayError)):
		s.logger.Error("the database does not answer", "method", r.Method, "path", r.URL.Path, "err", err)
		c.Response().Header().Set("Retry-After", "5")
		status, words = http.StatusServiceUnavailable, "the database does not answer: try again in a moment; if it lasts, the server's log has the reason"
		if r.Method != http.MethodGet {
			words = "the database does not answer: try again in a moment, and check first whether this was done"
		}
	case errors.As(err, &re):
		status, words = refusalStatus(re.Refusal), withHint(re.Message, err)
	case errors.As(err, &he):
		status, words = he.Code, withHint(fmt.Sprint(he.Message), err)
		switch status {
		case http.StatusNotFound:
			words = fmt.Sprintf("there is no %s %s", r.Method, r.URL.Path)
		case http.StatusMethodNotAllowed:
			words = fmt.Sprintf("method %s is not allowed for %s: see Allow", r.Method, r.URL.Path)
		}
	}
	if status == http.StatusInternalServerError {
		s.logger.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	if wantsPage(r) {
		s.failPage(c, status, words)
		return
	}
	s.write(c.Response(), status, problem{words})
}

// refusalStatus is the status of a refusal of the engine; an unknown one is
// the server's own fault.
func refusalStatus(r remediation.Refusal) int {
	switch r {
	case remediation.Invalid:
		return http.StatusBadRequest
	case remediation.Missing:
		return http.StatusNotFound
	case remediation.Conflict:
		return http.StatusConflict
	}
	return http.StatusInternalServerError
}

// answer writes an object with 200.
func (s *Server) answer(c echo.Context, v any) error {
	s.write(c.Response(), http.StatusOK, v)
	return nil
}

func (s *Server) write(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		s.logger.Error("cannot encode an answer as JSON", "err", err)
		status, body = http.StatusInternalServerError, []byte(`{"error":"internal error: the server's log has the details"}`)
	}
	s.writeBody(w, status, append(body, '\n'))
}

func (s *Server) writeBody(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil {
		s.logger.Debug("client disconnected before the answer", "err", err)
	}
}
