package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
)

var errCut = errors.New("cut by the test")

// fault is what the n-th call that changes something meets: a statement on the
// wire, or a file or a program.
type fault struct {
	n    int // -1: none
	kind actiontest.Fault

	mu    sync.Mutex
	calls []string
	hit   bool
}

// next counts a call. Once one was cut off before or after, the process is as dead.
func (f *fault) next(what string) (meets actiontest.Fault, dead bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hit {
		return "", f.kind != actiontest.Hang
	}
	f.calls = append(f.calls, what)
	if len(f.calls)-1 != f.n {
		return "", false
	}
	f.hit = true
	return f.kind, false
}

func (f *fault) fired() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hit
}

func (f *fault) seams() *seams {
	return &seams{
		dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			return &wire{Conn: conn, f: f, ctx: ctx}, err
		},
		do: func(ctx context.Context, what string, do func(context.Context) error) error {
			meets, dead := f.next(what)
			switch {
			case dead, meets == actiontest.Before:
				return errCut
			case meets == "":
				return do(ctx)
			}
			if err := do(ctx); err != nil {
				return err
			}
			if meets == actiontest.Hang {
				return actiontest.Unanswered(ctx)
			}
			return errCut
		},
	}
}

// wire is a connection to the server. What changes something is a message Q.
type wire struct {
	net.Conn
	f     *fault
	ctx   context.Context // of the operation that dialled
	meets atomic.Value    // actiontest.Fault, of the answer
}

func (w *wire) Write(p []byte) (int, error) {
	if len(p) < 6 || p[0] != 'Q' || int(binary.BigEndian.Uint32(p[1:]))+1 != len(p) {
		return w.Conn.Write(p)
	}
	sql := string(p[5 : len(p)-1])
	if sql == "begin read only" || sql == "commit" || sql == "rollback" {
		return w.Conn.Write(p) // pgx's own, around what only reads: ours are in upper case
	}
	meets, dead := w.f.next(sql)
	if dead || meets == actiontest.Before {
		return 0, errors.Join(errCut, w.Close())
	}
	if meets != "" {
		w.meets.Store(meets)
	}
	return w.Conn.Write(p)
}

func (w *wire) Read(p []byte) (int, error) {
	meets, _ := w.meets.Load().(actiontest.Fault)
	if meets == "" {
		return w.Conn.Read(p)
	}
	for {
		// The answer is there, and nobody hears it.
		if _, err := w.Conn.Read(p); err != nil {
			return 0, err
		}
		if meets == actiontest.After {
			return 0, errors.Join(errCut, w.Close())
		}
		actiontest.Expire(w.ctx)
	}
}

func (w *harness) fixture(meddle func(n int)) *actiontest.Fixture {
	ours := &fault{n: -1}
	meddled := 0
	return &actiontest.Fixture{
		Risk:   alerts.Lossy,
		Action: w.action(ours.seams()),
		State:  func(*testing.T) string { return w.state() },
		Effects: func(*testing.T) int {
			ours.mu.Lock()
			defer ours.mu.Unlock()
			return len(ours.calls) + meddled
		},
		Meddle: func(*testing.T) {
			meddled++
			meddle(meddled)
		},
		Cut: func(_ *testing.T, n int, kind actiontest.Fault) (remediation.Action, func() bool) {
			f := &fault{n: n, kind: kind}
			return w.action(f.seams()), f.fired
		},
		Secrets: w.secrets(),
		Lost:    func(*testing.T) bool { return w.lost() },
		Reset:   func(*testing.T) { w.reset() },
	}
}

func TestRollbackByUndoScriptsConforms(t *testing.T) {
	actiontest.RunLossy(t, func(t *testing.T) *actiontest.Fixture {
		w := newHarness(t)
		return w.fixture(func(n int) { // someone migrates on
			v := n + 2
			w.write(fmt.Sprintf("U%d.0__back.sql", v), fmt.Sprintf("DROP TABLE more_%d;", v))
			w.write(fmt.Sprintf("V%d.0__more.sql", v), fmt.Sprintf("CREATE TABLE more_%d ();", v))
			w.migrate(fmt.Sprintf("V%d.0__more.sql", v))
		})
	})
}

func TestRollbackByCommandConforms(t *testing.T) {
	actiontest.RunLossy(t, func(t *testing.T) *actiontest.Fixture {
		w := newHarness(t)
		w.byCommand()
		return w.fixture(func(n int) { // someone edits the script, and migrates again
			script, err := os.ReadFile(filepath.Join(w.dir, "rollback_to_v1.sh"))
			if err != nil {
				t.Fatal(err)
			}
			w.write("rollback_to_v1.sh", fmt.Sprintf("%s# edit %d\n", script, n))
			w.chmod("rollback_to_v1.sh", 0o755)
			if w.lost() {
				w.migrate("V2.0.0__analytics.sql")
			}
		})
	})
}
