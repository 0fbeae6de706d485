package store

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// fewRows matches a scan of an index that has few rows, whatever its table has.
var fewRows = regexp.MustCompile(`incidents_(open|running|paging)|rollouts_promoting|outbox_order`)

// TestQueriesOfLargeTablesUseAnIndex asks SQLite how it would run what the tables
// run: a scan of a million rows would only show in the field.
func TestQueriesOfLargeTablesUseAnIndex(t *testing.T) {
	s := openTemp(t)
	drill := false
	use := func(tx remediation.Tx) error {
		inc := &remediation.Incident{Service: "a", State: remediation.Confirming, Wake: time.Now()}
		if err := tx.PutIncident(inc); err != nil {
			return err
		}
		if err := whole("x")(tx); err != nil {
			return err
		}
		if err := tx.PutAlert(remediation.AlertState{Fingerprint: "x", Incident: "inc-2"}); err != nil {
			return err
		}
		for _, f := range []remediation.IncidentFilter{
			{Service: "a", Drill: &drill, Newest: true, Limit: 1}, {Open: true}, {Service: "a", Open: true}, {After: "inc-1", Limit: 10}, {Newest: true, Limit: 10}, {Newest: true, Before: "inc-9", Limit: 10},
		} {
			if _, err := tx.Incidents(f); err != nil {
				return err
			}
		}
		for _, f := range []audit.Filter{
			{Incident: "a"}, {Service: "a"}, {Kind: "a"}, {Incident: "a", Service: "a", Kind: "a"}, {Service: "a", Kind: "a"}, {After: 5, Limit: 10}, {Incident: "a", After: 5},
		} {
			if _, err := tx.Entries(f); err != nil {
				return err
			}
		}
		for _, service := range []string{"", "a"} {
			if _, err := tx.Effects(service, time.Now()); err != nil {
				return err
			}
		}
		for _, find := range []func() ([]*remediation.Incident, error){tx.Running, tx.Paging} {
			if _, err := find(); err != nil {
				return err
			}
		}
		if _, err := tx.Promoting(); err != nil {
			return err
		}
		if _, _, err := tx.Due(time.Now()); err != nil {
			return err
		}
		if _, _, err := tx.ActiveAlerts("a"); err != nil {
			return err
		}
		if _, err := tx.Alerts("a"); err != nil {
			return err
		}
		if err := tx.PutMessage(&remediation.Message{Channel: "a", Key: "a"}); err != nil {
			return err
		}
		if _, err := tx.FirstMessages("a"); err != nil {
			return err
		}
		if _, err := tx.PublicIncidents(time.Now()); err != nil {
			return err
		}
		_, err := tx.PendingMessages()
		return err
	}
	checked := 0
	err := s.Update(t.Context(), func(x remediation.Tx) error {
		if err := use(x); err != nil {
			return err
		}
		c := x.(*tx).c.(*sqliteConn)
		for _, query := range slices.Sorted(maps.Keys(c.stmts)) {
			if !strings.HasPrefix(query, "SELECT") && !strings.HasPrefix(query, "UPDATE") {
				continue
			}
			err := c.query(t.Context(), "EXPLAIN QUERY PLAN "+query, make([]any, strings.Count(query, "?")), func(r row) error {
				var id, parent, unused int
				var detail string
				if err := r.scan(&id, &parent, &unused, &detail); err != nil {
					return err
				}
				checked++
				// Walking a table in the order asked for, up to a limit, is not a scan;
				// the schema and sqlite_sequence are small, and so is the outbox.
				scan := strings.HasPrefix(detail, "SCAN") && !strings.Contains(query, "LIMIT") && detail != "SCAN sqlite_sequence" && detail != "SCAN sqlite_master" &&
					!fewRows.MatchString(detail) && detail != "SCAN CONSTANT ROW"
				sort := strings.Contains(detail, "TEMP B-TREE") && (strings.Contains(query, "FROM audit") || strings.Contains(query, "LIMIT"))
				if scan || sort {
					t.Errorf("%s\n\t%s", query, detail)
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("%s: %w", query, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if checked < 20 {
		t.Fatalf("only %d lines of plans were seen", checked)
	}
}
