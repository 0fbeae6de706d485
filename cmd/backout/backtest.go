package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/cmd/backout/flags"
	"github.com/locotoki/backout/cmd/backout/terminal"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/receiver/report"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/backtest"
	"github.com/locotoki/backout/remediation/observe"
	"github.com/locotoki/backout/remediation/view"
	"github.com/locotoki/backout/rules"
	"github.com/locotoki/backout/trust"
)

// The values of --output that only backtest has.
const (
	outputMarkdown = "markdown"
	outputHTML     = "html"
)

// backtestTimeout is how long one query may take: it covers a day.
const backtestTimeout = 2 * time.Minute

// maxRollouts bounds the file of --assume-rollouts, in bytes.
const maxRollouts = 1 << 20

type backtestFlags struct {
	settingsFlags
	url, from, to, stage, rollouts, cache, output *string
	maxLoad                                       *loadValue
}

func (c *commands) addBacktest() {
	clause := c.app.Command("backtest", "Replay a playbook over the past of a Prometheus: which alerts would have fired, what backout would have done, "+
		"and what to change. It runs no step and writes nothing but its cache. Ctrl-C shows what there is; the next run continues.")
	f := backtestFlags{
		settingsFlags: c.settingsFlags(clause),
		url:           clause.Flag("url", "Prometheus's address. Default: prometheus.url of --config.file.").PlaceHolder("URL").String(),
		from:          clause.Flag("from", "Begin there: a time such as 2026-11-01T00:00:00Z, or how long ago, such as 30d.").Default("30d").String(),
		to:            clause.Flag("to", "End there, in the same form.").Default("0s").String(),
		stage:         clause.Flag("stage", "Replay as if a rollout had been in this stage all the time. Default: the recorded rollout_stage.").PlaceHolder("NAME").String(),
		rollouts: clause.Flag("assume-rollouts", "YAML list of past rollouts: - {stages: [{stage: alpha, from: TIME}], ended: TIME}.").
			PlaceHolder("FILE").String(),
		maxLoad: newLoadValue(clause),
		cache:   clause.Flag("cache-dir", "Where fetched values are kept for the next run. Default: backout/backtest in $XDG_CACHE_HOME or ~/.cache.").PlaceHolder("DIR").String(),
		output:  flags.Choice(clause, "output", "How to print the report: text, json, markdown, or html (one file with plots).", outputText, outputText, outputJSON, outputMarkdown, outputHTML),
	}
	c.answers[clause.FullCommand()] = []reflect.Type{reflect.TypeFor[view.Backtest]()}
	c.add(clause, func(ctx context.Context) error { return c.backtest(ctx, f) })
}

// backtest replays one playbook and prints the report.
func (c *commands) backtest(ctx context.Context, f backtestFlags) (err error) {
	cfg, err := f.loadConfig()
	if err != nil {
		return wrong("", "%w", err)
	}
	// None of the kinds' clients is used: the replayed steps have actions of their own.
	kinds, err := actionKinds(cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = closing(kinds, err) }()
	set, err := f.load(playbookKinds(kinds.list))
	if err != nil {
		return err
	}
	if len(set.playbooks) != 1 {
		return wrong("backout backtest --playbook.file=FILE", "backtest replays one playbook, and %d are given", len(set.playbooks))
	}
	o, err := f.options(c, cfg, set.playbooks[0])
	if err != nil {
		return err
	}
	// The replay makes much that is soon forgotten: a larger heap spares a quarter of its time.
	if c.env("GOGC") == "" {
		defer debug.SetGCPercent(debug.SetGCPercent(400))
	}
	o.Kinds = kinds.list
	work := c.progress()
	o.Progress = func(p backtest.Progress) { work.Count(p.Doing, p.Done, p.All, p.Unit) }
	replayed, err := backtest.Run(ctx, o)
	work.Done()
	switch {
	case err != nil && ctx.Err() != nil:
		return wrong("the same command: it continues from its cache", "interrupted before there was anything to show")
	case err != nil:
		return wrong(backtestHint(err), "%w", err)
	}
	switch *f.output {
	case outputJSON:
		err = c.printJSON(replayed)
	case outputHTML:
		var page []byte
		if page, err = report.BacktestFile(replayed); err == nil {
			err = c.print(string(page))
		}
	case outputMarkdown:
		err = c.print(terminal.BacktestText(replayed, terminal.MarkdownRows))
	default:
		err = c.print(terminal.BacktestText(replayed, terminal.TextRows))
	}
	if err == nil && replayed.Missing != "" {
		err = errAnswered
	}
	return err
}

