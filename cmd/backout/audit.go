package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/locotoki/backout/cmd/backout/client"
	"github.com/locotoki/backout/cmd/backout/flags"
	"github.com/locotoki/backout/cmd/backout/terminal"
	"github.com/locotoki/backout/remediation/audit"
)

func (c *commands) addAudit() {
	audit := c.app.Command("audit", "Read the log of what backout did, and why.")
	c.addAuditList(audit)
	c.addAuditTail(audit)
	c.addAuditVerify(audit)
	c.addAuditExport(audit)
}

// entryPage is the answer of audit list, as of the API.
type entryPage struct {
	Entries []audit.Entry `json:"entries"`
	// Next is what --after continues with.
	Next int64 `json:"next"`
}

func (c *commands) addAuditList(parent *kingpin.CmdClause) {
	clause := parent.Command("list", "List entries, oldest first.")
	incident := clause.Flag("incident", "Only entries of this incident.").String()
	kind := clause.Flag("kind", "Only entries of this kind, such as intent.").String()
	after := flags.Whole(clause, "after", "Only entries after this seq.", 0, 0, math.MaxInt64)
	limit := flags.Whole(clause, "limit", "Maximum number of entries.", 100, 1, 1000)
	from, output := c.sourceFlags(clause), c.outputFlag(clause, reflect.TypeFor[entryPage]())
	c.add(clause, func(ctx context.Context) error {
		f := audit.Filter{Incident: *incident, Kind: audit.Kind(*kind), After: *after, Limit: int(*limit), Bytes: audit.PageBytes}
		return from.with(ctx, func(src source) error {
			entries, err := src.Entries(ctx, f)
			if err != nil {
				return err
			}
			next := *after
			if len(entries) > 0 {
				next = entries[len(entries)-1].Seq
			}
			if *output == outputJSON {
				return c.printEntriesJSON(entries, next)
			}
			if err := c.printEntries(entries); err != nil {
				return err
			}
			switch {
			case len(entries) == 0:
				return c.print("No entries.\n")
			case len(entries) == int(*limit):
				return c.print(fmt.Sprintf("There may be more: --after=%d\n", next))
			}
			return nil
		})
	})
}

func (c *commands) addAuditTail(parent *kingpin.CmdClause) {
	clause := parent.Command("tail", "Show the newest entries.")
	lines := flags.Whole(clause, "lines", "Number of entries.", 20, 0, math.MaxInt64)
	follow := clause.Flag("follow", "Keep printing new entries. If the server goes away, keep retrying.").Short('f').Bool()
	from, output := c.sourceFlags(clause), c.outputFlag(clause, reflect.TypeFor[audit.Entry]())
	c.add(clause, func(ctx context.Context) error {
		return from.with(ctx, func(src source) error {
			head, _, err := src.Head(ctx)
			if err != nil {
				return err
			}
			at := max(head-*lines, 0)
			more := func() error {
				return eachPage(ctx, src, at, func(entries []audit.Entry) error {
					at = entries[len(entries)-1].Seq
					if *output == outputJSON {
						return c.printEntryLines(entries)
					}
					return c.printEntries(entries)
				})
			}
			if err := more(); err != nil || !*follow {
				return err
			}
			return c.again(ctx, more)
		})
	})
}

// again runs look at every tick until ctx ends or it fails. An unreachable server
// does not end it, and is reported once each time.
func (c *commands) again(ctx context.Context, look func() error) error {
	tick := time.NewTicker(c.every)
	defer tick.Stop()
	away := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := look()
		var gone *client.Error
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &gone) && gone.Unreachable:
			if !away {
				if _, err := fmt.Fprintf(c.stderr, "backout: %s; retrying\n", terminal.CleanLines(gone.Error())); err != nil {
					return err
				}
			}
			away = true
		case err != nil:
			return err
		default:
			away = false
		}
	}
}

func (c *commands) addAuditExport(parent *kingpin.CmdClause) {
	clause := parent.Command("export", "Write every entry in canonical form, one per line. An entry's hash is the SHA-256 of its line without the hash key.")
	flags.Choice(clause, "output", "Always json.", outputJSON, outputJSON)
	c.answers[clause.FullCommand()] = []reflect.Type{reflect.TypeFor[audit.Entry]()}
	from := c.sourceFlags(clause)
	c.add(clause, func(ctx context.Context) error {
		return from.with(ctx, func(src source) error {
			work := c.progress()
			defer work.Done()
			return eachPage(ctx, src, 0, func(entries []audit.Entry) error {
				if !terminal.IsTerminal(c.stdout) {
					work.Say("entry %d", entries[len(entries)-1].Seq)
				}
				return c.printEntryLines(entries)
			})
		})
	})
}

// eachPage calls fn with all entries after a seq, one page at a time.
func eachPage(ctx context.Context, src source, after int64, fn func([]audit.Entry) error) error {
	return audit.Pages(func(f audit.Filter) ([]audit.Entry, error) { return src.Entries(ctx, f) }, after, fn)
}

// printEntries writes entries for people.
func (c *commands) printEntries(entries []audit.Entry) error {
	var b strings.Builder
	for _, e := range entries {
		b.WriteString(terminal.Entry(e, c.screen()))
	}
	return c.print(b.String())
}

// printEntryLines writes entries in their canonical form, one per line.
func (c *commands) printEntryLines(entries []audit.Entry) error {
	var b bytes.Buffer
	for _, e := range entries {
		line, err := e.MarshalJSON()
		if err != nil {
			return err
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	if terminal.IsTerminal(c.stdout) { // elsewhere every byte counts: they are what was hashed
		return c.print(terminal.Harmless(b.String()))
	}
	return c.print(b.String())
}

// printEntriesJSON writes one page as the API does.
func (c *commands) printEntriesJSON(entries []audit.Entry, next int64) error {
	if entries == nil {
		entries = []audit.Entry{}
	}
	return c.printJSON(entryPage{entries, next})
}
