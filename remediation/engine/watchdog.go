package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/plan"
)

// late reports whether a watchdog has stayed away for longer than its playbook lets it.
func (e *Engine) late(b *plan.Plan, beat remediation.Beat, now time.Time) bool {
	age := time.Duration(b.Watchdog.MaxAge)
	// Nobody listened before the start, which a clock that was set back puts ahead.
	listened := now.Sub(e.started)
	return now.Sub(beat.Last) > age && (listened > age || listened < 0)
}

// housekeeping notices watchdogs that stay away, ends freezes that ran out, and writes
// to customers of incidents that last too long.
func (e *Engine) housekeeping(ctx context.Context) error {
	if err := e.Notifier.ReportHead(ctx); err != nil {
		return err
	}
	if err := e.Notifier.MailLong(ctx); err != nil {
		return err
	}
	now := e.Now()
	late := func(beat remediation.Beat) bool {
		b := e.PlanOf(beat.Service)
		return b != nil && !beat.Lost && e.late(b, beat, now)
	}
	due := false
	err := e.Store.View(ctx, func(tx remediation.Tx) error {
		beats, err := tx.Beats()
		if err != nil {
			return err
		}
		live := e.liveIn(tx)
		for _, b := range beats {
			_, seen, err := e.noteMonitoring(live, b)
			if err != nil {
				return err
			}
			due = due || late(b) || seen != nil
		}
		freezes, err := tx.Freezes()
		for _, f := range freezes {
			due = due || f.RanOut(now)
		}
		return err
	})
	if err != nil || !due {
		return err
	}
	err = e.Store.Update(ctx, func(tx remediation.Tx) error {
		beats, err := tx.Beats()
		if err != nil {
			return err
		}
		live := e.liveIn(tx)
		for _, beat := range beats {
			var found []map[string]any
			if late(beat) {
				beat.Lost = true
				found = append(found, map[string]any{"blind": true, "what": remediation.BlindWatchdog, "why": fmt.Sprintf(
					"no watchdog alert for %s: Prometheus or Alertmanager may be down; nothing is promoted, and nothing is rolled back because of this", remediation.Span(now.Sub(beat.Last)))})
			}
			beat, seen, err := e.noteMonitoring(live, beat)
			if err != nil {
				return err
			}
			if seen != nil {
				found = append(found, seen)
			}
			if len(found) == 0 {
				continue
			}
			if err := tx.PutBeat(beat); err != nil {
				return err
			}
			for _, detail := range found {
				if err := e.Append(tx, audit.Entry{Kind: audit.KindBlind, Actor: remediation.ActorEngine, Service: beat.Service, Detail: detail}); err != nil {
					return err
				}
			}
		}
		freezes, err := tx.Freezes()
		if err != nil {
			return err
		}
		for _, f := range freezes {
			if !f.RanOut(now) {
				continue
			}
			if err := e.Responder.LiftFreeze(tx, f, remediation.ActorEngine, "it ran out"); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		e.WakeUp()
	}
	return err
}