// backtestHint is what may help against an error without a hint of its own.
func backtestHint(err error) string {
	switch _, own := hint.Of(err); {
	case own != "":
		return ""
	case errors.Is(err, remediation.ErrTooSlow):
		return "--max-load=0.5, or a later --from"
	case errors.Is(err, remediation.ErrNoAnswer):
		return "--url=URL of a Prometheus that answers, or prometheus.url in --config.file; what was fetched is kept"
	}
	return "backout help backtest"
}

// options turns the flags into those of a backtest.
func (f backtestFlags) options(c *commands, cfg *config.Config, pb *alerts.Playbook) (backtest.Options, error) {
	o := backtest.Options{Playbook: pb, SourceName: cfg.PrometheusURL, Identity: cfg.PrometheusHTTP.Digest(), Stage: *f.stage, MaxLoad: f.maxLoad.value, Now: c.now}
	if *f.url != "" {
		o.SourceName = *f.url
	}
	transport, err := cfg.PrometheusHTTP.Transport("prometheus", pastTransport(o.SourceName, 4))
	if err != nil {
		return o, wrong("", "prometheus.http_config: %w", err)
	}
	if o.Source, err = observe.NewPrometheus(o.SourceName, backtestTimeout, transport, slog.New(slog.DiscardHandler)); err != nil {
		return o, wrong("--url=http://127.0.0.1:9090", "%w", err)
	}
	if o.From, err = timeFlag("from", *f.from, c.now()); err != nil {
		return o, err
	}
	if o.To, err = timeFlag("to", *f.to, c.now()); err != nil {
		return o, err
	}
	if *f.rollouts != "" {
		if o.Rollouts, err = readRollouts(pb, *f.rollouts); err != nil {
			return o, err
		}
	}
	dir := *f.cache
	if dir == "" {
		home := c.env("XDG_CACHE_HOME")
		if home == "" && c.env("HOME") != "" {
			home = filepath.Join(c.env("HOME"), ".cache")
		}
		if home == "" {
			return o, wrong("--cache-dir=DIR", "neither XDG_CACHE_HOME nor HOME is set")
		}
		dir = filepath.Join(home, "backout", "backtest")
	}
	if o.Cache, err = backtest.OpenCache(dir, c.now()); err != nil {
		return o, wrong("--cache-dir=DIR", "%w", err)
	}
	return o, nil
}

// pastTransport leads to the Prometheus of a backtest. One on this machine need not
// compress its answers, which takes a fifteenth of its work.
func pastTransport(address string, idle int) *http.Transport {
	u, err := url.Parse(address)
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: idle, IdleConnTimeout: time.Minute, DisableCompression: err == nil && trust.Loopback(u.Hostname()),
	}
}

func readRollouts(pb *alerts.Playbook, file string) ([]rules.Stay, error) {
	content, err := trust.ReadFile(file, maxRollouts)
	if err != nil {
		return nil, wrong("", "--assume-rollouts: %w", err)
	}
	stays, err := backtest.ReadRollouts(pb, content)
	if err == nil && len(stays) == 0 {
		err = errors.New("it lists no rollout")
	}
	if err != nil {
		return nil, wrong("- {stages: [{stage: NAME, from: 2026-11-01T09:00:00Z}], ended: 2026-11-12T09:00:00Z}", "--assume-rollouts: %s: %w", file, err)
	}
	return stays, nil
}

// timeFlag reads a time, or how long ago one was.
func timeFlag(flag, text string, now time.Time) (time.Time, error) {
	if ago, err := model.ParseDuration(text); err == nil {
		return now.Add(-time.Duration(ago)), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, wrong(fmt.Sprintf("--%s=30d, or --%s=2026-11-01T00:00:00Z", flag, flag), "--%s: %q is neither a time nor a duration", flag, text)
	}
	return t, nil
}

// loadValue is the flag --max-load.
type loadValue struct{ value float64 }

func newLoadValue(clause *kingpin.CmdClause) *loadValue {
	v := &loadValue{}
	clause.Flag("max-load", fmt.Sprintf("Queries that run at a time on average, from %g to %g. Below 1, backtest pauses between queries: 0.25 rests three quarters of the time.",
		backtest.MinLoad, backtest.MaxLoad)).Default(strconv.FormatFloat(backtest.MaxLoad, 'g', -1, 64)).PlaceHolder("N").SetValue(v)
	return v
}

// String implements kingpin.Value.
func (v *loadValue) String() string { return strconv.FormatFloat(v.value, 'g', -1, 64) }

// Set implements kingpin.Value.
func (v *loadValue) Set(s string) error {
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || math.IsNaN(f) || f < backtest.MinLoad || f > backtest.MaxLoad {
		return fmt.Errorf("--max-load: invalid value %q; use a number from %g to %g", s, backtest.MinLoad, backtest.MaxLoad)
	}
	v.value = f
	return nil
}
