package alerts_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
)

func good(t *testing.T, name string) *alerts.Playbook {
	t.Helper()
	pb, err := parse(t, filepath.Join(playbooks, "good", name))
	if err != nil {
		t.Fatalf("\n%v", err)
	}
	return pb
}

func TestLoadRefusesAFileThatOthersCanWrite(t *testing.T) {
	src, err := os.ReadFile(filepath.Join(playbooks, "good", "smallest.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o644: true, 0o664: false, 0o646: false, 0o620: false, 0o602: false} {
		path := filepath.Join(t.TempDir(), "playbook.yaml")
		if err := os.WriteFile(path, src, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		pb, err := alerts.Load(path, kinds())
		var ps alerts.Problems
		switch {
		case ok && (err != nil || pb.Service != "social-intel"):
			t.Errorf("%o: %v", mode, err)
		case !ok && (!errors.As(err, &ps) || len(ps) != 1 || !strings.Contains(ps[0].Try, "chmod go-w "+path)):
			t.Errorf("%o: got %v, want one problem that names chmod", mode, err)
		}
	}
}

func TestLoadSaysWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := alerts.Load(filepath.Join(dir, "none.yaml"), kinds()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	var ps alerts.Problems
	if _, err := alerts.Load(dir, kinds()); !errors.As(err, &ps) || !strings.Contains(err.Error(), "not a plain file") {
		t.Errorf("a folder: %v", err)
	}
}

func TestAFileThatIsTooLargeIsRefused(t *testing.T) {
	_, err := alerts.Parse("large.yaml", bytes.Repeat([]byte("#\n"), 1<<20), kinds())
	if err == nil || !strings.HasPrefix(err.Error(), elsewhere) {
		t.Errorf("got %.200v", err)
	}
}

func TestAPlaybookKeepsItsBytesAndTheirHash(t *testing.T) {
	src, err := os.ReadFile(filepath.Join(playbooks, "good", "smallest.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	pb := good(t, "smallest.yaml")
	sum := sha256.Sum256(src)
	if pb.Hash != hex.EncodeToString(sum[:]) || !bytes.Equal(pb.Source, src) {
		t.Errorf("hash %s of %d bytes, want %x of %d", pb.Hash, len(pb.Source), sum, len(src))
	}
}

func TestTheSmallestPlaybookSaysWhatItsReaderExpects(t *testing.T) {
	pb := good(t, "smallest.yaml")
	tr := pb.Trigger("error_rate")
	if th, above := tr.Bound(); th != 0.01 || !above || tr.Span() != 15*time.Minute || tr.Recovery.MinVolume != 13 {
		t.Errorf("trigger %+v", tr)
	}
	ind := pb.Indicator("error_rate")
	if ind.Instant() || *ind.Target != 0.001 || *ind.Alert.Above != 0.005 || ind.Unit != alerts.Ratio {
		t.Errorf("indicator %+v", ind)
	}
	if got := pb.StagesOf("error_rate"); !reflect.DeepEqual(got, []string{"alpha"}) {
		t.Errorf("stages of error_rate: %v", got)
	}
	if got := pb.StagesOf("critical_security_vulnerability"); got != nil {
		t.Errorf("stages of a signal: %v", got)
	}
	steps := pb.Plan("ladder").Steps
	if len(steps) != 3 || steps[0].Params.(*flagParams).Flag != "FEATURE_ANALYTICS_ENABLED" || steps[2].Approval.Timeout != model.Duration(30*time.Minute) {
		t.Errorf("steps %+v", steps)
	}
}

func TestWhatIsLeftOutHasItsDefault(t *testing.T) {
	pb := good(t, "sparse.yaml")
	steps := pb.Plan("ladder").Steps
	for what, got := range map[string]struct{ got, want any }{
		"scrape_interval":    {pb.ScrapeInterval.String(), "15s"},
		"warmup":             {pb.Warmup.String(), "1m"},
		"watchdog.max_age":   {pb.Watchdog.MaxAge.String(), "5m"},
		"probe.timeout":      {pb.Target.Probe.Timeout.String(), "30s"},
		"per_target":         {pb.Limits.PerTarget.String(), "3/1h"},
		"per_service":        {pb.Limits.PerService.String(), "6/1h"},
		"blast_radius":       {pb.Limits.BlastRadius.String(), "3/10m"},
		"cooldown":           {pb.Limits.Cooldown.String(), "10m"},
		"breaker":            {pb.Limits.Breaker, 3},
		"reopen_within":      {pb.Limits.ReopenWithin.String(), "1h"},
		"close_after":        {pb.Limits.CloseAfter.String(), "5m"},
		"confirmation":       {pb.Confirmation, alerts.Confirmation{Reversible: "if_reachable", Disruptive: "required", Lossy: "required"}},
		"flag default":       {pb.Flags[0].Default, "0"},
		"recovery":           {pb.Triggers[0].Recovery, alerts.Recovery{Window: model.Duration(2 * time.Minute), MinVolume: 4}},
		"recovery of signal": {pb.Triggers[1].Recovery, alerts.Recovery{}},
		"settle":             {steps[0].Settle.String(), "5m"},
		"timeout":            {steps[0].Timeout.String(), "5m"},
		"timeout of lossy":   {steps[2].Timeout.String(), "30m"},
		"approval":           {steps[0].Approval, (*alerts.Approval)(nil)},
		"approval of lossy":  {steps[2].Approval.Timeout.String(), "30m"},
		"on_failure":         {steps[0].OnFailure, alerts.OnFailureWait},
		"risk":               {[]alerts.Risk{steps[0].Risk, steps[1].Risk, steps[2].Risk}, []alerts.Risk{alerts.Reversible, alerts.Disruptive, alerts.Lossy}},
		"criterion":          {pb.Stages[0].Success[0].Window.String(), "1h"},
		"soaking":            {pb.Stages[1].Duration.String(), "1w"},
	} {
		if !reflect.DeepEqual(got.got, got.want) {
			t.Errorf("%s is %v, want %v", what, got.got, got.want)
		}
	}
}

func TestZeroesThatAreWrittenStay(t *testing.T) {
	pb := good(t, "short-windows.yaml")
	if pb.Warmup != 0 || pb.Limits.Cooldown != 0 || pb.Limits.CloseAfter.String() != "10s" {
		t.Errorf("warmup %s, cooldown %s, close_after %s", pb.Warmup, pb.Limits.Cooldown, pb.Limits.CloseAfter)
	}
	// 2W+4S by the trigger's own recovery window
	if s := pb.Plan("ladder").Steps[1].Settle; s.String() != "14s" {
		t.Errorf("settle is %s", s)
	}
}

func TestMergeKeysAndAnchorsGiveWhatTheyStandFor(t *testing.T) {
	pb := good(t, "anchors.yaml")
	tr := pb.Trigger("beta_error_rate")
	if tr == nil || tr.Indicator != "error_rate" || *tr.Above != 0.005 || tr.MinVolume != 100 || tr.Plan != "ladder" {
		t.Fatalf("merged: %+v", tr)
	}
	if *pb.Trigger("error_rate").Above != 0.01 {
		t.Error("the merge changed what it merged")
	}
	if f := pb.Flags[0]; f.Off != "0" || f.Fallback != "v1.0.0" {
		t.Errorf("flag: %+v", f)
	}
}

func TestTextWithoutQuotesIsTakenAsItIsWritten(t *testing.T) {
	pb := good(t, "signals-only.yaml")
	if pb.Release != (alerts.Release{Version: "2.10", Previous: "2.9"}) {
		t.Errorf("release: %+v", pb.Release)
	}
	if pb.Target.Compose.ProjectDir != "/srv/shop" {
		t.Errorf("project_dir: %q", pb.Target.Compose.ProjectDir)
	}
}

func TestExpandFillsWhatAQueryNames(t *testing.T) {
	pb := &alerts.Playbook{Selectors: map[string]string{"analytics": `endpoint=~"/a$"`, "window_": `job="x"`}}
	for query, want := range map[string]string{
		"x[$window]":                         "x[15m]",
		"x{$analytics}[$window]":             `x{endpoint=~"/a$"}[15m]`,
		"x{$window_,a=\"b\"} >= $min_volume": `x{job="x",a="b"} >= 0.5`,
		`x{a="$"} + $nothing`:                `x{a="$"} + $nothing`,
	} {
		if got := pb.Expand(query, 15*time.Minute, 0.5); got != want {
			t.Errorf("%s: got %s, want %s", query, got, want)
		}
	}
	if got := pb.Expand("$min_volume", time.Minute, 1e21); got != "1000000000000000000000" {
		t.Errorf("a large volume: %s", got)
	}
}

func TestPlaybooksThatActOnTheSameThingAreRefusedTogether(t *testing.T) {
	smallest, shop, sparse := good(t, "smallest.yaml"), good(t, "signals-only.yaml"), good(t, "sparse.yaml")
	if err := alerts.CheckConflicts([]*alerts.Playbook{smallest, shop}); err != nil {
		t.Errorf("two that differ: %v", err)
	}
	err := alerts.CheckConflicts([]*alerts.Playbook{smallest, shop, sparse})
	want := `sparse.yaml:2: the service "social-intel" already has a playbook (smallest.yaml:1)
  try: give one playbook per service
sparse.yaml:7: the compose service "social-intel" in /srv/social-intel is the target of another playbook (smallest.yaml:7)
  try: let one playbook act on it, or set project in each`
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
	workload, statefulSet := good(t, "kubernetes.yaml"), good(t, "kubernetes-statefulset.yaml")
	second := *workload
	second.Service, statefulSet.Service = "another", "a third"
	err = alerts.CheckConflicts([]*alerts.Playbook{smallest, workload, statefulSet})
	if err == nil || strings.Contains(err.Error(), "another playbook") {
		t.Errorf("targets of different kinds: %v", err)
	}
	err = alerts.CheckConflicts([]*alerts.Playbook{workload, &second})
	if want := "kubernetes.yaml:6: the deployment web in namespace shop is the target of another playbook (kubernetes.yaml:6)"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("one workload: %v", err)
	}
	service := good(t, "swarm.yaml")
	second = *service
	second.Service = "another"
	err = alerts.CheckConflicts([]*alerts.Playbook{smallest, workload, service, &second})
	if want := "swarm.yaml:6: the Swarm service shop_web is the target of another playbook (swarm.yaml:6)"; err == nil || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), "another playbook") != 1 {
		t.Errorf("one service of a Swarm: %v", err)
	}
	for _, c := range []struct {
		one, other string
		refused    bool
	}{{"prod", "staging", false}, {"prod", "prod", true}, {"prod", "", true}} {
		one, other := *smallest, *smallest
		one.Target.Compose.Project, other.Target.Compose.Project, other.Service = c.one, c.other, "another"
		if err := alerts.CheckConflicts([]*alerts.Playbook{&one, &other}); (err != nil) != c.refused {
			t.Errorf("projects %q and %q of one folder: %v", c.one, c.other, err)
		}
	}
}
