package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/locotoki/backout/remediation"
)

const (
	// headLogEvery is how often the audit log's head is written to the process's own
	// log, headTeamEvery how often it is sent to the team; only if it has moved.
	headLogEvery  = time.Hour
	headTeamEvery = 24 * time.Hour
)

// reportedHead is the head that was reported last, in memory and as a receipt.
type reportedHead struct {
	Seq int64     `json:"seq"`
	At  time.Time `json:"at"`
}

// due reports whether to report a head again.
func (t reportedHead) due(seq int64, now time.Time, every time.Duration) bool {
	return seq != t.Seq && now.Sub(t.At) >= every
}

// ReportHead sends the audit log's head to places that an attacker who truncates the log
// does not reach: without them, a truncated log looks complete.
func (e *Notifier) ReportHead(ctx context.Context) error {
	now := e.Now()
	var seq int64
	var hash string
	var told reportedHead
	err := e.Store.View(ctx, func(tx remediation.Tx) (err error) {
		if seq, hash, err = tx.Head(); err != nil {
			return err
		}
		told, err = headReceipt(tx)
		return err
	})
	if err != nil {
		return fmt.Errorf("report the audit log's head: %w", err)
	}
	e.mu.Lock()
	toLog := e.loggedHead.due(seq, now, headLogEvery)
	if toLog {
		e.loggedHead = reportedHead{seq, now}
	}
	e.mu.Unlock()
	if toLog {
		e.Log.Info("audit log head", "seq", seq, "hash", hash, "head", fmt.Sprintf("%d:%s", seq, hash))
	}
	if len(e.team) == 0 || !told.due(seq, now, headTeamEvery) {
		return nil
	}
	err = e.Store.Update(ctx, func(tx remediation.Tx) error {
		if told, err := headReceipt(tx); err != nil || !told.due(seq, now, headTeamEvery) {
			return err
		}
		body, err := json.Marshal(reportedHead{seq, now})
		if err != nil {
			return err
		}
		if err := tx.PutReceipt(remediation.ActorEngine, "head", string(body)); err != nil {
			return err
		}
		return e.notifyChannels(tx, "", []remediation.TeamLine{{
			Time: now.UTC(), Actor: remediation.ActorEngine, Seq: seq, Hash: hash,
			Title: fmt.Sprintf("The audit log ends at entry %d", seq),
			Why:   fmt.Sprintf("to check later that nothing was changed or cut off: backout audit verify --head=%d:%s", seq, hash),
		}})
	})
	if err != nil {
		return fmt.Errorf("report the audit log's head: %w", err)
	}
	return nil
}

func headReceipt(tx remediation.Tx) (told reportedHead, err error) {
	r, err := tx.Receipt(remediation.ActorEngine, "head")
	if errors.Is(err, remediation.ErrNotFound) {
		return reportedHead{}, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(r), &told)
	}
	return told, err
}
