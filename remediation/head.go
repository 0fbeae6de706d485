package remediation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

const (
	// headLogged is how often the audit log's end is written to the process's own
	// log, headTold how often the team is told it: at most, and only if it has moved.
	headLogged = time.Hour
	headTold   = 24 * time.Hour
)

// toldHead is what was told of the audit log's end, in memory and as a receipt.
type toldHead struct {
	Seq int64     `json:"seq"`
	At  time.Time `json:"at"`
}

// due tells whether an end is worth telling again.
func (t toldHead) due(seq int64, now time.Time, every time.Duration) bool {
	return seq != t.Seq && now.Sub(t.At) >= every
}

// tellHead tells where the audit log ends, to places that whoever cuts the log's
// tail off does not reach: without them a log that ends early looks whole.
func (e *Engine) tellHead(ctx context.Context) error {
	now := e.now()
	var seq int64
	var hash string
	var told toldHead
	err := e.store.View(ctx, func(tx Tx) (err error) {
		if seq, hash, err = tx.Head(); err != nil {
			return err
		}
		told, err = headReceipt(tx)
		return err
	})
	if err != nil {
		return fmt.Errorf("tell the audit log's end: %w", err)
	}
	e.mu.Lock()
	toLog := e.loggedHead.due(seq, now, headLogged)
	if toLog {
		e.loggedHead = toldHead{seq, now}
	}
	e.mu.Unlock()
	if toLog {
		e.log.Info("the audit log ends here", "seq", seq, "hash", hash, "head", fmt.Sprintf("%d:%s", seq, hash))
	}
	if len(e.team) == 0 || !told.due(seq, now, headTold) {
		return nil
	}
	err = e.store.Update(ctx, func(tx Tx) error {
		if told, err := headReceipt(tx); err != nil || !told.due(seq, now, headTold) {
			return err
		}
		body, err := json.Marshal(toldHead{seq, now})
		if err != nil {
			return err
		}
		if err := tx.PutReceipt(actorEngine, "head", string(body)); err != nil {
			return err
		}
		return e.tellChannels(tx, "", []TeamLine{{
			Time: now.UTC(), Actor: actorEngine, Seq: seq, Hash: hash,
			Title: fmt.Sprintf("The audit log ends at entry %d", seq),
			Why:   fmt.Sprintf("backout audit verify --head=%d:%s shows later whether it still holds all of it", seq, hash),
		}})
	})
	if err != nil {
		return fmt.Errorf("tell the audit log's end: %w", err)
	}
	return nil
}

func headReceipt(tx Tx) (told toldHead, err error) {
	r, err := tx.Receipt(actorEngine, "head")
	if errors.Is(err, ErrNotFound) {
		return toldHead{}, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(r), &told)
	}
	return told, err
}
