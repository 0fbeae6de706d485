package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/prometheus/common/promslog"
	"github.com/prometheus/common/version"

	"github.com/locotoki/backout/alerts/draft"
	"github.com/locotoki/backout/cmd/backout/terminal"
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/docker/compose"
	"github.com/locotoki/backout/remediation/observe"
)

// pastTimeout bounds a query over a week.
const pastTimeout = 30 * time.Second

func (c *commands) addInit() {
	clause := c.app.Command("init", "Write a first playbook for a service, from its compose project and the metrics that Prometheus has. What was guessed is marked. Changes nothing else.")
	dir := clause.Flag("project-dir", "Folder of the compose project.").Default(".").PlaceHolder("DIR").String()
	service := clause.Flag("service", "Service in the compose file.").Required().PlaceHolder("NAME").String()
	prometheus := clause.Flag("prometheus", "Address of Prometheus. Default: that of --config.file; without both, metrics and bounds are guessed.").PlaceHolder("URL").String()
	files := clause.Flag("config.file", "Configuration: how Prometheus is reached, its http_config and headers.").PlaceHolder("FILE").String()
	var o draft.Options
	clause.Flag("job", "Prometheus job that scrapes the service. Default: found by the service's name and ports.").PlaceHolder("NAME").StringVar(&o.Job)
	clause.Flag("release", "Version to roll out. Default: guessed from the previous one.").PlaceHolder("VERSION").StringVar(&o.Version)
	clause.Flag("previous", "Version to fall back to. Default: the image's tag in the compose file.").PlaceHolder("VERSION").StringVar(&o.Previous)
	out := clause.Flag("out", "File to write, which must not exist. Default: standard output.").PlaceHolder("FILE").String()
	output := c.outputFlag(clause, reflect.TypeFor[drafted]())
	c.add(clause, func(ctx context.Context) error {
		full, err := filepath.Abs(*dir)
		if err != nil {
			return wrong("", "--project-dir: %w", err)
		}
		if _, err := os.Lstat(*out); *out != "" && !errors.Is(err, fs.ErrNotExist) {
			return wrong("another name, or remove it", "--out: %s already exists, and init overwrites nothing", *out)
		}
		if o.Service, err = compose.Describe(full, *service); err != nil {
			return wrong("", "%w", err)
		}
		conf, err := settingsFlags{configFile: files}.loadConfig()
		if err != nil {
			return wrong("", "%w", err)
		}
		if *prometheus != "" || *files != "" {
			if *prometheus != "" {
				conf.PrometheusURL = *prometheus
			}
			transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
			defer transport.CloseIdleConnections()
			if o.Prometheus, err = past(conf, transport); err != nil {
				return wrong("--prometheus=http://127.0.0.1:9090", "%w", err)
			}
			o.Address, _, _ = strings.Cut(conf.PrometheusURL, "?") // what follows may be a secret
		}
		o.Now, o.Program = c.now(), version.Version
		if *out != "" {
			if folder, err := os.Stat(filepath.Dir(*out)); err != nil || !folder.IsDir() {
				return wrong("mkdir -p "+filepath.Dir(*out)+", or another name", "--out: there is no folder %s", filepath.Dir(*out))
			}
		}
		text, noAnswer, err := draft.Write(ctx, o)
		if err != nil {
			return wrong("", "write the playbook: %w", err)
		}
		next := "--url=URL"
		var noJob *draft.NoJobError
		missing := errors.As(noAnswer, &noJob)
		if *prometheus != "" && (noAnswer == nil || missing) {
			next = "--url=" + o.Address
		}
		if *files != "" {
			next = strings.TrimPrefix(next+" --config.file="+*files, "--url=URL ")
		}
		switch err := c.deliver(*out, string(text), next, *output); {
		case err != nil || noAnswer == nil:
			return err
		case missing && o.Job == "":
			if *output == outputJSON {
				return nil
			}
			_, err := fmt.Fprintf(c.stderr, "The job is to fill in, and with it metrics and bounds: %s. To let init find them: the same command with --job=NAME and another --out.\n", terminal.Clean(noAnswer.Error()))
			return err
		case missing:
			return negative("another --job, and another --out", "%w; metrics and bounds are to fill in", noAnswer)
		}
		return negative("check --prometheus, or prometheus.url in --config.file; then run init again, with another --out",
			"Prometheus at %s gave no answer, so metrics and bounds are guessed: %w", o.Address, noAnswer)
	})
}

// drafted is the answer of init.
type drafted struct {
	Playbook string `json:"playbook"`
	// File is where it was written to, "" for none.
	File string `json:"file"`
	// Guessed and FillIn are how many values were guessed, and how many a person must add.
	Guessed int `json:"guessed"`
	FillIn  int `json:"to_fill_in"`
}

func past(conf *config.Config, transport *http.Transport) (*observe.Prometheus, error) {
	rt, err := conf.PrometheusHTTP.Transport("prometheus", transport)
	if err != nil {
		return nil, fmt.Errorf("prometheus.http_config: %w", err)
	}
	return observe.NewPrometheus(conf.PrometheusURL, pastTimeout, rt, promslog.NewNopLogger())
}

// deliver writes a drafted playbook, and says on standard error what is left to do;
// prometheus is the flag that names where a backtest reads.
func (c *commands) deliver(out, text, prometheus, output string) error {
	d := drafted{Playbook: text, File: out, Guessed: strings.Count(text, " # guessed"), FillIn: strings.Count(text, " # fill in: ")}
	if out != "" {
		if err := createFile(out, text); err != nil {
			return wrong("", "--out: %w", err)
		}
	}
	switch {
	case output == outputJSON:
		return c.printJSON(d)
	case out == "":
		if err := c.print(text); err != nil {
			return err
		}
	}
	name := out
	if out == "" {
		name = "FILE"
	}
	_, err := fmt.Fprintf(c.stderr, `%s guessed, %d to fill in. Next: read it, check it, then see what it would have done in the last 7 days:
  backout check --playbook.file=%[3]s
  backout backtest --playbook.file=%[3]s %[4]s --from=7d
`, remediation.Counted(d.Guessed, "value"), d.FillIn, name, prometheus)
	return err
}

// createFile writes a file that must not exist, for its owner only: a playbook decides
// what gets run.
func createFile(name, text string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
